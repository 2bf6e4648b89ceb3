"""The architecture, enforced: which module may import which, and who may use which library.

Imports point down the rows, wherever in a file they stand. Inside one row modules may import
each other, except across the two sides: who asks and who works share only what is below them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import relayq

PACKAGE = Path(__file__).parent.parent / "relayq"

ROWS = (
    ("doors", "cli serve flower __main__"),  # a person, a program, an agent asks
    ("names", "__init__"),  # the public names, nothing else
    # many jobs as one
    ("flows", "workflows workflowspecs workflowjobs flowruns reviews doctor assignments"),
    # who asks | who works
    (
        "sides",
        "client results following fetching session inside waiting specs pausing fleetviews "
        "agentjobs filejobs gitjobs mediajobs schedules speechjobs stepjobs "
        "analyses scattering harvesting tracks checkpoints maps mapplans mapitems mapruns "
        "gathering watching | worker tasks reaper host",
    ),
    # a record becomes a nudge; files travel
    (
        "transport",
        "dispatch signing identity rotation sealing "
        "ledger exporting sealedsecrets joining recurring families passage embedded artifacts "
        "transfer contents git "
        "sourcetree feeding app celeryconfig",
    ),
    ("truth", "store"),  # Redis
    ("kinds", "kinds agents"),  # what can be run, declared
    ("rules", "model"),  # pure decisions and their data
    (
        "ground",
        "config configfile sections agentsections parsing hours yamlfile catalogue errors clock "
        "notify privileges tls version",
    ),
)

ONLY_IN = {  # library: the modules (and everything below them) that may import it
    "click": "cli",
    "rich": "cli",
    "celery": "app tasks worker celeryconfig",
    "kombu": "app tasks worker celeryconfig",
    "redis": "store embedded",  # everybody else catches what store/ raises
    "subprocess": "host embedded git",
    "flower": "flower",
    "tornado": "flower",
}

SAYS_NOTHING = set(
    "util utils helper helpers common misc manager handler base data info core".split()
)

PLACE = {
    module: (height, row, side)
    for height, (row, sides) in enumerate(reversed(ROWS))
    for side, modules in enumerate(sides.split("|"))
    for module in modules.split()
}


def place_of(module: str) -> tuple[int, str, int]:
    """Return the height, the row and the side of a module; another test demands that it has one."""
    return PLACE.get(module.partition(".")[0], (-1, "no row", 0))


def name_of(path: Path) -> str:
    """Return `store.jobs` for relayq/store/jobs.py, `store` for its package, `__init__` on top."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the absolute dotted name of everything that a file imports."""
    package = ("relayq", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                above = package[: len(package) + 1 - node.level] if node.level else ()
                source = ".".join((*above, *filter(None, [node.module])))
                yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name),
                args=[ast.Constant(value=str(target)), *_],
            ) if name in {"import_module", "__import__"}:
                yield node.lineno, target


def part_of(imported: str) -> str:
    """Return which part of relayq a name belongs to; `relayq.Job` belongs to the names."""
    part = imported.partition(".")[2].partition(".")[0]
    return part if part in {name.partition(".")[0] for name in MODULES} else "__init__"


def test_every_module_has_a_place_in_the_rows():
    assert {name.partition(".")[0] for name in MODULES} <= PLACE.keys()


def test_imports_point_down_and_never_across_the_sides():
    wrong = []
    for name, path in MODULES.items():
        height, row, side = place_of(name)
        for line, imported in imports(path):
            if imported.partition(".")[0] != "relayq":
                continue
            target_height, target_row, target_side = place_of(part_of(imported))
            if target_height > height or (target_row == row and target_side != side):
                wrong.append(f"relayq.{name}:{line} ({row}) imports {imported} ({target_row})")

    assert not wrong, "\n".join(wrong)


def test_a_library_is_used_only_where_it_belongs():
    wrong = []
    for name, path in MODULES.items():
        for line, imported in imports(path):
            library = imported.partition(".")[0]
            homes = ONLY_IN.get(library, name).split()
            if not any(f"{name}.".startswith(f"{home}.") for home in homes):
                wrong.append(f"relayq.{name}:{line} imports {library}, which is for {homes}")

    assert not wrong, "\n".join(wrong)


def test_only_the_data_dictionary_formats_a_redis_key():
    files = {*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.lua")} - {PACKAGE / "store" / "keys.py"}

    assert not [path for path in files if "{rq}" in path.read_text(encoding="utf-8")]


def test_no_public_name_equals_a_module_name():
    # Importing relayq.job would rebind relayq.job from the function to the module.
    assert not set(relayq.__all__) & MODULES.keys()


def test_every_module_is_shorter_than_500_lines():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}

    assert not {name: length for name, length in lengths.items() if length >= 500}


def test_every_module_is_named_after_what_is_in_it():
    assert not [name for name in MODULES if SAYS_NOTHING & set(name.replace("_", ".").split("."))]
