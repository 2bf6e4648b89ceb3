"""A worker of root's that runs its jobs as another user: what they get, and what they can't."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from relayq import clock, config, embedded
from relayq.host import authorizing
from relayq.host.admission import FILE, Admission, EndedBefore
from relayq.identity import FILE as OWN
from relayq.identity import make_identity
from relayq.ledger import Ledger, host_ledger
from relayq.model.submitters import Submitter
from relayq.rotation import signer_of
from tests.system import opened
from tests.system.commands import environ, relayq, shown, submit, until_exists
from tests.system.conftest import Fleet, start_fleet
from tests.waiting import until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not opened.can_open(), reason="needs root, and a mount namespace"),
]

#: A user that every Linux has and that owns nothing.
USER = pwd.getpwnam("games") if sys.platform.startswith("linux") else None
SECRET = "only-for-the-job"


@pytest.fixture(scope="module")
def public():
    """A directory that every user may pass."""
    path = Path(tempfile.mkdtemp(prefix="rq-run-as-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def fleet(public):
    home = public / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAYQ_WORKER__RUN_AS", "games")
        patch.setenv("ROOTS_OWN", "a-secret-of-roots")
        for fleet in start_fleet(home, patch, working=False):
            (home / "config.yml").touch(mode=0o644)
            relayq("secret", "set", "TOKEN", stdin=None, input=f"{SECRET}\n")
            start(fleet)
            yield fleet
        embedded.stop_broker(config.load())


@pytest.fixture
def theirs(public):
    """A directory of that user's."""
    path = Path(tempfile.mkdtemp(dir=public))
    os.chown(path, USER.pw_uid, USER.pw_gid)
    return path


def start(fleet: Fleet) -> None:
    fleet.start_worker(*opened.argv(sys.executable, "-m", "relayq", "worker", "start"))


def said(*words: str) -> str:
    done = relayq("run", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ids_of(pid: int) -> set[int]:
    return {*psutil.Process(pid).uids(), *psutil.Process(pid).gids()}


def test_a_job_is_that_users_with_their_groups_and_their_home(fleet):
    out = said('id -un; id -gn; id -G; echo "$HOME $USER $LOGNAME"; grep ^Cap /proc/self/status')

    name, group, groups, home, *capabilities = out.splitlines()
    assert (name, group) == ("games", "games")
    assert {int(one) for one in groups.split()} == {*os.getgrouplist("games", USER.pw_gid)}
    assert home == f"{USER.pw_dir} games games"
    held = dict(line.split() for line in capabilities)
    assert held["CapPrm:"] == held["CapEff:"] == held["CapInh:"] == held["CapAmb:"] == "0" * 16


def test_nothing_below_the_worker_can_become_root_again(fleet, theirs):
    go, pids = theirs / "go", theirs / "pids"
    id = submit(f"echo $$ $PPID > {pids}.new && mv {pids}.new {pids}; {until_exists(go)}")
    until(pids.exists, what="the job to run")
    command, shim = map(int, pids.read_text().split())
    server = psutil.Process(shim).ppid()
    go.touch()
    relayq("wait", id)

    worker = psutil.Process(fleet.worker.pid)
    assert worker.uids() == (USER.pw_uid, USER.pw_uid, 0)
    assert worker.gids() == (USER.pw_gid,) * 3
    assert worker.status() != psutil.STATUS_ZOMBIE
    assert ids_of(server) == {USER.pw_uid, USER.pw_gid}
    for one in worker.children(recursive=True):
        assert 0 not in one.uids(), one


@pytest.mark.parametrize(
    "path",
    "fleet.key secrets.env config.yml broker broker/password audit audit/host/head sealing.key "
    "seen.db test-worker.log".split(),
)
def test_what_is_the_workers_alone_a_job_can_neither_read_nor_replace(fleet, path):
    whole = fleet.home / path
    assert whole.exists() or path == "seen.db"

    out = said(
        f"cat {whole} 2>&1; ls {whole}/ 2>&1; mv {whole} /tmp/ 2>&1; rm -rf {whole} 2>&1; true"
    )

    assert "cat: " in out
    assert SECRET not in out
    assert whole.exists() or path == "seen.db"


def test_a_job_can_not_look_into_the_worker(fleet):
    pid = fleet.worker.pid

    out = said(f"cat /proc/{pid}/environ /proc/{pid}/mem 2>&1; ls /proc/{pid}/fd 2>&1; true")

    assert out.count("Permission denied") >= 3


def test_a_job_finds_nothing_of_roots_session_in_the_processes_of_its_user(fleet):
    out = said("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")

    assert "USER=games" in out
    assert "ROOTS_OWN" not in out


def test_a_job_gets_its_secret_and_gives_its_outputs(fleet):
    id = submit("--secret", "TOKEN", 'echo "$TOKEN" | rev; echo a=1 >> "$RELAYQ_OUTPUT"')
    assert relayq("wait", id).returncode == 0

    assert relayq("logs", id).stdout.strip() == SECRET[::-1]
    assert shown(id)["outputs"] == {"a": "1"}


def test_a_job_may_ask_its_worker(fleet):
    line = f"{sys.executable} -m relayq submit true && test -w $RELAYQ_SOCKET && echo open"

    out = said("--env", f"PYTHONPATH={opened.ROOT}", line)

    assert out.split()[1:] == ["open"]


def test_files_travel_as_that_user(fleet, theirs, public, tmp_path):
    (tmp_path / "in.txt").write_text("taken along\n")
    line = f"cat in.txt; id -un > out.txt; stat -c %U in.txt; ln -s {fleet.home}/fleet.key key.txt"

    done = relayq("run", "--in", str(tmp_path / "in.txt"), "--out", "*.txt", line, cwd=tmp_path)

    assert done.stdout.splitlines()[:2] == ["taken along", "games"], done.stderr
    key = (fleet.home / "fleet.key").read_text().strip()
    assert (tmp_path / "out.txt").read_text() == "games\n" or done.returncode != 0
    found = [path.read_text() for path in tmp_path.glob("**/*.txt")]
    assert not any(key in text for text in found)


def test_a_job_that_sets_traps_in_its_spool_hurts_only_itself(fleet, public):
    victim = public / "victim"
    victim.write_text("untouched\n")
    victim.chmod(0o600)
    line = (
        'cd "$(dirname "$RELAYQ_OUTPUT")" && for name in outputs report size.json.tmp '
        f"checkpoint; do ln -sf {victim} $name; done; echo set >&2; sleep 30"
    )
    id = submit(line)
    until(lambda: "set" in relayq("logs", id).stderr, what="the traps to be set")

    assert relayq("pause", id).returncode == 0
    assert relayq("cancel", id).returncode == 0
    relayq("wait", id)

    assert victim.read_text() == "untouched\n"
    assert victim.stat().st_uid == 0
    assert "untouched" not in json.dumps(shown(id))


def test_a_cancel_ends_all_that_a_job_started(fleet, theirs):
    pids = theirs / "pids"
    line = (
        f"setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; while :; do sleep 0.1; done' & "
        f"echo $$ >> {pids}; wait"
    )
    id = submit(line)
    until(lambda: pids.exists() and len(pids.read_text().split()) == 2, what="both to run")

    relayq("cancel", id)
    relayq("wait", id)

    assert not any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split())


def test_its_jobs_survive_a_killed_worker_and_the_trail_names_their_user(fleet, theirs):
    go = theirs / "go"
    id = submit(f"{until_exists(go)}; id -un")
    until(lambda: shown(id)["phase"] == "started", what="the job to start")
    fleet.end_worker(signal.SIGKILL)
    start(fleet)
    go.touch()

    assert relayq("wait", id).returncode == 0
    assert relayq("logs", id).stdout == "games\n"
    assert relayq("audit", "verify").returncode == 0
    entries = [entry.facts for entry in host_ledger(fleet.home).entries()]
    [started] = [one for one in entries if one["what"] == "started" and one["job"] == id]
    assert started["user"] == "games"
    [ended] = [one for one in entries if one["what"] == "ended" and one.get("job") == id]
    assert ended["state"] == "succeeded"


#: What becomes that user, and then tries what only root may, in one thread and in another.
_PROBE = """
import os, pathlib, subprocess, sys, threading
from relayq import privileges
file, gid = pathlib.Path(sys.argv[1]), int(sys.argv[3])
privileges.become(int(sys.argv[2]), gid, "games")
def may() -> bool:
    try:
        return bool(file.read_bytes())
    except PermissionError:
        return False
found, opened, looked = [may()], threading.Event(), threading.Event()
def other():
    opened.wait(5)
    found.append(may())
    looked.set()
threading.Thread(target=other).start()
with privileges.as_owner():
    found.append(may())
    opened.set()
    looked.wait(5)
    found.append(may())
found.append(may())
with privileges.as_owner():
    below = subprocess.run(["/usr/bin/env", "id", "-u"], capture_output=True, text=True).stdout
found.append(below.strip())
with privileges.as_owner():
    with privileges.as_owner():
        pass
    found.append(may())
print(found)
"""


def test_roots_files_open_in_one_thread_alone_and_to_no_child(public):
    file = public / "roots"
    file.write_text("secret")
    file.chmod(0o600)
    ids = map(str, (USER.pw_uid, USER.pw_gid))

    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(file), *ids],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    seen = [False, True, False, True, False, str(USER.pw_uid), True]
    assert done.stdout.strip() == str(seen), done


_TIDY = """
import pathlib, sys
from relayq import privileges
from relayq.ledger import Ledger
trail = Ledger(pathlib.Path(sys.argv[1]))
privileges.become(int(sys.argv[2]), int(sys.argv[3]), "games")
print(trail.prune(older_than=86400.0), trail.append("started"), trail.verify().is_whole)
"""


def test_the_lowered_worker_prunes_the_trail_that_only_root_can_read(public, monkeypatch):
    trail = Ledger(public / "audit")
    for month in range(4):
        monkeypatch.setattr(clock, "now", lambda at=(month + 1) * 32 * 86_400.0: at)
        assert trail.append("started")
    trail.close()
    for path in trail.files():
        os.utime(path, (0, 0))
    ids = map(str, (USER.pw_uid, USER.pw_gid))

    done = subprocess.run(
        [sys.executable, "-c", _TIDY, str(trail.folder), *ids],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.stdout.split() == ["2", "True", "True"], done.stderr


def refused(home: Path, **own: str) -> str:
    """Return why a worker doesn't start."""
    done = subprocess.run(
        [sys.executable, "-m", "relayq", "worker", "start"],
        env={**environ(), "RELAYQ_HOME": str(home), **own},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    return done.stderr


def test_a_home_that_the_user_can_not_reach_is_refused(tmp_path_factory):
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)

    said = refused(closed / "home", RELAYQ_WORKER__RUN_AS="games")
    # Which was started first, and is root's in any case.
    embedded.stop_broker(config.load({"RELAYQ_HOME": str(closed / "home")}))

    assert "games can't get to" in said
    assert "closed to others" in said


def test_a_worker_that_becomes_a_new_program_begins_as_root_again(fleet):
    pid = fleet.worker.pid

    embedded.ask_to_renew(fleet.config)

    # Its process stays, and has a new namesake's environment: nothing of the user's.
    until(lambda: said("id -un") == "games\n", within=20, what="jobs to run again")
    until(lambda: embedded.is_renewed(fleet.config), within=10, what="the request to be taken")
    assert psutil.Process(pid).uids() == (USER.pw_uid, USER.pw_uid, 0)
    assert "ROOTS_OWN" in psutil.Process(pid).environ()


def test_a_worktree_is_made_and_committed_as_that_user(fleet, theirs):
    line = (
        "git init -q -b main . && git -c user.name=g -c user.email=g@example.org "
        "commit -q --allow-empty -m first"
    )
    subprocess.run(
        ["sh", "-c", line],
        cwd=theirs,
        env={"PATH": os.environ["PATH"], "HOME": str(theirs)},
        user=USER.pw_uid,
        group=USER.pw_gid,
        check=True,
    )
    # Root looks into a repository of somebody else's only if it is told to.
    trusts = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    env = {**environ(), **trusts, "GIT_CONFIG_VALUE_0": "*"}

    done = relayq(*("run", "--git", "--cwd", str(theirs), "id -un > made; stat -c %U ."), env=env)

    assert done.stdout == "games\n", done.stderr
    owners = {path.stat().st_uid for path in (theirs / ".git").rglob("*")}
    assert owners == {USER.pw_uid}
    branches = subprocess.run(
        ["git", "branch", "--list", "relayq/*"], cwd=theirs, env=env, capture_output=True, text=True
    )
    assert branches.stdout.strip()


@pytest.fixture
def authorize(fleet):
    """Write whose jobs this host runs; afterwards the fleet's key is enough again."""

    def write(identity, **limits):
        authorizing.add(fleet.home, Submitter(identity.public, identity.name, **limits))

    yield write
    (fleet.home / FILE).unlink(missing_ok=True)
    (fleet.home / OWN).unlink(missing_ok=True)


def refusal(*words: str) -> str:
    done = relayq("run", *words)
    assert done.returncode != 0, done.stdout
    assert "refused" in done.stderr
    return done.stderr


def test_whose_jobs_run_as_that_user_is_roots_to_say(fleet, authorize, theirs):
    anna = make_identity(fleet.home, "anna@laptop")
    authorize(anna, user="games", cwd=(str(theirs), "~"))
    (theirs / "out").symlink_to("/usr/lib")

    assert said("--cwd", str(theirs), "id -un; pwd") == f"games\n{theirs}\n"
    assert said("--cwd", "~", "pwd") == f"{Path(USER.pw_dir).resolve()}\n"
    assert "may start in" in refusal("--cwd", str(theirs / "out"), "pwd")
    for line in (
        f"cat {fleet.home / FILE} {fleet.home / OWN}",
        f"echo >> {fleet.home / FILE}",
        f"rm -f {fleet.home / FILE}",
    ):
        assert "Permission denied" in relayq("run", "--cwd", str(theirs), line).stderr
    authorize(anna, user="root")
    assert "run as root, and those here as games" in refusal("--cwd", str(theirs), "id")
    (fleet.home / FILE).chmod(0o660)
    assert "others can write" in refusal("id")
    (fleet.home / FILE).chmod(0o600)
    (fleet.home / OWN).unlink()
    assert "only the fleet's key" in refusal("id")


def test_what_a_job_submits_is_signed_with_a_key_that_it_can_not_read(fleet, authorize):
    anna = make_identity(fleet.home, "anna@laptop")
    authorize(anna)
    # The client and the worker have one home here: the key is changed once the job is submitted.
    inside = f"sleep 1; {sys.executable} -m relayq run -q 'id -un'"
    root = submit("--env", f"PYTHONPATH={opened.ROOT}", inside)
    authorize(make_identity(fleet.home, "worker@here", replaces=True), children=True)

    assert relayq("wait", root).returncode == 0, shown(root)

    assert relayq("logs", root).stdout == "games\n"


def test_a_job_that_ended_does_not_run_again_without_a_word(fleet, authorize, theirs):
    authorize(make_identity(fleet.home, "anna@laptop"))
    id = submit("--cwd", str(theirs), f"echo run >> {theirs / 'runs'}")
    assert relayq("wait", id).returncode == 0
    signed = fleet.relay.session().store.jobs.signed_spec(id)
    admission = Admission(
        fleet.config, "here", fleet.relay.session().store, signer_of(fleet.config), may_run=bool
    )
    spec = fleet.relay.session().signer.check_spec(signed, id=id)

    with pytest.raises(EndedBefore):
        admission.admit(spec, signed)
    admission.seen.close()
    assert relayq("retry", id).returncode == 0
    assert relayq("wait", id).returncode == 0

    assert (theirs / "runs").read_text() == "run\nrun\n"
