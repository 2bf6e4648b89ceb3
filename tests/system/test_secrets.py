"""Secrets of a host: jobs that ask for one get it, and its value is nowhere but there."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import sys
import threading
from pathlib import Path

import pytest
import redis

from relayq import config, embedded
from tests.system.commands import ROOT, Terminal, begun, relayq, shown, submit, until_exists
from tests.system.conftest import start_fleet
from tests.waiting import until

pytestmark = pytest.mark.system

VALUE = "sk-live/8f3+a b"
OTHER = "another-one-of-mine"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet whose host has two secrets."""
    home = tmp_path_factory.mktemp("secrets", numbered=True) / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        for fleet in start_fleet(home, patch):
            keep("API_KEY", VALUE)
            keep("OTHER_KEY", OTHER)
            until_known(fleet, "API_KEY", "OTHER_KEY")
            yield fleet
        embedded.stop_broker(config.load())


def keep(name: str, value: str) -> None:
    done = relayq("secret", "set", name, stdin=None, input=f"{value}\n")
    assert done.returncode == 0, done.stderr
    assert value not in done.stdout + done.stderr


def listed() -> dict:
    rows = json.loads(relayq("secret", "ls", "--json").stdout)["secrets"]
    return {row["name"]: row["hosts"] for row in rows}


def until_known(fleet, *names: str) -> None:
    def known() -> bool:
        [host] = fleet.relay.hosts()
        return {f"secret:{name.lower()}" for name in names} <= set(host.capabilities)

    until(known, within=20, what=f"the host to say that it has {', '.join(names)}")


class Witness:
    """Hears every command that Redis gets."""

    def __init__(self, url: str) -> None:
        self._connection = redis.from_url(url)
        self.heard: list[str] = []
        self._monitor = self._connection.monitor()
        self._monitor.__enter__()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for said in self._monitor.listen():
                self.heard.append(said["command"])
        except (redis.ConnectionError, OSError, ValueError, AttributeError):
            return

    def close(self) -> None:
        self._connection.close()


def kept_in_redis(url: str) -> bytes:
    """Return all that Redis holds, as it dumps it."""
    connection = redis.from_url(url)
    found = b""
    for key in connection.scan_iter():
        match connection.type(key):
            case b"string":
                values = [connection.get(key)]
            case b"hash":
                values = [one for pair in connection.hgetall(key).items() for one in pair]
            case b"list":
                values = connection.lrange(key, 0, -1)
            case b"set":
                values = list(connection.smembers(key))
            case b"zset":
                values = connection.zrange(key, 0, -1)
            case _:
                entries = [fields for _, fields in connection.xrange(key)]
                values = [one for fields in entries for pair in fields.items() for one in pair]
        found += b"\n".join([key, *(value or b"" for value in values)])
    connection.close()
    return found


def on_disk(home: Path) -> dict[str, bytes]:
    files = (one for one in home.rglob("*") if one.is_file() and one.name != "secrets.env")
    return {str(one): one.read_bytes() for one in files}


def command_lines() -> bytes:
    found = b""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += entry.read_bytes() + b"\n"
        except OSError:
            continue
    return found


def traces(value: str) -> list[bytes]:
    """Return what would give a secret away."""
    raw = value.encode()
    return [raw, base64.b64encode(raw).rstrip(b"=")[:-1], raw.hex().encode()]


def test_a_job_gets_its_secret_and_the_value_is_nowhere_else(fleet, tmp_path):
    url = embedded.admin_url(fleet.config)  # who may see all that there is
    witness = Witness(url)
    go = tmp_path / "go"
    line = (
        'printf %s "$API_KEY" | head -c 5; sleep 0.3; printf %s "$API_KEY" | tail -c +6; echo; '
        'printf %s "user:$API_KEY" | base64; echo "err $API_KEY" >&2; '
        f'{until_exists(go)}; test "$API_KEY" = "sk-live/8f3+a b" && echo right'
    ).replace("sk-live/8f3+a b", "$(cat " + str(tmp_path / "right") + ")")
    (tmp_path / "right").write_text(VALUE)

    id = submit("--secret", "API_KEY", line)
    begun(id)
    until(lambda: "err" in relayq("logs", id).stderr, what="the job to have written it")
    during = kept_in_redis(url), on_disk(fleet.home), command_lines()
    go.touch()
    assert relayq("wait", id).returncode == 0
    after = kept_in_redis(url), on_disk(fleet.home)
    told = [relayq(*words).stdout for words in (["show", id], ["show", "--json", id], ["ps", "-a"])]
    witness.close()

    out = relayq("logs", id)
    first, second, last = out.stdout.splitlines()
    assert (first, last, out.stderr) == ("***", "right", "err ***\n")
    assert base64.b64encode(b"user:").decode()[:6] == second[:6]
    assert "***" in second
    assert "API_KEY" in told[0]
    for trace in traces(VALUE):
        for where in (during[0], after[0], during[2], *map(str.encode, told)):
            assert trace not in where
        for name, content in {**during[1], **after[1]}.items():
            assert trace not in content, name
        assert not [said for said in witness.heard if trace.decode() in said]
    assert witness.heard


def test_only_the_job_that_asked_has_it(fleet):
    other = relayq("run", 'echo "${API_KEY-none} ${OTHER_KEY-none} ${RELAYQ_SECRETS-none}"')
    one = relayq("run", "--secret", "OTHER_KEY", 'echo "${API_KEY-none}"; expr length $OTHER_KEY')

    assert other.stdout == "none none none\n"
    assert one.stdout == f"none\n{len(OTHER)}\n"


def test_a_result_has_no_secret_either(fleet):
    result = fleet.job.run('echo "<$API_KEY>"', secrets=["API_KEY", "OTHER_KEY"])

    assert result.get(timeout=20) == "<***>"
    assert result.record.spec.secrets == ("API_KEY", "OTHER_KEY")


def test_a_secret_stays_hidden_after_its_worker_was_killed(fleet, tmp_path):
    go = tmp_path / "go"
    id = submit("--secret", "API_KEY", f'echo "$API_KEY"; {until_exists(go)}; echo "$API_KEY"')
    begun(id)

    fleet.end_worker(signal.SIGKILL)
    fleet.start_worker()
    go.touch()

    assert relayq("wait", id).returncode == 0
    assert relayq("logs", id).stdout == "***\n***\n"
    assert shown(id)["attempt"] == 1


def test_a_terminal_shows_none(fleet):
    terminal = Terminal("run", "-t", "--secret", "API_KEY", 'echo "is $API_KEY."')

    assert terminal.finish() == 0
    assert "is ***." in terminal.seen


def test_what_a_job_says_of_itself_has_none(fleet, tmp_path):
    go, relayq_ = tmp_path / "go", f"PYTHONPATH={ROOT} {sys.executable} -m relayq"
    line = f'{relayq_} progress "at $API_KEY"; {until_exists(go)}; {relayq_} ask "is it $API_KEY?"'
    id = submit("--secret", "API_KEY", line)
    until(lambda: (shown(id)["progress"] or {}).get("text") == "at ***", what="its progress")
    go.touch()
    until(lambda: shown(id)["question"] == "is it ***?", within=20, what="the question")

    assert relayq("answer", id, "yes").returncode == 0
    assert relayq("wait", id).returncode == 0
    assert relayq("logs", id).stdout == "yes\n"


def test_the_file_steps_around_a_command_leave_its_secret_alone(fleet, tmp_path):
    back = tmp_path / "back"
    done = relayq("run", "--secret", "API_KEY", "--out", f"out:{back}", "echo $API_KEY | tee out")

    assert (done.returncode, done.stdout) == (0, "***\n"), done.stderr
    # What it writes into its own files is its own affair.
    assert back.read_text() == f"{VALUE}\n"


def test_a_job_waits_for_a_host_that_has_the_secret(fleet):
    refused = relayq("run", "--secret", "LATER_KEY", "true")
    assert refused.returncode == 125
    assert "here has no secret LATER_KEY" in refused.stderr
    assert "relayq secret set LATER_KEY" in refused.stderr

    id = submit("--secret", "LATER_KEY", "--wait-for-host", "expr length $LATER_KEY")
    keep("LATER_KEY", "it-came-later")
    assert relayq("wait", "--timeout", "30s", id).returncode == 0
    assert relayq("logs", id).stdout == "13\n"
    assert listed()["LATER_KEY"] == ["here"]

    assert relayq("secret", "rm", "LATER_KEY").returncode == 0
    assert "LATER_KEY" not in (fleet.home / "secrets.env").read_text()
    assert relayq("secret", "rm", "LATER_KEY").returncode == 125


def test_a_secret_that_was_removed_meanwhile_refuses_its_job(fleet, tmp_path):
    keep("SHORT_LIVED", "for-a-moment")
    until_known(fleet, "SHORT_LIVED")
    id = submit("--secret", "SHORT_LIVED", "--in-time", "2s", "true")
    path = fleet.home / "secrets.env"
    path.write_text(f'API_KEY="{VALUE}"\nOTHER_KEY="{OTHER}"\n')

    assert relayq("wait", "--timeout", "30s", id).returncode != 0
    outcome = fleet.job.fetch(id).outcome()
    assert outcome is not None
    assert "here has no secret SHORT_LIVED" in str(outcome.error)


def test_a_value_is_asked_for_without_an_echo(fleet):
    terminal = Terminal("secret", "set", "TYPED_KEY")
    terminal.sees("TYPED_KEY")
    terminal.type("typed-in-secret\n")

    assert terminal.finish() == 0
    assert "typed-in" not in terminal.seen
    assert 'TYPED_KEY="typed-in-secret"' in (fleet.home / "secrets.env").read_text()
    assert (fleet.home / "secrets.env").stat().st_mode & 0o777 == 0o600
    assert relayq("secret", "rm", "TYPED_KEY").returncode == 0


@pytest.mark.parametrize(
    ("words", "piped", "said"),
    [
        (["KEY", "the-value"], "", "a value isn't an argument"),
        (["KEY=the-value"], "", "a value isn't an argument"),
        (["key"], "the-value", "has capital letters"),
        (["PATH"], "the-value", "can't be called PATH"),
        (["KEY"], "few", "too few to be masked"),
        (["KEY"], "the\nvalue\n", "several lines"),
    ],
)
def test_what_can_not_be_a_secret_is_refused(fleet, words, piped, said):
    before = (fleet.home / "secrets.env").read_text()

    done = relayq("secret", "set", *words, stdin=None, input=piped)

    assert done.returncode in (2, 125)
    assert said in done.stderr
    assert "hint:" in done.stderr
    assert "the-value" not in done.stderr
    assert (fleet.home / "secrets.env").read_text() == before


def test_a_sealed_secret_reaches_its_job_and_nobody_else(fleet):
    pytest.importorskip("cryptography")
    url = embedded.admin_url(fleet.config)

    def sealed() -> str:
        done = relayq("secret", "seal", "SEALED", "--on", "here", stdin=None, input=f"{VALUE}\n")
        assert VALUE not in done.stdout + done.stderr
        return done.stdout.strip() if done.returncode == 0 else ""

    until(sealed, within=20, what="the host to say its key")
    text = sealed()
    id = submit("--secret", text, "--secret", "OTHER_KEY", 'echo "$SEALED" | md5sum; echo $SEALED')
    assert relayq("wait", id).returncode == 0

    right = hashlib.md5(f"{VALUE}\n".encode()).hexdigest()
    assert relayq("logs", id).stdout.splitlines() == [f"{right}  -", "***"]
    told = relayq("show", id).stdout
    assert "OTHER_KEY" in told
    assert "SEALED (sealed)" in told
    assert text not in told
    everywhere = [kept_in_redis(url), *on_disk(fleet.home).values()]
    assert not any(trace in found for found in everywhere for trace in traces(VALUE))
    mark = relayq("secret", "key").stdout.strip()
    wrong = ("secret", "seal", "SEALED", "--on", "here", "--key", "0" * 16)
    assert f"its key is {mark}" in relayq(*wrong, stdin=None, input="x\n").stderr
    refused = relayq("submit", "--secret", "SEALED=openly-given", "true")
    assert refused.returncode != 0
    assert "openly-given" not in refused.stderr
