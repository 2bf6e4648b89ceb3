"""Another version of relayq is put in the place of the one that works, and no job notices."""

from __future__ import annotations

import json
from zipfile import ZipFile

import pytest

from tests.system.installing import Environment, make_wheel
from tests.waiting import until

pytestmark = pytest.mark.system
NEW = "9.9.9"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    return make_wheel(folder / "old"), make_wheel(folder / "new", NEW)


@pytest.fixture
def machine(tmp_path, wheels):
    """A machine with one slot, installed as an installer does it."""
    one = Environment(tmp_path / "venv", wheels[0])
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    said = {"method": "venv", "source": str(wheels[0]), "extras": [], "venv": str(one.folder)}
    (home / "installed.json").write_text(json.dumps(said))

    def relayq(*arguments, code=0):
        done = one.relayq(
            *arguments,
            home=home,
            RELAYQ_WORKER__NAME="pi4",
            RELAYQ_WORKER__MAX_CONCURRENT="1",
            RELAYQ_WORKER__CPU_THRESHOLD="100",
            RELAYQ_WORKER__PRIORITY="normal",
            RELAYQ_LEASE__PULL="1",
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    yield relayq
    if (home / "broker").exists():
        relayq("down", "--kill")


def test_a_host_is_upgraded_with_its_only_slot_busy_and_the_job_goes_on(machine, wheels, tmp_path):
    machine("up")
    pids, go = tmp_path / "pids", tmp_path / "go"
    job = machine(
        "submit", f"echo $$ >>{pids}; while [ ! -e {go} ]; do sleep 0.1; done; echo survived"
    ).stdout.strip()
    until(lambda: pids.exists() and pids.read_text(), within=20, what="the job to start")

    done = machine("hosts", "upgrade", "--source", str(wheels[1]))

    assert done.stdout.startswith(f"pi4  0.1.0 -> {NEW}  ")
    assert done.stdout.endswith("; 1 job went on\n")
    [host] = json.loads(machine("hosts", "--json").stdout)["hosts"]
    assert (host["version"], host["active"]) == (NEW, 1)
    go.touch()
    machine("wait", job)
    assert machine("logs", job).stdout == "survived\n"
    # One process, one attempt: nobody started it again.
    assert pids.read_text().count("\n") == 1
    assert json.loads(machine("show", "--json", job).stdout)["attempt"] == 1

    # What can't be installed changes nothing, and is told.
    said = json.loads(
        machine("hosts", "upgrade", "--source", "/nowhere/x.whl", "--json", code=1).stdout
    )
    assert said["hosts"][0]["error"].startswith("/nowhere/x.whl isn't on this machine")
    assert json.loads(machine("hosts", "--json").stdout)["hosts"][0]["online"]


def test_a_version_that_does_not_start_is_never_switched_to(machine, wheels, tmp_path):
    broken = tmp_path / wheels[1].name
    with ZipFile(wheels[1]) as good, ZipFile(broken, "w") as bad:
        for entry in good.infolist():
            text = good.read(entry)
            bad.writestr(entry, b"1/0\n" if entry.filename == "relayq/version.py" else text)
    planned = machine("worker", "upgrade", "--dry-run", "--json", "--source", str(broken)).stdout
    assert len(json.loads(planned)["commands"]) == 2

    refused = machine("worker", "upgrade", "--source", str(broken), code=125).stderr

    assert "ZeroDivisionError" in refused
    assert "nothing was restarted" in refused
