"""A host with authorized_submitters: only what its owner let somebody do runs there."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from relayq import Relay
from relayq.dispatch import Dispatcher
from relayq.host import authorizing
from relayq.host.admission import FILE
from relayq.identity import FILE as OWN
from relayq.identity import Identity, make_identity
from relayq.model.jobs import JobState
from relayq.model.submitters import Submitter
from relayq.specs import make_spec
from tests.system.commands import until_exists
from tests.waiting import until

pytestmark = pytest.mark.system

ANNA = Identity(b"a" * 32, "anna@laptop")
MALLORY = Identity(b"m" * 32, "mallory@laptop")


@pytest.fixture
def host(shared_fleet):
    """A host for which a test writes who may submit; afterwards the fleet's key is enough again."""
    yield shared_fleet
    (shared_fleet.home / FILE).unlink(missing_ok=True)


@pytest.fixture
def authorize(host):
    def write(identity, **limits):
        authorizing.add(host.home, Submitter(identity.public, identity.name, **limits))

    return write


@pytest.fixture
def as_(host):
    """Return the client of somebody."""
    made = []

    def client(identity):
        relay = Relay(url=host.relay._url, say=lambda _: None)
        made.append(relay)
        relay.session().signer.identity = identity
        return relay.job

    yield client
    for relay in made:
        relay.close()


def refusal(result):
    """Return why a job was refused."""
    record = result.wait(30)
    assert (record.state, record.reason) == (JobState.FAILED, "refused")
    return result.outcome().error


def test_only_an_authorised_key_runs_anything(host, authorize, as_):
    authorize(ANNA)

    assert as_(ANNA).run("echo yes").get(timeout=20) == "yes"
    assert "key " + MALLORY.id in refusal(as_(MALLORY).run("echo no"))
    said = refusal(as_(None).run("echo no"))
    assert "only the fleet's key, which isn't authorised for it on here" in said
    assert "relayq key authorize" in said


def test_what_somebody_may_is_on_their_line(host, authorize, as_, tmp_path):
    authorize(ANNA, cwd=(str(tmp_path),), max_timeout=60.0, no_shell=True)
    anna = as_(ANNA)
    (tmp_path / "below").mkdir()
    (tmp_path / "out").symlink_to("/usr")

    def run(cmd=("pwd",), **options):
        return anna.run(list(cmd), **{"cwd": str(tmp_path / "below"), "timeout": 60, **options})

    assert run().get(timeout=20) == str(tmp_path / "below")
    assert "at most 60 s" in refusal(run(timeout=61))
    assert "may start in" in refusal(run(cwd=None))
    assert "not in /usr/bin" in refusal(run(cwd=str(tmp_path / "out" / "bin")))
    assert "may not use a shell" in refusal(run(("/bin/bash", "-c", "id")))
    assert "may not use a shell" in refusal(anna.run("id", cwd=str(tmp_path), timeout=9))
    authorize(ANNA, kinds=("transc*",))
    assert "may submit transc* only" in refusal(run())
    authorize(ANNA, user="somebody-else")
    assert "run as somebody-else" in refusal(run())
    authorize(ANNA, expires=1.0)
    assert "ended 1970-01-01" in refusal(run())


def test_a_file_that_others_can_write_or_nobody_can_read_authorises_nobody(host, authorize, as_):
    authorize(ANNA)
    path = host.home / FILE
    path.chmod(0o666)
    assert f"others can write {path}" in refusal(as_(ANNA).run("true"))

    path.chmod(0o600)
    path.write_text(path.read_text().replace("laptop", "laptop no-limits"))
    assert "line 1: not a limit: 'no-limits'" in refusal(as_(ANNA).run("true"))


def test_the_items_of_a_batch_and_the_jobs_of_a_list_are_what_was_signed(
    host, authorize, as_, tmp_path
):
    authorize(ANNA)
    anna, go = as_(ANNA), tmp_path / "go"
    run = anna.map(f"test {{}} != 2 || {until_exists(go)}; echo {{}}", range(1, 5), batch=4)
    ends = run.as_completed(timeout=30)
    early = [next(ends).number for _ in range(3)]
    go.touch()

    assert (sorted(early), run.results()) == ([1, 3, 4], ["1", "2", "3", "4"])
    assert {one.record.kind for one in run.jobs} == {"run_batch", "run_command"}

    session = anna.relay.session()
    step = make_spec(host.config, "run_command", {"cmd": "echo ${{ matrix.n }}"}, submitter="anna")
    step = replace(step, is_template=True, fans="n = fromJSON('[7, 8]')", flow="f", step="s")
    Dispatcher(session.store, session.signer).submit([step])
    became = until(lambda: session.store.jobs.fetch(step.id).fanned, within=20, what="its jobs")
    anna.fetch(step.id).wait(20)

    assert [anna.fetch(id).get(timeout=20) for id in became] == ["7", "8"]


def test_what_a_schedule_submits_is_what_was_signed(host, authorize, as_):
    authorize(ANNA)
    made = as_(ANNA).schedule("mine", "every 1s", "echo $RELAYQ_SCHEDULE")
    stolen = as_(None).schedule("theirs", "every 1s", "echo no")
    try:
        good = until(lambda: made.runs(), within=20, what="a run")
        assert host.job.fetch(good[0].id).get(timeout=20) == "mine"
        bad = until(lambda: stolen.runs(), within=20, what="a run")
        assert "which isn't authorised" in refusal(host.job.fetch(bad[0].id))
    finally:
        made.remove(), stolen.remove()


def test_a_jobs_own_jobs_need_their_workers_key_and_what_their_submitter_may(host, authorize, as_):
    authorize(ANNA, kinds=("run_command",))
    inside = (
        f"env PYTHONPATH={host.environ['PYTHONPATH']} {sys.executable} -m relayq run -q 'echo x'"
    )

    root = as_(ANNA).run(inside)
    root.wait(30)
    assert root.record.state is JobState.FAILED
    [child] = family(host, root.id)
    assert "isn't authorised" in refusal(host.job.fetch(child))

    worker = make_identity(host.home, "worker@here")
    try:
        authorize(worker, children=True)
        assert as_(ANNA).run(inside).get(timeout=30) == "x"
    finally:
        (host.home / OWN).unlink()


def family(host, root):
    return host.relay.session().store.jobs.family(root)


def test_only_who_may_submit_a_job_types_into_it(host, authorize, as_):
    authorize(ANNA)
    job = as_(ANNA).run(["cat"], feed=True)
    until(lambda: job.state == "running", within=20, what="it to run")

    as_(None).fetch(job.id).feed(iter([b"from nobody\n", b""]).__next__)
    until(lambda: "refused input" in host.log(), within=20, what="a refusal")
    job.feed(iter([b"from anna\n", b""]).__next__)

    assert job.get(timeout=20) == "from anna"
