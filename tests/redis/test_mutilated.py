"""A record that makes no sense is named, and holds up nobody: neither who reads nor who works."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from relayq.cli import details, show
from relayq.cli import fleet as fleet_views
from relayq.dispatch import TEMPLATE
from relayq.errors import NoSuchJob, RelayqError, Unreadable
from relayq.flowruns import FlowRun
from relayq.model.jobs import JobState
from relayq.model.progress import Progress
from relayq.session import Session
from relayq.store.flows import FlowRecord, group_of
from relayq.store.leases import Claim
from tests.redis.fleet import LEASE, spec
from tests.redis.recurrences import Recurrences

#: What a field may hold that relayq wouldn't write there; None takes it out.
VALUES = (
    *(None, b"", b"abc", b"\xff\xfe", b"5", b"-7", b"nan", b"1e999", b"9" * 5000, b"[5]"),
    *(b"{}", b"null", b'{"labels": 5}', b'{"aliases": [5], "load": "x"}', b"[" * 100_000),
    *(b'{"fraction": {}, "eta": []}', b'{"steps": [1]}', b'{"steps": {"a": 5}}', b"queued"),
    *(b"\x1b[31mred", b"a b\nc", b"needs.%zz", b'{"since": []}', b'{"since": 1e999}'),
)
#: Fields that a record may get besides those that it has.
FIELDS = {
    "job": "state kind queue priority created attempt host phase reason exit signal claimed due "
    "started finished cancel pause paused_at paused failures losses note boot orphan widens "
    "progress progress_at halted fanned account question choices asked_at asks tokens_in "
    "waits expires cost_micro queued uid on_lost unstarted halts when with narrow lenient"
    " unique group name",
    "host": "install boot session seen slots version facts load drained drained_reason labels caps "
    "was paused stopped",
    "flow": "name source graph who inputs created cancelled",
    "schedule": "signed uid turn created next due seen paused paused_by runs missed last recent "
    "going refused trouble",
}
SORTS = sorted(FIELDS)
WOUNDS = st.lists(
    st.tuples(
        st.sampled_from(SORTS), st.integers(0, 30), st.integers(0, 60), st.sampled_from(VALUES)
    ),
    min_size=1,
    max_size=6,
)


class Ward:
    """A fleet with a record of every sort and state, of which some are wounded."""

    def __init__(self, fleet):
        self.fleet, self.store = fleet, fleet.store
        self.connection = fleet.store.connection
        self.connection.flushdb()
        fleet.clock.offset = 0.0
        self.said = []
        self.store.reader.__init__()
        self.store.reader.say = self.said.append
        self.host = fleet.host("pi4")
        fleet.host("mac")
        self.names = {"job": self._jobs(), "host": ["mac"], "flow": ["run1"], "schedule": ["daily"]}
        Recurrences(fleet).add("every 1h", name="daily")
        Recurrences(fleet).add("every 1h", name="sound")
        self.good = [fleet.submit(host="elsewhere", name="good") for _ in range(3)]
        self.wounded = set()

    def _jobs(self):
        fleet, host = self.fleet, self.host
        ids = []
        for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.NEEDS_HUMAN, None):
            id = fleet.submit(priority=9)
            token = host.start(id)
            if state is not None:
                host.finish(token, state)
            else:
                self.store.progress.note(token, Progress(0.5, text="half"))
            ids.append(id)
        first = fleet.submit(host="mac")
        ids += [first, fleet.submit(host="mac", after=(first,), name="after")]
        ids += [fleet.submit(due_at=fleet.now() + 30), fleet.submit(priority=8)]
        run = FlowRecord("run1", "nightly", graph={"steps": {}})
        step = spec(group=group_of("run1"), host="mac", flow="run1")
        self.fleet.dispatcher.submit([step], flow=run)
        return [*ids, step.id]

    def wound(self, sort, which, field, value):
        name = self.names[sort][which % len(self.names[sort])]
        fields = FIELDS[sort].split()
        self.wounded.add((sort, name))
        key = self.fleet.key(sort, name)
        if field >= len(fields):
            self.connection.delete(key)
            self.connection.rpush(key, "no record")
        elif self.connection.type(key) != b"hash":
            return
        elif value is None:
            self.connection.hdel(key, fields[field])
        else:
            self.connection.hset(key, fields[field], value)

    def read_all(self):
        """Ask all that a command asks, and show it."""
        store, now = self.store, self.fleet.now()
        records = [*store.jobs.list(), *store.jobs.recent(50), *store.jobs.list(host="pi4")]
        found = {record.id for record in records}
        assert {*self.good} <= found
        show.job_rows(records, now)
        lines = []
        for record in records:
            lines += details.job_details(record, None, now)
            json.dumps(show.as_json(record), allow_nan=False)
        hosts = store.hosts.list(online_within=LEASE)
        assert "pi4" in {host.name for host in hosts}
        for host in hosts:
            lines += fleet_views.host_details(host, now, {})
        hints = "relayq"
        for id in self.names["job"]:
            try:
                assert store.jobs.fetch(id).id == id
            except (NoSuchJob, Unreadable) as error:
                hints = error.hint
            assert hints.startswith(("relayq", "the relayq"))
        assert {"sound"} <= {one.name for one in store.schedules.list()}
        store.progress.look(self.names["job"])
        store.lookup.all({})
        store.lookup.all({"state": "queued"})
        session = Session(store, self.fleet.signer, lambda _: None)
        for one in store.flows.list():
            run = FlowRun(session, one.id)
            run.brief()
            run.jobs()
        return lines

    def work(self):
        """Have the host do what workers do, all the time: none of it may be held up."""
        store, host = self.store, self.host
        assert host.register()[0] == "ok"
        assert host.beat() == []
        store.pauses.report(host.who, [])
        store.leases.registry("pi4")
        done = []
        for _ in range(30):
            claim = host.ask()
            if not isinstance(claim, Claim):
                break
            host.finish(claim.token)
            done.append(claim.token.id)
        assert claim in ("none", "queues"), claim
        self.sweep()
        return done

    def sweep(self):
        for _ in range(20):
            self.store.sweep.step(lease=LEASE, template=TEMPLATE)
            if self.store.sweep.is_at_start():
                return
        raise AssertionError("the walk doesn't come to its end")


@pytest.fixture
def ward(fleet):
    """A fleet to wound; what is left of it is nobody's business."""
    yield lambda: Ward(fleet)
    fleet.store.connection.flushdb()


ROOM = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    # To shrink takes minutes, and a list of wounds is short enough to read.
    phases=[Phase.generate],
    print_blob=True,
)


@ROOM
@given(WOUNDS)
def test_whatever_records_hold_all_others_are_read(ward, wounds):
    fleet = ward()
    for one in wounds:
        fleet.wound(*one)

    lines = fleet.read_all()

    assert not [line for line in lines if "\x1b[31mred" in line]
    for line in fleet.said:
        assert "can't be read: " in line
        assert "; try: " in line
    assert len(fleet.said) == len({*fleet.said}) <= len(fleet.wounded)


@ROOM
@given(WOUNDS)
def test_whatever_records_hold_work_goes_on(ward, wounds):
    fleet = ward()
    for one in wounds:
        fleet.wound(*one)

    later = fleet.fleet.submit(name="later")
    assert later in fleet.work()
    for _ in range(4):
        fleet.fleet.clock.advance(LEASE + 1)
        fleet.host.beat(load="{}")
        fleet.fleet.tick()
        fleet.fleet.clock.advance(901)
        fleet.host.beat(load="{}")
        fleet.fleet.tick()
    last = fleet.fleet.submit(name="last", needs=("linux",))
    fleet.store.connection.hset(fleet.fleet.key("host", "pi4"), "seen", fleet.fleet.now())
    assert last in fleet.store.lookup.all({"name": "last"})
    fleet.work()
    fleet.read_all()


@ROOM
@given(WOUNDS)
def test_whatever_a_job_holds_it_can_be_cancelled_and_forgotten(ward, wounds):
    fleet = ward()
    for _, *rest in wounds:
        fleet.wound("job", *rest)

    for id in fleet.names["job"]:
        with suppress(RelayqError):
            fleet.store.jobs.cancel(id)
        fleet.store.jobs.forget([id])

    fleet.work()
    fleet.read_all()
