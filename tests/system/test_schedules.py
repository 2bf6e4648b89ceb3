"""relayq schedule: what recurs, submitted by a real worker when it is time."""

from __future__ import annotations

import pytest

from relayq import Relay
from tests.system.commands import relayq
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def test_a_worker_runs_what_recurs_until_a_person_pauses_and_removes_it(cli):
    added = relayq(
        *("schedule", "add", "beat", "every 1s", "--tz", "Europe/Berlin", "--label", "mine"),
        *("--", "sh", "-c", "echo $RELAYQ_SCHEDULE $RELAYQ_INSTANT", "--json"),
    )
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("beat  next ")

    with Relay() as relay:
        beat = relay.job.recurring("beat")
        until(lambda: beat.refresh().runs >= 2, within=20, what="two runs")
        assert relayq("schedule", "pause", "beat").stdout == "beat  paused\n"
        runs = [relay.job.fetch(run.id) for run in beat.runs(100)]
        assert [run.get() for run in runs] == [
            f"beat {run.record.spec.meta['instant']}" for run in runs
        ]
        assert runs[0].record.spec.labels == ("mine",)
        [row] = relayq("schedule", "ls").stdout.splitlines()[1:]
        assert row.split()[:6] == ["beat", "every", "1s", "Europe/Berlin", "paused", "-"]
        assert "succeeded" in row

        by_hand = relay.job.fetch(relayq("schedule", "run", "beat").stdout.strip())
        by_hand.wait()
        # Nothing came of it while it was paused, but what a person asked for.
        assert [run.id for run in beat.runs(100)] == [by_hand.id, *(run.id for run in runs)]
        lines = relayq("schedule", "show", "beat").stdout.splitlines()
        assert lines[0] == "beat  paused  every 1s (Europe/Berlin)"
        assert any(by_hand.id in line and "succeeded" in line for line in lines)
        assert relayq("schedule", "rm", "beat").stdout == "beat  removed\n"
        assert relay.job.schedules() == []


def test_a_schedule_is_made_and_asked_from_python(cli):
    with Relay() as relay:
        made = relay.job.schedule(
            "review", "weekdays at 9:30", "make it so", tz="Europe/Berlin", paused=True, timeout=60
        )
        found = {one.name: one for one in relay.job.schedules()}["review"]
        result = found.run()

        assert made.is_new
        assert found.schedule.spec.timeout == 60
        assert found.next() == []
        assert made.resume()
        assert len(made.next(3)) == 3
        assert result.record.spec.name == "review"
        assert [run.id for run in found.runs()] == [result.id]
        made.remove()
        assert "review" not in [one.name for one in relay.job.schedules()]
