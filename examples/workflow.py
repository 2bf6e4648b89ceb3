"""Run a workflow of a file, and one that is made here; both go on without this process."""

from pathlib import Path

from relayq import flow

run = flow.load(Path(__file__).with_suffix(".yml")).run(greeting="good morning")
print(run.wait(timeout=60), run.progress)
print(run["collect"].text)

release = flow("release", fail_fast=True)
build = release.add("build", "echo version=1.2 >> $RELAYQ_OUTPUT", outputs=["version"])
test = release.add("test", "echo testing ${{ matrix.on }}", needs=[build], matrix={"on": [1, 2]})
release.add("publish", f"echo published {build.output('version')}", needs=[build, test])
release.add("tell", "echo it failed", needs=["publish"], if_="failure()")

run = release.run()
print(run.wait(timeout=60))
for one in run.jobs():
    print(f"{one.name:10} {one.state:10} {one.record.host}")
print(run["publish"].text)
