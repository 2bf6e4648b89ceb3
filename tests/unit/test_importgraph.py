"""Which files import which."""

from __future__ import annotations

import textwrap

from relayq.model.importgraph import import_graph


def test_python_modules_are_found_by_their_names_and_by_their_place():
    texts = {
        "src/shop/__init__.py": "",
        "src/shop/models.py": "import os\nfrom . import money as m, dates\n",
        "src/shop/money.py": "if x:\n    import shop.dates\n",
        "src/shop/dates.py": "from datetime import date\n",
        "src/shop/web/__init__.py": "from .views import page  # noqa\n",
        "src/shop/web/views.py": "from ..models import (\n    Order,\n    Item,\n)\nimport shop\n",
        "tools/run.py": "import tools.other, re\nfrom shop.web import views\n",
        "tools/other.py": '"""Not: import this."""\nimport shop.models as models\n',
    }

    assert import_graph(texts) == {
        "src/shop/__init__.py": (),
        "src/shop/models.py": ("src/shop/dates.py", "src/shop/money.py"),
        "src/shop/money.py": ("src/shop/dates.py",),
        "src/shop/dates.py": (),
        "src/shop/web/__init__.py": ("src/shop/web/views.py",),
        "src/shop/web/views.py": ("src/shop/__init__.py", "src/shop/models.py"),
        "tools/run.py": ("src/shop/web/views.py", "tools/other.py"),
        "tools/other.py": ("src/shop/models.py",),
    }


def test_scripts_are_found_with_or_without_their_suffix():
    texts = {
        "app/main.ts": textwrap.dedent(
            """\
            import React from 'react'
            import { a,
                     b } from "./parts"
            import './style.css'
            export * from '../lib/log.js'
            const later = () => import('./pages/home')
            """
        ),
        "app/parts/index.tsx": "const log = require('../../lib/log')",
        "app/pages/home.vue": "import x from '@/shared/x'",
        "lib/log.ts": "",
        "src/shared/x.js": "",
    }

    assert import_graph(texts) == {
        "app/main.ts": ("app/pages/home.vue", "app/parts/index.tsx", "lib/log.ts"),
        "app/parts/index.tsx": ("lib/log.ts",),
        "app/pages/home.vue": ("src/shared/x.js",),
        "lib/log.ts": (),
        "src/shared/x.js": (),
    }


def test_go_packages_are_found_by_the_end_of_their_path():
    texts = {
        "main.go": 'package main\nimport (\n\t"fmt"\n\tx "example.org/shop/internal/money"\n)\n',
        "internal/money/money.go": 'package money\nimport "log"\n',
        "internal/money/rates.go": 'package money\nimport "example.org/shop/log"\n',
        "internal/money/money_test.go": "package money\n",
        "log/log.go": "package log\n",
    }

    assert import_graph(texts) == {
        "main.go": ("internal/money/money.go", "internal/money/rates.go"),
        "internal/money/money.go": (),
        "internal/money/rates.go": ("log/log.go",),
        "internal/money/money_test.go": (),
        "log/log.go": (),
    }
