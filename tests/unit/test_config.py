"""The configuration: its layers, where each value came from, and errors that name the place."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from relayq.cli.config import json_schema
from relayq.config import KEYS, Config, Entry, home_directory, load, problems
from relayq.errors import ConfigError
from relayq.parsing import duration, size


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A person's home directory with an empty ~/.relayq, and a project in it."""
    (tmp_path / ".relayq").mkdir()
    (tmp_path / "project" / "src").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "src")
    return tmp_path


def configure(user: Path, text: str) -> None:
    (user / ".relayq" / "config.yml").write_text(text, encoding="utf-8")


def loaded(user: Path, **variables: str) -> Config:
    return load({"HOME": str(user), **variables})


def refusal(user: Path, text: str = "", **variables: str) -> str:
    configure(user, text)
    with pytest.raises(ConfigError) as caught:
        loaded(user, **variables)
    return str(caught.value)


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
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
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


def test_a_url_in_the_environment_replaces_the_host_of_the_file(user):
    configure(user, "broker: {host: there, port: 7, db: 2}")

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


# Errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "broker:\n  host: there\nworker:\n  name: pi4\n  # more\n  max_concurent: 3\n",
            "6:3: unknown key 'worker.max_concurent' (did you mean 'max_concurrent'?)",
        ),
        ("wroker: {name: a}", "1:1: unknown key 'wroker' (did you mean 'worker'?)"),
        ("timeout: 5h", "1:1: unknown key 'timeout' (did you mean 'defaults.timeout'?)"),
        ("worker: {timeout: 1}", "1:10: unknown key 'worker.timeout' (did you mean"),
        ("worker:\n  xyzzy: 1", "2:3: unknown key 'worker.xyzzy'"),
        (
            "worker:\n  name: a\n\n  name: b",
            "4:3: 'name' stands twice in worker (first in line 2)",
        ),
        ("worker: {}\nworker: {}", "2:1: 'worker' stands twice in the file (first in line 1)"),
        ("worker: 5", "1:9: worker: expected 'key: value', got '5'"),
        ("- worker", "1:1: the file: expected 'key: value', got a list"),
        ("just text", "1:1: the file: expected 'key: value', got 'just text'"),
        ("worker:\n  name: [a, b]", "2:9: worker.name: expected one value, got a list"),
        ("worker:\n  name: {a: b}", "2:9: worker.name: expected one value, got 'key: value'"),
        ("worker:\n  ? [a]\n  : b", "2:5: a key of worker: expected one value, got a list"),
        ("worker:\n\tname: a", "2:1: found character"),
        ("worker: {name: a", "expected ',' or '}'"),
        ("a: *nowhere", "1:4: found undefined alias"),
        ("worker: {}\n---\nworker: {}", "2:1: but found another document"),
        ("worker: \x01", "characters are not allowed"),
        (
            "worker:\n  max_concurrent: two",
            "2:19: worker.max_concurrent: expected a whole number from 1 on, got 'two'",
        ),
        ("worker: {max_concurrent: 0}", "expected a whole number from 1 on, got '0'"),
        ("worker: {max_concurrent: 2.5}", "expected a whole number from 1 on, got '2.5'"),
        ("worker: {cpu_threshold: 101}", "expected a whole number from 1 to 100, got '101'"),
        ("worker: {priority: high}", "expected one of normal, low, idle, got 'high'"),
        ("worker: {name: Mac Mini}", "expected a host's name: lower-case letters"),
        ("worker: {name: a/b}", "expected a host's name"),
        ("logging: {level: loud}", "expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("defaults: {timeout: 5 hours}", "1:21: defaults.timeout: expected a duration such as"),
        ("defaults: {timeout: 0}", "defaults.timeout: expected more than 0, got '0'"),
        ("defaults: {max_log: lots}", "defaults.max_log: expected a size such as"),
        ("broker: {port: 70000}", "expected a whole number from 1 to 65535, got '70000'"),
        ("broker: {url: 'http://x'}", "expected a URL that begins with one of redis, rediss"),
        ("broker: {url: 'redis://'}", "expected a URL that begins with"),
        ("broker: {host: a, url: 'redis://b'}", "broker.url and broker.host exclude each other"),
        ("broker: {password: a, password_file: b}", "exclude each other: keep one"),
        ("broker: {url: 'redis://:a@b', password: c}", "broker.url has a password, and so has"),
        ("lease: {beat: 50, idle_beat: 50}", "lease.beat (50 s) can't exceed lease.permit (45 s)"),
        ("lease: {permit: 61}", "1:17: lease.permit (61 s) can't exceed lease.length (60 s)"),
        ("retry: {base: 2m}", "1:15: retry.base (120 s) can't exceed retry.cap (60 s)"),
        ("retry: {factor: 0.5}", "1:17: retry.factor: expected a number from 1 on, got '0.5'"),
        ("retry: {factor: twice}", "retry.factor: expected a number from 1 on"),
        ("retry: {jitter: perhaps}", "retry.jitter: expected yes, no, true, false, on, off"),
        ("retry: {crash_limit: 0}", "retry.crash_limit: expected a whole number from 1 on"),
        ("defaults: {retries: -1}", "defaults.retries: expected a whole number from 0 on"),
        ("worker: {labels: {a: b}}", "worker.labels: expected one value, got 'key: value'"),
        ("worker: {labels: [a, [b]]}", "1:22: an item of worker.labels: expected one value"),
        ("worker: {labels: [no way]}", "worker.labels: expected a label: lower-case letters"),
        ("worker: {capabilities: '--x'}", "worker.capabilities: expected a capability such as"),
        ("worker: {resources: [cuda]}", "worker.resources: expected one value, got a list"),
        ("worker: {resources: cuda}", "worker.resources: expected numbers by name"),
        ("worker: {resources: {cuda: some}}", "expected a whole number from 0 on, got 'cuda=some'"),
        ("worker: {resources: {cuda: 1, cuda: 2}}", "'cuda' stands twice in worker.resources"),
        ("worker: {weight: 0}", "worker.weight: expected more than 0, got '0'"),
        ("worker: {address: '-oProxyCommand=x'}", "worker.address: expected an address such as"),
        ("scheduler: {balance: fair}", "scheduler.balance: expected one of pull, least-loaded"),
        ("hosts: {Mac Mini: {}}", "1:9: 'Mac Mini' can't be a host's name"),
        ("hosts: {a: {wieght: 2}}", "unknown key 'hosts.a.wieght' (did you mean 'weight'?)"),
        ("hosts: {a: {weight: much}}", "1:21: hosts.a.weight: expected a number from 0 on"),
        ("hosts: {a: 5}", "1:12: hosts.a: expected 'key: value', got '5'"),
        ("lease: {lost_max: 1s}", "lease.lost_min (30 s) can't exceed lease.lost_max (1 s)"),
    ],
)
def test_an_error_says_file_line_column_and_what_was_expected(user, text, message):
    refused = refusal(user, text)

    assert refused.startswith("~/.relayq/config.yml:")
    assert message in refused


def test_a_name_means_one_host(user):
    refused = refusal(user, "hosts: {a: {aliases: [x, b]}, b: {aliases: [x]}}")

    assert refused == "hosts: 'x' is the name of more than one host"


def test_an_unknown_variable_is_an_error_with_a_suggestion(user):
    assert refusal(user, RELAYQ_WORKER__NAEM="x") == (
        "RELAYQ_WORKER__NAEM: unknown key 'worker.naem' (did you mean 'RELAYQ_WORKER__NAME'?)"
    )
    assert "did you mean 'RELAYQ_WORKER__NAME'" in refusal(user, RELAYQ_worker__name="x")
    assert refusal(user, RELAYQ_X__Y="x") == "RELAYQ_X__Y: unknown key 'x.y'"


def test_a_wrong_value_in_the_environment_names_the_variable(user):
    assert refusal(user, RELAYQ_DEFAULTS__TIMEOUT="soon") == (
        "RELAYQ_DEFAULTS__TIMEOUT: defaults.timeout: "
        "expected a duration such as 30s, 5h or 1d, got 'soon'"
    )


def test_a_port_beside_a_url_of_another_layer_is_an_error(user):
    refused = refusal(user, "broker: {url: 'redis://there'}", RELAYQ_BROKER__DB="2")

    assert refused == "RELAYQ_BROKER__DB: broker.db goes into broker.url, which is set"


@pytest.mark.parametrize(("content", "problem"), [(None, "can't be read"), (" \n", "is empty")])
def test_a_password_file_without_a_password_is_an_error(user, content, problem):
    if content is not None:
        (user / ".relayq" / "pw").write_text(content)

    refused = refusal(user, "broker:\n  host: there\n  password_file: pw")

    assert refused.startswith("~/.relayq/config.yml:3:18: broker.password_file: ")
    assert problem in refused


def test_a_file_that_is_no_text_is_an_error(user):
    (user / ".relayq" / "config.yml").write_bytes(b"worker: {name: \xff}")
    with pytest.raises(ConfigError, match=r"^~/\.relayq/config\.yml: can't be read: .*utf-8"):
        loaded(user)

    (user / ".relayq" / "config.yml").unlink()
    (user / ".relayq" / "config.yml").mkdir()
    with pytest.raises(ConfigError, match="can't be read: .*directory"):
        loaded(user)


def test_a_byte_order_mark_does_no_harm(user):
    (user / ".relayq" / "config.yml").write_bytes(b"\xef\xbb\xbfworker: {name: pi4}\r\n")

    assert loaded(user).worker.name == "pi4"


# Every problem


def found(user: Path, text: str, **variables: str) -> list[str]:
    configure(user, text)
    at = "~/.relayq/config.yml:"
    every = problems({"HOME": str(user), **variables})
    return [problem.message.removeprefix(at) for problem in every]


def test_every_problem_is_found_and_not_just_the_first(user):
    text = """\
broker: {host: there, url: 'redis://there', password_file: gone}
worker:
  max_concurent: 3
  priority: high
  name: [a]
  cpu_threshold: 10
  cpu_threshold: 20
defaults: {grace: x, timeout: 5}
defaults: {}
wrk: 1
lease: 7
"""
    (user / "project" / ".relayq.yml").write_text("worker: {name: pi4}")

    messages = found(user, text, RELAYQ_LEASE__BEAT="x", RELAYQ_WORKER__NAEM="y")

    assert [message.partition(": ")[0] for message in messages] == [
        "1:28",
        "3:3",
        "4:13",
        "5:9",
        "7:3",
        "8:19",
        "9:1",
        "10:1",
        "11:8",
        "~/project/.relayq.yml:1:1",
        "RELAYQ_LEASE__BEAT",
        "RELAYQ_WORKER__NAEM",
        "1:60",
    ]


def test_a_good_configuration_has_no_problems(user):
    assert found(user, "worker: {name: pi4}") == []


def test_a_broken_value_is_one_problem_and_not_two(user):
    # By the default of 60 s the permit would be too long.
    assert len(found(user, "lease: {permit: 70s, length: soon}")) == 1


def test_the_first_problem_says_how_to_see_the_others(user):
    configure(user, "worker: {nam: a, priorty: b}")
    with pytest.raises(ConfigError) as several:
        loaded(user)
    configure(user, "worker: {nam: a}")
    with pytest.raises(ConfigError) as one:
        loaded(user)

    assert several.value.hint == "relayq config check shows all 2 problems"
    assert one.value.hint == "relayq config check"


def test_the_home_is_known_when_the_configuration_is_broken(user):
    configure(user, "{")

    assert home_directory({"HOME": str(user)}) == user / ".relayq"
    assert home_directory({"HOME": str(user), "RELAYQ_HOME": "~/x"}) == user / "x"


def test_every_key_is_described():
    assert [name for name, key in KEYS.items() if not key.metadata["about"].endswith(".")] == []


# The JSON Schema


def accepts(schema, value) -> bool:
    """Tell whether a schema takes a value, as far as the schemas of keys go."""
    if "enum" in schema:
        return value in schema["enum"]
    kinds = {"string": str, "number": (int, float), "integer": int, "null": type(None)}
    kinds |= {"array": list, "object": dict}
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, kinds[kind]) for kind in types):
        return False
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, list | dict):
        return True
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    return value is None or (low <= value <= high and value > schema.get("exclusiveMinimum", -1))


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("broker.url", ["redis://a", "sentinel://a;sentinel://b/0", None], ["http://a", 5]),
        ("broker.port", [1, 65_535, None], [0, 65_536, "x", 1.5]),
        ("worker.name", ["pi4", "a.b_c-d"], ["Mac Mini", "-a", ""]),
        ("worker.priority", ["low", None], ["high"]),
        ("logging.level", ["debug", "INFO"], ["loud"]),
        ("defaults.timeout", ["5h", "1h 30m", 90, "90"], ["5 hours", 0, -1]),
        ("worker.labels", [["heavy", "x-1"], "heavy,fast", None], [5]),
        ("worker.resources", [{"cuda": 1}, "cuda=1,disk=2", None], [5]),
        ("worker.weight", [2.5, 1], [0, -1]),
        ("defaults.max_log", ["200MB", "1 MiB", 0], ["lots", "1TB", -1]),
    ],
)
def test_the_schema_takes_what_the_loader_takes(user, key, good, bad):
    section, _, name = key.partition(".")
    schema = json_schema()["properties"][section]["properties"][name]

    assert [value for value in good if not accepts(schema, value)] == []
    assert [value for value in bad if accepts(schema, value)] == []
    for value in good:
        configure(user, f"{section}: {{{name}: {'' if value is None else repr(value)}}}")
        loaded(user)


def test_the_schema_takes_every_default():
    schemas = []
    for key in KEYS:
        schema = json_schema()
        for name in key.split("."):
            schema = schema["properties"][name]
        schemas.append(schema)

    assert [s for s in schemas if "default" in s and not accepts(s, s["default"])] == []


def test_the_schema_in_the_documentation_is_the_one_that_is_printed():
    file = Path(__file__).parents[2] / "docs" / "config.schema.json"

    # relayq config schema > docs/config.schema.json
    assert json.loads(file.read_text()) == json_schema()
