"""`python -m relayq`."""

from __future__ import annotations

import sys

from relayq.cli import main

if __name__ == "__main__":
    sys.exit(main())
