"""What redis imports under Python 3.11.0 to 3.11.2, which an environment of a later one lacks.

Only for a worker that has to run with the machine's own Python; see place.interpreter.
"""

from asyncio import timeout

__all__ = ["timeout"]
