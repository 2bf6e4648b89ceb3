"""Have an agent read a whole directory: `python examples/analyze.py DIR`; without one only a plan.

Sessions cost something, so without a directory this only shows how relayq's own code would be
divided among them.
"""

import sys
from pathlib import Path

import relayq
from relayq import job

if len(sys.argv) < 2:
    code = Path(relayq.__file__).parent / "model"
    plan = job.plan_analysis(code, job.asked_of_analysis(workers=3))
    for part in plan.parts:
        print(f"{part.shard.name:20} {len(part.shard.files):3} files")
else:
    run = job.analyze(sys.argv[1], workers=3)
    report = run.get()
    for issue in run.issues:
        print(issue.place, issue.severity, issue.title)
    print(report["state"], report["files_analyzed"], "of", report["total_files"], "files")
    for shard, session in run.sessions.items():
        print(f"relayq analyze ask {run.id} {shard!r} 'QUESTION'", session, sep="  # ")
