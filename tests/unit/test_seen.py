"""What a host remembers of the jobs that it has brought to an end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from relayq.host.seen import Seen

#: Is killed between the two halves of taking a word.
KILLED = """
import os, pathlib, sys
from relayq.host.seen import Seen
seen = Seen(pathlib.Path(sys.argv[1]))
seen.end("job", 9e9)
def look(statement):
    if statement.startswith("DELETE FROM ended"):
        os._exit(9)
seen._open().set_trace_callback(look)
seen.hear("job", "word", 9e9)
"""


def test_a_word_is_not_used_up_by_a_worker_that_was_killed_while_it_took_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=30,
    )
    assert done.returncode == 9

    seen = Seen(tmp_path)
    assert seen.has_ended("job", 1.0)
    assert seen.hear("job", "word", 9e9)
    assert not seen.has_ended("job", 1.0)
    assert not seen.hear("job", "word", 9e9)
    seen.close()
