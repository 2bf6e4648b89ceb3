"""The private broker and worker of a machine without configuration, and the file service."""

from __future__ import annotations

from collections.abc import Callable

from relayq.config import Config
from relayq.embedded.broker import (
    BrokerFacts,
    Wishes,
    become_broker,
    broker_address,
    broker_authority,
    broker_folder,
    broker_url,
    is_dead,
    running_broker,
    wanted_ballast,
    wanted_fsync,
    wanted_port,
)
from relayq.embedded.files import (
    are_files_wanted,
    can_serve_files,
    end_files,
    files_folder,
    files_pid,
    files_place,
    remember_files,
    start_files,
    stop_files,
)
from relayq.embedded.keeper import Keeper
from relayq.embedded.managed import installed
from relayq.embedded.processes import locked
from relayq.embedded.running import local_url, restore_broker, start_broker, stop_broker
from relayq.embedded.server import find_redis_server
from relayq.embedded.sockets import check_free, check_listen
from relayq.embedded.users import BrokerUser, add_user, admin_url, remove_user, renew_rules
from relayq.embedded.worker import (
    DRAIN,
    HAND_BACK,
    LEAVE,
    ask_to_renew,
    ask_to_stop,
    asked_stop,
    end_worker,
    is_renewed,
    launch_worker,
    renew_if_asked,
    start_worker,
    stop_worker,
    worker_pid,
)
from relayq.model.units import Role

__all__ = [
    "DRAIN",
    "HAND_BACK",
    "LEAVE",
    "BrokerFacts",
    "BrokerUser",
    "Keeper",
    "Wishes",
    "add_user",
    "admin_url",
    "are_files_wanted",
    "ask_to_renew",
    "ask_to_stop",
    "asked_stop",
    "become_broker",
    "broker_address",
    "broker_authority",
    "broker_folder",
    "broker_url",
    "can_serve_files",
    "check_free",
    "check_listen",
    "end_files",
    "end_worker",
    "ensure",
    "files_folder",
    "files_pid",
    "files_place",
    "find_redis_server",
    "is_dead",
    "is_renewed",
    "local_url",
    "remember_files",
    "remove_user",
    "renew_rules",
    "renew_if_asked",
    "restore_broker",
    "running_broker",
    "start_broker",
    "start_files",
    "start_worker",
    "stop_broker",
    "stop_files",
    "stop_worker",
    "wanted_ballast",
    "wanted_fsync",
    "wanted_port",
    "worker_pid",
]


def ensure(config: Config, *, say: Callable[[str], None]) -> str:
    """Return the URL of a running broker with a worker; start what is missing, and say so.

    Where the broker is a service, for a fleet, its machine works only if somebody said so.
    """
    facts = running_broker(config)
    if facts is None or (worker_pid(config) is None and _works(config)):
        with locked(config.home / "broker" / "up.lock"):
            facts = _start_missing(config, say)
    return facts.url


def _works(config: Config) -> bool:
    """Tell whether this machine is to have a worker though nobody started one."""
    return installed(config, Role.BROKER) is None or installed(config, Role.WORKER) is not None


def _start_missing(config: Config, say: Callable[[str], None]) -> BrokerFacts:
    started = []
    facts = running_broker(config)
    if facts is None:
        facts = start_broker(config)
        started.append("a private broker")
        start_files(config, wait=False)
    if worker_pid(config) is None and _works(config):
        launch_worker(config)
        started.append("a worker")
    if started:
        them = "them" if len(started) > 1 else "it"
        say(f"started {' and '.join(started)} on this machine (relayq down stops {them})")
    return facts
