"""Send a file along with a job, and fetch what the job made of it."""

import tempfile
from pathlib import Path

from relayq import job

here = Path(tempfile.mkdtemp())
(here / "names.txt").write_text("pi4\nmini\nmacbook\n")

result = job.run(
    "sort names.txt > sorted.txt; wc -l < names.txt",
    files_in=[here / "names.txt"],
    files_out=["*.txt"],
)
print(result.get(timeout=60), "lines")

for kept in result.files:
    print(kept.name, kept.size)
[path] = result.fetch(here / "results", names=["sorted.txt"])
print(Path(path).read_text())
