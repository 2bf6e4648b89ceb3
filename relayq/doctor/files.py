"""What may be wrong with the file service: whether it is there, and answers this machine."""

from __future__ import annotations

from collections.abc import Iterator

from relayq import embedded, transfer
from relayq.artifacts import Artifacts
from relayq.config import Config
from relayq.doctor.findings import Finding, ok, problem
from relayq.errors import TransferFailed
from relayq.signing import Signer, load_key
from relayq.store import Store


def examine_files(config: Config, store: Store, here: str) -> Iterator[Finding]:
    """Ask the file service something; a fleet without one lacks nothing but large files."""
    service = Artifacts(store, config, Signer(load_key(config.fleet_key_path))).service()
    if service is None:
        if embedded.are_files_wanted(config):
            log = embedded.files_folder(config) / "serve.log"
            yield problem(here, f"the file service isn't there: {log} says why", "relayq up")
        return
    try:
        transfer.ask(service)
    except TransferFailed as error:
        yield problem(here, error.message, error.hint)
    else:
        yield ok(here, f"the file service answers at {service.url}")
