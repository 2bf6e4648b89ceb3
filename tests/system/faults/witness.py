"""The job of the faults suite: it keeps a journal of its own, whoever else knows of it.

    python -I -S witness.py DIRECTORY SECONDS [LINES [CODE [GATE]]]

It appends a line for its start, its end and every tenth of a second between to DIRECTORY/journal,
writes LINES lines to standard output and the same to DIRECTORY/<id>.<attempt>.out, and ends with
CODE after SECONDS, and not before the file GATE exists. Standard library only.
"""

import os
import select
import sys
import time

_TICK = 0.1


def main() -> int:
    """Be the job."""
    directory, seconds = sys.argv[1], float(sys.argv[2])
    lines, code = (int(word) for word in [*sys.argv[3:5], *"10"[len(sys.argv[3:5]) :]])
    gate = sys.argv[5] if len(sys.argv) > 5 else None
    me = f"{os.environ['RELAYQ_JOB_ID']} {os.environ['RELAYQ_ATTEMPT']}"
    journal = os.open(f"{directory}/journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(word: str) -> None:
        at = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
        os.write(journal, f"{word} {me} {os.getpid()} {at:.6f}\n".encode())

    note("start")
    ends, said = time.monotonic() + seconds, 0
    with open(f"{directory}/{me.replace(' ', '.')}.out", "wb", buffering=0) as copy:
        while True:
            left = max(0.0, ends - time.monotonic())
            due = lines if left == 0 else int(lines * (1 - left / seconds))
            text = b"".join(b"line %d of %s\n" % (n, me.encode()) for n in range(said, due))
            if text:
                copy.write(text)
                while text:
                    text = text[os.write(1, text) :]
            said = max(said, due)
            if left == 0 and (gate is None or os.path.exists(gate)):
                break
            select.select([], [], [], min(_TICK, left or _TICK))
            note("tick")
    note("end")
    return code


if __name__ == "__main__":
    sys.exit(main())
