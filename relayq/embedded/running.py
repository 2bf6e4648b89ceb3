"""The private broker, by whoever runs it here: this module in the background, or a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relayq.config import Config
from relayq.embedded import broker, managed, restoring
from relayq.embedded.broker import BrokerFacts
from relayq.embedded.processes import wait_for
from relayq.errors import RelayqError
from relayq.model.units import Role

#: How long the one service waits for the other, of whose manager it may not ask anything.
_PATIENCE = 20.0


def start_broker(config: Config, **wishes: Any) -> BrokerFacts:
    """Start the broker unless it runs, and return its facts once it answers.

    What was asked for is remembered, so later starts need not say it. Any number of processes may
    call this at once.
    """
    service = managed.installed(config, Role.BROKER)
    if service is None:
        return broker.start_broker(config, **wishes)
    if any(wish is not None and wish != () for wish in wishes.values()):
        raise RelayqError(
            "the broker is a service here: its options are those of its installation",
            hint="relayq broker install, with these options",
        )
    return broker.running_broker(config) or _started(config, service)


def _started(config: Config, service: managed.Installed) -> BrokerFacts:
    try:
        managed.start(service)
    except RelayqError:
        # It may be on its way: started at boot, or 5 s after a crash.
        if not service.is_of_machine or not managed.state(service).is_up:
            raise
    if not wait_for(lambda: broker.running_broker(config), _PATIENCE):
        raise RelayqError("the broker's service is up and doesn't answer", hint="relayq doctor")
    facts = broker.running_broker(config)
    assert facts is not None
    return facts


def stop_broker(config: Config) -> bool:
    """End the broker, its data on disk; return False when there was none.

    A service is back at the next boot.
    """
    service = managed.installed(config, Role.BROKER)
    was_up = service is not None and managed.state(service).is_up
    if service is not None and was_up:
        managed.stop(service)
    return broker.stop_broker(config) or was_up


def local_url(config: Config) -> str:
    """Return the URL of the private broker for a worker beside it, which may come before it."""
    url = broker.broker_url(config)
    if url is not None and managed.installed(config, Role.BROKER) is not None:
        return url
    return start_broker(config).url


def restore_broker(config: Config, backup: Path) -> tuple[BrokerFacts, Path | None]:
    """Start the broker with the jobs of a backup; also say where the data from before are."""
    facts, aside = restoring.restore_broker(config, backup)
    service = managed.installed(config, Role.BROKER)
    if service is None:
        return facts, aside
    # It takes over from the one that has just shown that the backup is good.
    managed.start(service)
    return start_broker(config), aside
