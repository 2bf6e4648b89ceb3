"""The configuration: its layers, where each value came from, and what values mean."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from relayq import config as configuration
from relayq.config import KEYS, Entry, load
from relayq.errors import ConfigError
from relayq.parsing import duration, size
from tests.unit.configuration.person import configure, loaded, refusal

# Layers and origins


def test_without_any_file_everything_is_the_default(user):
    config = loaded(user)

    assert config.home == user / ".relayq"
    assert config.spool == user / ".relayq" / "spool"
    assert config.fleet_key_path == user / ".relayq" / "fleet.key"
    assert config.logging.file == user / ".relayq" / "worker.log"
    assert config.worker.max_concurrent == 2
    assert config.worker.niceness == 10
    assert config.defaults.timeout == 5 * 3600
    assert config.defaults.max_log == 1 << 20
    assert config.lease.length == 60
    assert config.broker_url is None
    assert not config.broker.is_configured
    assert set(config.origins.values()) == {"default"}
    assert config.origins.keys() == KEYS.keys()


def test_a_later_layer_wins_and_each_value_knows_where_it_came_from(user):
    configure(user, "defaults:\n  timeout: 1h\n  grace: 3\n  max_log: 2MB\nworker:\n  name: pi4\n")
    (user / "project" / ".relayq.yml").write_text("defaults: {timeout: 2h, grace: 4}\n")

    config = loaded(user, RELAYQ_DEFAULTS__GRACE="5s")

    assert (config.defaults.max_log, config.defaults.timeout) == (2_000_000, 7200)
    assert (config.defaults.grace, config.worker.name) == (5, "pi4")
    assert config.origins["defaults.max_log"] == "~/.relayq/config.yml:4"
    assert config.origins["defaults.timeout"] == "~/project/.relayq.yml:1"
    assert config.origins["defaults.grace"] == "RELAYQ_DEFAULTS__GRACE"
    assert config.origins["worker.name"] == "~/.relayq/config.yml:6"
    assert config.origins["worker.priority"] == "default"


def test_the_home_can_be_elsewhere(user, tmp_path):
    elsewhere = tmp_path / "other place"
    elsewhere.mkdir()
    (elsewhere / "config.yml").write_text("worker: {name: mini}")

    config = loaded(user, RELAYQ_HOME=str(elsewhere))

    assert (config.home, config.worker.name) == (elsewhere, "mini")
    assert config.logging.file == elsewhere / "worker.log"
    assert loaded(user, RELAYQ_HOME="~/other place").home == elsewhere
    assert loaded(user, RELAYQ_HOME="rel").home == Path.cwd() / "rel"
    assert loaded(user, RELAYQ_HOME="").home == user / ".relayq"


def test_a_named_file_replaces_the_one_in_the_home_and_must_exist(user):
    configure(user, "worker: {name: pi4}")
    other = user / "other.yml"
    other.write_text("worker: {max_concurrent: 7}")

    config = load({"HOME": str(user)}, path=other)

    assert config.worker.max_concurrent == 7
    assert config.origins["worker.name"] == "default"
    with pytest.raises(ConfigError, match="gone.yml: no such file"):
        load({"HOME": str(user)}, path=user / "gone.yml")


def test_a_project_sets_nothing_but_defaults(user):
    (user / "project" / ".relayq.yml").write_text("defaults: {grace: 1}\nbroker: {host: evil}\n")

    assert refusal(user) == (
        "~/project/.relayq.yml:2:1: a project's file can set 'defaults' only, not 'broker'"
    )


def test_a_directory_that_somebody_may_not_look_into_has_no_project_file(user, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)
        found = configuration._project_file()

    assert found is None


def test_the_nearest_project_file_is_the_one(user):
    (user / ".relayq.yml").write_text("defaults: {grace: 1}")
    (user / "project" / ".relayq.yml").write_text("defaults: {timeout: 1m}")

    config = loaded(user)

    assert (config.defaults.grace, config.defaults.timeout) == (10, 60)


@pytest.mark.parametrize("text", ["", "# nothing\n", "worker:\n", "worker: {name: }\n", "---\n"])
def test_an_empty_value_section_or_file_means_the_default(user, text):
    configure(user, text)

    assert loaded(user) == replace(loaded(user), worker=load({"HOME": "/nowhere"}).worker)


def test_an_empty_variable_brings_the_default_back(user):
    configure(user, "broker: {url: 'redis://there'}\nworker: {max_concurrent: 9}")

    config = loaded(user, RELAYQ_BROKER__URL="", RELAYQ_WORKER__MAX_CONCURRENT=" ")

    assert config.broker_url is None
    assert config.worker.max_concurrent == 2
    assert config.origins["broker.url"] == "RELAYQ_BROKER__URL"


def test_the_other_variables_of_relayq_are_no_configuration(user):
    others = ("JOB_ID", "ATTEMPT", "OUTPUT", "REDIS_SERVER", "WORKER_NAME", "NO_SUCH_THING")

    config = loaded(user, **{f"RELAYQ_{name}": "x" for name in others})

    assert config == loaded(user)


def test_a_config_can_be_pickled_and_changed(user):
    config = loaded(user, RELAYQ_BROKER__HOST="h")

    assert pickle.loads(pickle.dumps(config)) == config
    changed = replace(config, lease=replace(config.lease, length=1.5))
    assert (changed.lease.length, changed.broker.is_configured) == (1.5, True)


def test_yaml_is_not_imported_when_there_is_no_file(user):
    program = (
        "import sys; from relayq.config import load;"
        f"load({{'HOME': {str(user)!r}}}); print(sorted({{'yaml', 'difflib'}} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")


# The broker


def test_host_port_and_password_make_the_url(user):
    (user / ".relayq" / "secret").write_text("p@ss/word:é\n", encoding="utf-8")
    configure(user, "broker: {host: 'fd7a::1', port: 7000, db: 3, password_file: secret}")

    config = loaded(user)

    assert config.broker_url == "redis://:p%40ss%2Fword%3A%C3%A9@[fd7a::1]:7000/3"
    assert config.broker.password == "p@ss/word:é"
    assert config.broker.password_file == user / ".relayq" / "secret"
    assert config.origins["broker.password"] == str(user / ".relayq" / "secret")


@pytest.mark.parametrize("key", ["host", "port"])
def test_a_host_or_a_port_alone_configures_the_broker(user, key):
    configure(user, f"broker: {{{key}: 6380}}")

    assert loaded(user).broker.is_configured


def test_a_password_goes_into_every_address_of_the_url(user):
    configure(user, "broker: {url: 'sentinel://a:1;sentinel://b:2', password: pw}")

    assert loaded(user).broker_url == "sentinel://:pw@a:1;sentinel://:pw@b:2"


def test_a_host_in_the_environment_replaces_the_url_of_the_file(user):
    configure(user, "broker: {url: 'redis://there:1'}")
    in_environment = {"RELAYQ_BROKER__HOST": "here", "RELAYQ_BROKER__PORT": "7"}

    assert loaded(user, **in_environment).broker_url == "redis://here:7/0"


def test_a_broker_over_tls_is_one_whose_certificate_is_checked(user):
    configure(user, "broker: {host: there, tls: yes, ca_file: my ca.crt}")
    (user / ".relayq" / "my ca.crt").touch()

    home = f"{user}/.relayq/my%20ca.crt"
    checked = f"?ssl_cert_reqs=required&ssl_ca_certs={home}"
    assert loaded(user).broker_url == f"rediss://there:6379/0{checked}"


def test_a_url_in_the_environment_replaces_the_host_of_the_file(user):
    configure(user, "broker: {host: there, port: 7, db: 2, tls: yes, ca_file: gone}")

    assert loaded(user, RELAYQ_BROKER__URL="redis://here").broker_url == "redis://here"


def test_a_password_in_the_environment_replaces_the_file(user):
    configure(user, "broker: {host: there, password_file: gone}")

    assert loaded(user, RELAYQ_BROKER__PASSWORD="new").broker_url == "redis://:new@there:6379/0"


def test_no_password_is_shown_by_repr_or_by_an_error(user):
    configure(user, "broker: {url: 'redis://:hidden@there'}")

    assert "hidden" not in repr(loaded(user))
    assert "hidden" not in refusal(user, "broker: {url: 'http://:hidden@there'}")


# Values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5h", 18_000),
        ("30s", 30),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("500ms", 0.5),
        ("1h 30m", 5400),
        ("1h30m", 5400),
        ("1.5m", 90),
        ("0.25", 0.25),
        ("010", 10),
        ("0", 0),
    ],
)
def test_a_duration_is_a_number_with_units(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "5 h", "5x", "-1", "1:30", "inf", "nan", "1e3", "5h3"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="expected a duration such as 30s, 5h or 1d"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("200MB", 200_000_000),
        ("1 MiB", 1_048_576),
        ("64kB", 64_000),
        ("64k", 64_000),
        ("2Gi", 2 << 30),
        ("1.5MB", 1_500_000),
        ("123", 123),
        ("7B", 7),
    ],
)
def test_a_size_is_a_number_with_a_unit(text, bytes_):
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["", "MB", "1TBB", "-1", "1,5MB", "iB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="expected a size such as"):
        size(text)


@pytest.mark.parametrize("name", ["no", "on", "yes", "true", "y", "null-pi", "1e3", "22"])
def test_a_word_that_old_yaml_takes_for_something_else_stays_a_word(user, name):
    configure(user, f"worker: {{name: {name}}}")

    assert loaded(user).worker.name == name


def test_paths_are_below_the_home_unless_they_are_absolute(user):
    assert loaded(user, RELAYQ_LOGGING__FILE="logs/w.log").logging.file == (
        user / ".relayq" / "logs" / "w.log"
    )
    assert loaded(user, RELAYQ_LOGGING__FILE="~/w.log").logging.file == user / "w.log"
    assert loaded(user, RELAYQ_LOGGING__FILE="/var/w.log").logging.file == Path("/var/w.log")


def test_a_level_may_be_written_in_lower_case(user):
    assert loaded(user, RELAYQ_LOGGING__LEVEL="debug").logging.level == "DEBUG"


@pytest.mark.parametrize(
    ("word", "jitter"), [("yes", True), ("true", True), ("no", False), ("False", False)]
)
def test_yes_and_no_have_several_words(user, word, jitter):
    configure(user, f"retry: {{jitter: {word}, factor: 1.5}}")

    retry = loaded(user).retry

    assert (retry.jitter, retry.factor) == (jitter, 1.5)


def test_lists_and_tables_may_be_written_as_such_or_as_text(user):
    configure(user, "worker: {labels: [heavy, fast, heavy], resources: {cuda: 1, disk: 2}}")
    in_environment = {
        "RELAYQ_WORKER__LIMITS": "transcode=1, agent=2",
        "RELAYQ_WORKER__ALIASES": "a",
    }

    worker = loaded(user, **in_environment).worker

    assert worker.labels == ("heavy", "fast")
    assert worker.resources == {"cuda": 1, "disk": 2}
    assert worker.limits == {"transcode": 1, "agent": 2}
    assert (worker.aliases, worker.capabilities, worker.weight) == (("a",), (), 1.0)


def test_a_list_in_the_environment_replaces_the_one_of_the_file(user):
    configure(user, "worker: {labels: [heavy]}")

    assert loaded(user, RELAYQ_WORKER__LABELS="slow").worker.labels == ("slow",)
    assert loaded(user, RELAYQ_WORKER__LABELS="").worker.labels == ()


# The hosts


def test_each_host_may_have_an_entry(user):
    configure(
        user,
        """\
hosts:
  mac-mini: {aliases: [mac], prefer_for: [transcode], capabilities: [xcode], weight: 3}
  pi4:
    address: pi@100.64.0.9
  thinkpad:
""",
    )

    config = loaded(user)

    assert config.hosts["mac-mini"] == Entry(("mac",), ("transcode",), ("xcode",), 3.0)
    assert config.hosts["pi4"].address == "pi@100.64.0.9"
    assert config.hosts["thinkpad"] == Entry()
    assert config.origins["hosts.pi4.address"] == "~/.relayq/config.yml:4"
    assert [config.host_called(name) for name in ("mac", "pi4", "gone")] == [
        "mac-mini",
        "pi4",
        "gone",
    ]
