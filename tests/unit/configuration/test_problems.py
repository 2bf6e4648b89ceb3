"""What is wrong with a configuration is said by its place, all at once; and its JSON Schema."""

import json
import re
from pathlib import Path

import pytest

from relayq.cli.config import json_schema
from relayq.config import KEYS, home_directory, problems
from relayq.errors import ConfigError
from tests.unit.configuration.person import configure, loaded, refusal

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
        ("broker: {url: 'redis://b:99999/0'}", "Port out of range"),
        ("broker: {url: 'redis://b:abc/0'}", "Port could not be cast"),
        ("broker: {url: 'sentinel://a;sentinel://b:x/0'}", "Port could not be cast"),
        ("broker: {url: 'rediss://b'}", "nobody checks who answers; write rediss://b/0?ssl_cert"),
        ("broker: {url: 'redis://b', tls: yes}", "broker.tls goes into broker.url"),
        ("broker: {host: b, ca_file: gone}", "broker.ca_file is only used with broker.tls: true"),
        ("broker: {host: b, tls: yes, ca_file: gone}", "broker.ca_file: can't be read"),
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
    file = Path(__file__).parents[3] / "docs" / "config.schema.json"

    # relayq config schema > docs/config.schema.json
    assert json.loads(file.read_text()) == json_schema()
