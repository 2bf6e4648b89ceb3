"""The private broker as an installation asks for it, made as the user whose data it will have."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from relayq import embedded
from relayq.config import Config
from relayq.embedded import managed
from relayq.embedded.worker import own_environment
from relayq.errors import RelayqError
from relayq.model.units import Role


def make_broker(config: Config, *, user: str | None, flags: Sequence[str]) -> None:
    """Have the private broker be as asked, in the background, for its service to take over.

    `flags` are those of `broker start`. That happens as the user whom the service will run as: the
    data are that one's.
    """
    is_there = embedded.broker_url(config) is not None
    if is_there and not flags:
        return
    service = managed.installed(config, Role.BROKER)
    if service is not None:
        managed.stop(service)
        managed.forget(config, Role.BROKER)
    try:
        if is_there:
            _as_user(config, user, "broker", "stop")
        _as_user(config, user, "broker", "start", *flags)
    except BaseException:
        if service is not None:
            managed.remember(config, service)
            managed.start(service)
        raise


def _as_user(config: Config, user: str | None, *arguments: str) -> None:
    """Run a command of ours as somebody; its error is ours."""
    account = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    env = {**own_environment(config), "HOME": account.pw_dir, "USER": account.pw_name}
    other: dict[str, Any] = {}
    if account.pw_uid != os.getuid():
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "relayq", *arguments, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env=env,
        **other,
    )
    if done.returncode:
        try:
            said = json.loads(done.stdout)["error"]
        except (ValueError, KeyError):
            said = {"message": done.stderr.strip(), "hint": "relayq broker status"}
        raise RelayqError(str(said["message"]), hint=str(said["hint"]))
