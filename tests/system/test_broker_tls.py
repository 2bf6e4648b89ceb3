"""The private broker over TLS: who is spoken to, who isn't, and where it may listen then."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relayq import config as configuration
from relayq import embedded
from relayq.cli.options import address
from relayq.config import Config
from relayq.embedded.admission import grant
from relayq.embedded.certificates import Authority
from relayq.embedded.users import add_user
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.model.access import CLIENT, WORKER
from relayq.store import connect
from tests.conftest import end_all
from tests.probing import remember
from tests.system.commands import relayq
from tests.system.private.brokers import own_server, wheel_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A machine whose broker listens on all networks, with a worker."""
    home = tmp_path_factory.mktemp("encrypted") / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAYQ_HOME", str(home))
        patch.setenv("RELAYQ_REDIS_SERVER", own_server())
        patch.setenv("RELAYQ_WORKER__CPU_THRESHOLD", "100")
        config = configuration.load()
        remember(home)
        embedded.start_broker(config, listen="0.0.0.0", tls=True)
        yield config
    end_all(home)


@pytest.fixture
def here(broker: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("RELAYQ_HOME", str(broker.home))
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", own_server())
    monkeypatch.setenv("RELAYQ_WORKER__CPU_THRESHOLD", "100")
    return broker


def elsewhere(broker: Config, folder: Path, ca: Path, host: str = "127.0.0.1") -> Config:
    """Return the configuration of another machine, which got these files from here."""
    home = folder / "elsewhere"
    home.mkdir(mode=0o700)
    shutil.copy(ca, home / "ca.crt")
    shutil.copy(broker.fleet_key_path, home / "fleet.key") if broker.fleet_key_path.exists() else ()
    (home / "password").write_text(add_user(broker, "client-laptop", role=CLIENT, host="laptop"))
    (home / "config.yml").write_text(
        f"broker:\n  host: {host}\n  port: {embedded.wanted_port(broker)}\n"
        "  user: client-laptop\n  password_file: password\n  tls: yes\n  ca_file: ca.crt\n"
    )
    return configuration.load({"RELAYQ_HOME": str(home)})


def authority(broker: Config) -> Path:
    found = embedded.broker_authority(broker)
    assert found is not None
    return found


def test_a_job_runs_and_nothing_else_than_tls_is_spoken(here):
    ran = relayq("run", "echo encrypted")

    assert (ran.returncode, ran.stdout) == (0, "encrypted\n")
    facts = embedded.running_broker(here)
    plain = redis.Redis(port=facts.port, retry=Retry(NoBackoff(), 0))
    with plain, pytest.raises(redis.ConnectionError):
        plain.ping()


def test_what_is_shown_of_it_is_its_address(here):
    port = embedded.wanted_port(here)

    assert address(embedded.broker_url(here)) == f"rediss://127.0.0.1:{port}"
    assert f"rediss://127.0.0.1:{port} (private)" in relayq("broker", "status").stdout


@pytest.mark.parametrize("is_brief", [False, True])
def test_another_machine_trusts_its_authority_alone(here, tmp_path, is_brief):
    url = elsewhere(here, tmp_path, authority(here)).broker_url
    with closing(connect(url, is_brief=is_brief)) as store:
        assert store.jobs.count()

    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").certificate
    wrong = url.replace(str(tmp_path / "elsewhere" / "ca.crt"), str(other))
    with (
        closing(connect(wrong, is_brief=is_brief)) as store,
        pytest.raises(
            BrokerUnavailable, match="shows a certificate that can't be trusted"
        ) as found,
    ):
        store.jobs.count()
    assert "broker.ca_file" in found.value.hint


@pytest.mark.parametrize("is_brief", [False, True])
def test_a_certificate_is_for_the_names_of_its_machine_alone(here, tmp_path, is_brief):
    url = elsewhere(here, tmp_path, authority(here), host="127.0.0.2").broker_url
    with (
        closing(connect(url, is_brief=is_brief)) as store,
        pytest.raises(BrokerUnavailable, match="127.0.0.2"),
    ):
        store.jobs.count()


@pytest.mark.parametrize("is_brief", [False, True])
def test_a_machine_that_speaks_no_tls_is_told_what_to_look_at(here, is_brief):
    plain = embedded.broker_url(here).partition("?")[0].replace("rediss", "redis")

    with (
        closing(connect(plain, is_brief=is_brief)) as store,
        pytest.raises(BrokerUnavailable) as refused,
    ):
        store.jobs.count()
    assert "does it speak TLS only? (broker.tls" in refused.value.hint


def test_a_machine_that_joins_is_given_what_it_is_to_trust(here):
    given = grant(here, role=WORKER, host="pi4").broker

    assert given["tls"]
    assert given["ca"] == authority(here).read_text()


def test_its_keys_are_for_their_owner_alone(here):
    folder = authority(here).parent
    for name in ("ca.key", "server.key"):
        assert (folder / name).stat().st_mode & 0o077 == 0


# Starts of its own


@pytest.fixture
def config(home: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", own_server())
    return configuration.load()


def test_only_over_tls_it_listens_on_every_network(config):
    for listen in ("0.0.0.0", "::"):
        with pytest.raises(RelayqError, match="every network"):
            embedded.start_broker(config, listen=listen)
    embedded.start_broker(config, listen="0.0.0.0", tls=True)
    first = (authority(config).parent / "server.crt").read_bytes()
    trusted = authority(config).read_bytes()

    embedded.stop_broker(config)
    with pytest.raises(RelayqError, match="every network"):
        embedded.start_broker(config, tls=False)
    embedded.start_broker(config)
    assert (authority(config).parent / "server.crt").read_bytes() == first

    embedded.stop_broker(config)
    embedded.start_broker(config, listen="127.0.0.5", tls_names=["localhost.localdomain"])
    assert (authority(config).parent / "server.crt").read_bytes() != first
    assert authority(config).read_bytes() == trusted
    for name in ("127.0.0.5", "localhost"):
        with closing(connect(embedded.broker_url(config).replace("127.0.0.1", name))) as store:
            assert store.jobs.count()
    with pytest.raises(RelayqError, match="with names localhost.localdomain and not other"):
        embedded.start_broker(config, tls_names=["other"])


def test_a_running_broker_does_not_change_to_tls(config):
    embedded.start_broker(config)

    with pytest.raises(RelayqError, match="with TLS off and not on") as refused:
        embedded.start_broker(config, tls=True)
    assert refused.value.hint == "relayq down, then relayq up again"


def test_a_server_without_tls_is_not_started(config, monkeypatch):
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", wheel_server())

    with pytest.raises(RelayqError, match="was built without TLS"):
        embedded.start_broker(config, tls=True)
