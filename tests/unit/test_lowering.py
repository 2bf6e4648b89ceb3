"""Whom a worker's jobs may run as, told before anything of it is done."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from relayq import config
from relayq.errors import ConfigError
from relayq.host.lowering import lower


def running_as(home, user: str):
    loaded = config.load({"RELAYQ_HOME": str(home)})
    return replace(loaded, worker=replace(loaded.worker, run_as=user))


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("nobody-like-this", "this machine has no user nobody-like-this"),
        ("root", "could read all that is to be kept"),
    ],
)
def test_who_can_not_run_jobs_is_refused(home, user, why):
    with pytest.raises(ConfigError, match=why):
        lower(running_as(home, user))


def test_only_root_can_run_jobs_as_somebody_else(home, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)

    with pytest.raises(ConfigError, match="only root's worker|only on Linux"):
        lower(running_as(home, "daemon"))


def test_a_worker_that_is_that_user_already_stays_as_it_is(home, monkeypatch):
    import pwd

    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("daemon").pw_uid)
    before = home.stat().st_mode

    lower(running_as(home, "daemon"))

    assert home.stat().st_mode == before


def test_what_is_no_name_of_a_user_is_refused(home):
    with pytest.raises(ConfigError, match="expected the name of a user"):
        config.load({"RELAYQ_HOME": str(home), "RELAYQ_WORKER__RUN_AS": "no/name"})
