"""A job's standard input that comes while it runs: a file that grows, copied into the job's pipe.

The worker appends to `stdin` and makes `stdin.end` after the last byte; so a worker that dies
takes nothing of the input along. Standard library only: the shim imports this module.
"""

from __future__ import annotations

import os
from contextlib import suppress

INPUT = "stdin"
INPUT_END = "stdin.end"
_PIECE = 65_536


class Feed:
    """Copies the file to the pipe's end `fd`, as far as the job reads."""

    def __init__(self, directory: str, fd: int) -> None:
        self.fd = fd
        self.is_open = True
        os.set_blocking(fd, False)
        self._file = os.open(os.path.join(directory, INPUT), os.O_RDONLY | os.O_CLOEXEC)
        self._end = os.path.join(directory, INPUT_END)
        self._rest = b""

    def pump(self) -> bool:
        """Copy what there is; True while more waits for room in the pipe."""
        while self.is_open:
            if not self._rest:
                # Asked before reading: what was written before the end is then read.
                has_ended = os.path.exists(self._end)
                self._rest = os.read(self._file, _PIECE)
                if not self._rest:
                    if has_ended:
                        self.close()
                    return False
            try:
                self._rest = self._rest[os.write(self.fd, self._rest) :]
            except BlockingIOError:
                return True
            except OSError:  # the job closed its standard input, or ended
                self.close()
        return False

    def close(self) -> None:
        """End the input: the job reads its end of file."""
        if self.is_open:
            self.is_open = False
            for fd in (self.fd, self._file):
                with suppress(OSError):
                    os.close(fd)
