"""A second machine joins by a token: two homes on one machine, a real broker and file service."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from contextlib import closing

import psutil
import pytest

from relayq import config, embedded
from relayq.embedded import users
from relayq.errors import RelayqError
from relayq.model.joining import PATH, new_token, read_token
from relayq.store import connect
from tests.system.commands import ROOT, Terminal
from tests.system.cutting import Link
from tests.system.strangers import answering

pytestmark = [
    pytest.mark.system,
    # Another address of one machine, as a mesh would give it one.
    pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is no address here"),
]
LISTEN = "127.0.0.2"


class Machine:
    """One of two, with a home of its own."""

    def __init__(self, home, name):
        self.home = home
        home.mkdir(mode=0o700)
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RELAYQ_HOME": str(home),
            "RELAYQ_SERVE__START": "yes",
            "RELAYQ_WORKER__CPU_THRESHOLD": "100",
            "RELAYQ_WORKER__PRIORITY": "normal",
            "RELAYQ_LEASE__PULL": "1",
        }
        if name is not None:
            (home / "config.yml").write_text(f"worker:\n  name: {name}  # as it is called\n")

    @property
    def config(self):
        return config.load(self.environ)

    def relayq(self, *arguments, typed="", code=0):
        done = subprocess.run(
            [sys.executable, "-m", "relayq", *arguments],
            env=self.environ,
            input=typed,
            capture_output=True,
            text=True,
            timeout=90,
            cwd=self.home,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def end(self):
        left = ("broker/broker.json", "spool/worker.lock")
        if any((self.home / one).exists() for one in left):
            self.relayq("down", "--kill")


@pytest.fixture(scope="module")
def vm(tmp_path_factory):
    """The broker's machine."""
    one = Machine(tmp_path_factory.mktemp("vm") / "home", "vm")
    one.relayq("broker", "start", "--listen", LISTEN)
    yield one
    with closing(connect(users.admin_url(one.config))) as store:
        log = store.connection.execute_command("ACL", "LOG")
    # Who was shut out may try; nobody who was let in needs more than its role allows.
    entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in log]
    assert [entry for entry in entries if entry[b"reason"] != b"auth"] == []
    one.end()


@pytest.fixture
def other(tmp_path):
    one = Machine(tmp_path / "home", None)
    yield one
    one.end()


def token_of(machine, *options):
    return machine.relayq("broker", "token", *options).stdout.strip()


def refused(machine, token):
    return machine.relayq("join", "-", "--client", typed=f"{token}\n", code=125).stderr


def test_a_machine_joins_works_and_is_shut_out_again(vm, other):
    (other.home / "config.yml").write_text("# mine\nlogging:\n  level: INFO\n")
    token = token_of(vm)

    done = other.relayq(
        "join", "-", "--name", "pi4", "--slots", "3", "--no-service", typed=f"{token}\n"
    )

    assert done.stdout.startswith("pi4 joined vm: 3 slots, nice 0, caps command, ")
    assert "an echo job took" in done.stderr
    for name in ("broker.password", "fleet.key", "config.yml"):
        assert (other.home / name).stat().st_mode & 0o777 == (0o600 if name[0] != "c" else 0o644)
    assert (other.home / "fleet.key").read_text() == (vm.home / "fleet.key").read_text()
    own = other.config
    assert own.broker.full_url.startswith("redis://worker-pi4:")
    assert (own.worker.name, own.worker.max_concurrent, own.logging.level) == ("pi4", 3, "INFO")
    assert (other.home / "config.yml").read_text().startswith("# mine\n")
    # The machine has no more than its role: neither the owner's password nor the tickets.
    with closing(connect(own.broker_url)) as store:
        assert store.connection.execute_command("ACL", "WHOAMI") == b"worker-pi4"
    assert vm.relayq("run", "--on", "pi4", "echo $((6*7))").stdout == "42\n"

    assert "used already, by pi4" in refused(other_home(other), token)
    online = vm.relayq("hosts", "rm", "pi4", code=125).stderr
    assert "relayq hosts rm pi4 --revoke" in online
    out = vm.relayq("hosts", "rm", "pi4", "--revoke")
    assert out.stdout == "pi4  shut out\n"
    assert "relayq key rotate" in out.stderr
    with pytest.raises(RelayqError), closing(connect(own.broker_url)) as store:
        store.hosts.names()
    assert "worker-pi4" not in [user.name for user in users.users(vm.config)]


def other_home(machine):
    """Return a further machine, that nothing has joined by yet."""
    home = machine.home.parent / "third"
    return Machine(home, "third") if not home.exists() else machine


def test_a_client_joins_and_runs_nothing(vm, other):
    said = json.loads(vm.relayq("broker", "token", "--client", "--host", "laptop", "--json").stdout)
    assert said["command"] == f"relayq join {said['token']}"

    done = json.loads(other.relayq("join", said["token"], "--json").stdout)

    assert (done["name"], done["fleet"], done["role"]) == ("laptop", "vm", "client")
    assert done["host"] is None
    assert embedded.worker_pid(other.config) is None
    assert other.relayq("hosts", "--json").returncode == 0
    # From there no further token is made: who has this machine hasn't the fleet.
    assert "make the token on vm" in other.relayq("broker", "token", code=125).stderr
    assert vm.relayq("hosts", "rm", "laptop").stdout == "laptop  shut out\n"
    assert other.relayq("hosts", code=125)


def test_an_answer_that_is_lost_on_the_way_is_asked_for_again(vm, other):
    token = read_token(token_of(vm))
    hosts, port = embedded.files_place(vm.config)
    # The whole wish passes, and the beginning of the answer.
    link = Link(port, cuts=[1500])
    cut = new_token((f"http://127.0.0.1:{link.port}",))
    cut = type(cut)(cut.urls, token.ticket, token.secret)

    done = other.relayq("join", "-", "--client", "--name", "lost", typed=cut.text)

    link.close()
    assert hosts[-1] == LISTEN
    assert done.stdout.startswith("lost joined vm as a client")
    assert "the answer got lost; asking again" in done.stderr
    vm.relayq("hosts", "rm", "lost")


def test_no_secret_is_in_a_list_of_processes_or_a_log(vm, other):
    token = token_of(vm)
    terminal = Terminal("join", "--client", "--name", "quiet", **{**other.environ})
    terminal.sees("Token:")
    argvs = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    terminal.type(f"{token}\n")
    assert terminal.finish() == 0

    password = (other.home / "broker.password").read_text().strip()
    key = (other.home / "fleet.key").read_text().strip()
    secret = read_token(token).secret.hex()
    assert not [argv for argv in argvs if token in argv]
    assert token not in terminal.seen
    for file in (vm.home / "serve" / "serve.log", vm.home / "broker" / "redis.log"):
        for one in (token, password, key, secret):
            assert one not in file.read_text()
    vm.relayq("hosts", "rm", "quiet")


def test_a_machine_that_has_work_of_its_own_uses_up_no_token(vm, other):
    token = token_of(vm)
    other.relayq("broker", "start")

    assert "relayq down" in refused(other, token)
    other.end()
    assert other.relayq("join", "-", "--client", "--name", "later", typed=token)
    vm.relayq("hosts", "rm", "later")


def test_a_configuration_that_no_program_can_change_uses_up_no_token(vm, other):
    token = token_of(vm)
    file = other.home / "config.yml"
    file.write_text("broker: {port: 6400}\n")

    assert "no program should change" in refused(other, token)
    assert file.read_text() == "broker: {port: 6400}\n"
    file.unlink()
    assert other.relayq("join", "-", "--client", "--name", "later", typed=token)
    vm.relayq("hosts", "rm", "later")


def test_a_token_says_who_may_use_it_and_until_when(vm):
    done = vm.relayq("broker", "token", "--host", "pi9", "--expires", "10m", "--qr")

    assert done.stdout.startswith("rq1.")
    assert done.stdout.count("\n") == 1
    assert "good for the machine pi9, to join as worker, until 2" in done.stderr
    assert "█" in done.stderr
    on_terminal = Terminal("broker", "token", columns=200, **vm.environ)
    assert on_terminal.finish() == 0
    assert "relayq join rq1." in on_terminal.seen.replace("\r\n", "")
    assert vm.relayq("broker", "token", "--void").stdout == "2 tokens made void\n"
    assert "30 days" in vm.relayq("broker", "token", "--expires", "90d", code=2).stderr


def test_without_a_way_to_this_machine_no_token_is_made(other):
    assert "no broker runs here" in other.relayq("broker", "token", code=125).stderr
    other.relayq("broker", "start")

    done = other.relayq("broker", "token", code=125).stderr

    assert "it listens to itself only" in done
    assert "relayq broker start --listen" in done


def test_over_tls_the_broker_s_own_authority_comes_with_the_answer(other, tmp_path):
    pytest.importorskip("cryptography")
    encrypted = Machine(tmp_path / "encrypted", "vm2")
    encrypted.relayq("broker", "start", "--tls", "--listen", LISTEN)
    try:
        other.relayq("join", token_of(encrypted), "--client", "--name", "phone")

        url = other.config.broker_url
        assert url.startswith("rediss://client-phone:")
        assert "ssl_cert_reqs=required" in url
        assert "BEGIN CERTIFICATE" in (other.home / "broker-ca.pem").read_text()
        assert json.loads(other.relayq("hosts", "--json").stdout)["hosts"] == []
    finally:
        encrypted.end()


def test_an_unreachable_machine_says_that_the_token_is_good_still(other):
    token = new_token(("http://127.0.0.1:9", "http://127.0.0.3:9"))

    said = refused(other, token.text)

    assert "127.0.0.1:9: connection refused; 127.0.0.3:9: connection refused" in said
    assert "good still" in said
    assert sorted(path.name for path in other.home.iterdir()) == ["install"]


ODD = [
    ("POST", {"Content-Type": "text/plain"}, b"{}", 415),
    ("POST", {"Content-Type": "application/json"}, b"{" + b" " * 9000 + b"}", 413),
    ("POST", {"Content-Type": "application/json"}, b"{", 400),
    ("POST", {"Content-Type": "application/json"}, b"[" * 5000, 400),
    ("POST", {"Content-Type": "application/json"}, b"{}", 400),
    ("GET", {}, None, 405),
]


@pytest.mark.parametrize(("method", "headers", "body", "status"), ODD)
def test_what_is_no_wish_is_refused(vm, method, headers, body, status):
    _, port = embedded.files_place(vm.config)
    with closing(http.client.HTTPConnection(LISTEN, port, timeout=15)) as connection:
        connection.request(method, PATH, body, headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())

    assert answer.status == status
    assert set(said["error"]) == {"code", "message", "hint"}


def test_what_a_stranger_answers_moves_no_cursor(other):
    said = {"error": {"code": "x", "message": "\x1b[2Jgone\x07", "hint": "\x1b]0;hint\x07"}}
    with answering(json.dumps(said).encode(), 403) as url:
        shown = refused(other, new_token((url,)).text)
    assert "\x1b" not in shown
    assert "gone" in shown
    with answering(b'{"public": "00", "sealed": "00"}', 200) as url:
        shown = refused(other, new_token((url,)).text)
    assert "isn't the machine that made this token: nothing was kept" in shown
    assert not (other.home / "config.yml").exists()
