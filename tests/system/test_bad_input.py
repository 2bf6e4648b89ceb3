"""What goes wrong is said once, clearly, with the right exit code, and costs nothing else."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
import redis

from relayq import embedded, signing
from relayq.dispatch import TEMPLATE
from relayq.errors import OutputUnavailable
from relayq.model.jobs import Spec, new_id
from relayq.store.jobs import Submission
from tests.conftest import missing
from tests.waiting import until

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
HINT = re.compile(r"^  hint: .", re.MULTILINE)
#: What each of them does first is to ask the broker.
ASKING = [["run", "true"], ["submit", "true"], ["ps"], ["show", "abcd"], ["cancel", "abcd"]]


def relayq(*arguments: str, prefix: tuple[str, ...] = (), **variables: str):
    """Run one command to its end."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "relayq", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )


def refused(done: subprocess.CompletedProcess[str], code: int = 125) -> str:
    """Return what a command said that failed as it should: a message, a hint, no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len(re.findall(r"^relayq: ", done.stderr, re.MULTILINE)) == 1, done.stderr
    assert HINT.search(done.stderr), done.stderr
    return done.stderr


def all_is_well() -> None:
    """Whatever was refused, the fleet goes on."""
    assert relayq("run", "echo well").stdout == "well\n"


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


# What is to run


@pytest.mark.parametrize("command", [[], [""], ["  "], ["", "x"]])
@pytest.mark.parametrize("verb", ["run", "submit"])
def test_an_empty_command_is_an_error_of_usage(cli, verb, command):
    done = relayq(verb, *command)

    assert (done.returncode, done.stdout) == (2, "")
    assert "the command is empty; try: relayq run 'echo hello'" in done.stderr


def test_an_unknown_host_is_refused_with_the_known_ones(cli):
    said = refused(relayq("run", "--on", "nowhere", "true"))

    assert "no such host: nowhere (known hosts: here)" in said
    assert "--wait-for-host" in said


def test_a_directory_that_is_not_there_is_named(cli):
    done = relayq("run", "--cwd", "/no/such/place", "true")

    assert done.returncode == 125
    assert "no such directory: /no/such/place on here" in done.stderr
    all_is_well()


@pytest.mark.parametrize("command", [["no-such-command", "-x"], ["no-such-command -x"]])
def test_a_command_that_is_not_there_exits_with_127(cli, command):
    done = relayq("run", *command)

    assert done.returncode == 127
    assert "no-such-command: " in done.stderr
    assert "not found" in done.stderr


@pytest.mark.parametrize("form", ["argv", "shell"])
def test_a_file_that_can_not_be_executed_exits_with_126(cli, tmp_path, form):
    file = tmp_path / "notes.txt"
    file.write_text("no program")

    done = relayq("run", *([str(file), "x"] if form == "argv" else [f"{file} x"]))

    assert done.returncode == 126
    assert "ermission denied" in done.stderr


def test_arguments_reach_the_program_as_they_are(cli):
    odd = ["a\nb", "it's", '"q"', "$HOME `id` $(id)", "", "*", "\\", "-x", "\x1b[31m", "é ü", "--"]

    done = relayq("run", "printf", "%s|", *odd)

    assert done.stdout == "".join(f"{one}|" for one in odd)
    listed = relayq("ps").stdout
    assert "\x1b" not in listed
    # A line for each job, whatever newlines its arguments have.
    assert [line for line in listed.splitlines() if "printf" in line and "it" in line]


def test_a_program_with_newlines_and_quotes_is_one_shell_line(cli):
    done = relayq("run", "cat <<'EOF'\nit's \"quoted\"\nEOF\nexit 3")

    assert (done.returncode, done.stdout) == (3, 'it\'s "quoted"\n')


def test_a_null_byte_can_not_be_run_and_says_so(cli):
    with pytest.raises(ValueError, match="null byte"):
        relayq("run", "printf", "a\0b")


# Which job


def put(fleet, id: str, **fields) -> str:
    """Queue a job with an id of the test's choice, for a host that doesn't exist."""
    session = fleet.relay.session()
    spec = Spec(id=id, kind="run_command", payload={"cmd": "true"}, host="ghost")
    signed = session.signer.sign_spec(replace(spec, **fields))
    submit(fleet, replace(spec, **fields), signed)
    return id


def submit(fleet, spec: Spec, signed: bytes) -> None:
    session = fleet.relay.session()
    one = Submission(spec, signed)
    words = session.store.jobs.submit([one], template=TEMPLATE, key_id=session.signer.key_id)
    assert words == ["queued"]


def test_a_prefix_of_several_ids_lists_them_and_touches_none(cli):
    ids = [put(cli, f"zzzz{letter}{new_id()[:7]}") for letter in "ab"]

    for verb in ("show", "cancel", "logs", "wait", "retry"):
        said = refused(relayq(verb, "zzzz"))
        assert "'zzzz' matches several jobs" in said
        assert all(id in said for id in ids)
    assert [cli.job.fetch(id).state for id in ids] == ["queued", "queued"]
    assert relayq("cancel", ids[0][:5]).returncode == 0
    assert [cli.job.fetch(id).state for id in ids] == ["cancelled", "queued"]
    cli.job.cancel(ids[1])


def newer(fleet, spec: Spec, **facts) -> bytes:
    """Sign a spec as a relayq of the future would: it has facts that this one doesn't know."""
    signer = signing.Signer(signing.load_key(fleet.config.fleet_key_path))
    body = json.dumps({**spec.as_dict(), **facts}).encode()
    return signer._sign(b"relayq spec\0", body)


@pytest.mark.parametrize("facts", [{"v": 2}, {"needs_gpu": True}])
def test_a_spec_of_a_newer_version_is_refused_by_its_worker(cli, facts, tmp_path):
    spec = Spec(id=new_id(), kind="run_command", payload={"cmd": f"touch {tmp_path}/ran"})

    submit(cli, spec, newer(cli, spec, **facts))

    done = relayq("wait", spec.id)
    assert done.returncode == 125
    assert "the spec can't be read" in done.stderr
    assert ("version 2" if "v" in facts else "needs_gpu") in done.stderr
    assert not (tmp_path / "ran").exists()
    assert relayq("show", spec.id).returncode == 0
    assert json.loads(relayq("show", "--json", spec.id).stdout)
    assert spec.id[:4] in relayq("ps").stdout
    all_is_well()


def test_a_record_with_fields_of_a_newer_version_is_shown(cli):
    id = put(cli, new_id())
    store = cli.relay.session().store

    store.connection.hset(store.keys("job", id), mapping={"zone": "moon", "score": "7"})

    assert relayq("show", id).returncode == 0
    assert id[:4] in relayq("ps").stdout
    cli.job.cancel(id)


def test_a_record_in_a_state_of_a_newer_version_is_an_error_and_no_crash(cli):
    id = put(cli, new_id())
    store = cli.relay.session().store
    store.connection.hset(store.keys("job", id), "state", "hovering")
    try:
        said = refused(relayq("show", id))
        assert id in said
        assert "'hovering'" in said
    finally:
        store.connection.hset(store.keys("job", id), "state", "queued")
        cli.job.cancel(id)


# The configuration and the key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker: {name: pi4", "expected ',' or '}'"),
        ("worker:\n  nam: pi4\n", "config.yml:2:3: unknown key 'worker.nam' (did you mean 'name'?"),
        ("worker: {max_concurrent: 0}", "config.yml:1:26: worker.max_concurrent: expected"),
    ],
)
@pytest.mark.parametrize("verb", [["run", "true"], ["ps"], ["status"], ["up"], ["down"]])
def test_a_broken_configuration_stops_every_command(home, text, said, verb):
    (home / "config.yml").write_text(text)

    told = refused(relayq(*verb))

    assert said in told
    assert "hint: relayq config check" in told
    assert os.listdir(home) == ["config.yml"]


def test_an_unknown_variable_is_named(home):
    said = refused(relayq("ps", RELAYQ_WORKER__NAEM="x"))

    assert "did you mean 'RELAYQ_WORKER__NAME'" in said


def test_a_fleet_key_that_others_can_read_is_not_used(cli):
    cli.config.fleet_key_path.chmod(0o644)
    try:
        for verb in (["run", "true"], ["ps"]):
            said = refused(relayq(*verb))
            assert "others can read the fleet's key" in said
            assert f"hint: chmod 600 '{cli.config.fleet_key_path}'" in said
    finally:
        cli.config.fleet_key_path.chmod(0o600)
    all_is_well()


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_a_wrong_fleet_key_queues_nothing(cli, verb):
    key = cli.config.fleet_key_path.read_text()
    before = cli.relay.session().store.jobs.count()
    cli.config.fleet_key_path.write_text("ab" * 32)
    try:
        said = refused(relayq(verb, "true"))
    finally:
        cli.config.fleet_key_path.write_text(key)

    assert "this machine's fleet key isn't the broker's" in said
    assert cli.relay.session().store.jobs.count() == before
    all_is_well()


# The broker


#: What a command's own start may take on a busy machine; it isn't the broker's.
START = 5


def unreachable(url: str, verb: list[str], *prefix: str) -> float:
    """Ask a broker that doesn't answer; returns how long that took."""
    began = monotonic()
    done = relayq(*verb, prefix=prefix, RELAYQ_BROKER__URL=url)
    assert "can't reach the broker" in refused(done, 4 if verb == ["status"] else 125)
    return monotonic() - began


@pytest.mark.parametrize("verb", [*ASKING, ["status"]], ids=lambda verb: verb[0])
def test_a_broker_whose_port_is_closed_is_told_at_once(home, verb):
    with socket.socket() as taken:
        # Bound and not listening: nobody else can take it meanwhile.
        taken.bind(("127.0.0.1", 0))

        assert unreachable(f"redis://127.0.0.1:{taken.getsockname()[1]}", verb) < START


@pytest.mark.parametrize("verb", [*ASKING, ["status"]], ids=lambda verb: verb[0])
def test_a_broker_that_says_nothing_is_told_in_less_than_5_s(home, verb):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"redis://127.0.0.1:{server.getsockname()[1]}", verb) < 5 + START


@contextmanager
def black_hole() -> Iterator[str]:
    """A network of its own in which 10.99.99.2 swallows every packet; yields its name."""
    name = f"rq{os.getpid()}-hole"
    here = ["ip", "-n", name]
    ways = [
        ["ip", "netns", "add", name],
        [*here, "link", "set", "lo", "up"],
        [*here, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"],
        [*here, "address", "add", "10.99.99.1/24", "dev", "eth0"],
        [*here, "link", "set", "eth0", "up"],
        [*here, "link", "set", "eth1", "up"],
        [*here, "neigh", "add", "10.99.99.2", "lladdr", "02:00:00:00:00:01", "dev", "eth0"],
    ]
    try:
        for way in ways:
            done = subprocess.run(way, capture_output=True, text=True)
            if done.returncode != 0:
                missing(f"needs network namespaces: {done.stderr.strip()}", excused=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.root
def test_a_broker_behind_a_black_hole_is_told_in_less_than_5_s(home):
    with black_hole() as network:
        for verb in (["run", "true"], ["status"]):
            enter = ("ip", "netns", "exec", network)
            assert unreachable("redis://10.99.99.2:6379", verb, *enter) < 5 + START


def test_a_broker_out_of_memory_takes_no_job_and_loses_none(fleet, tmp_path):
    connection = redis.Redis.from_url(embedded.admin_url(fleet.config))
    go = tmp_path / "go"
    before = fleet.job.run(f"while [ ! -e {go} ]; do sleep 0.05; done; echo done")
    until(lambda: before.record.phase == "started", within=10, what="the job to start")
    commands = lambda: [client["cmd"] for client in connection.client_list()]  # noqa: E731
    until(lambda: "brpop" in commands(), within=10, what="the consumer to listen")
    connection.config_set("maxmemory", "1")
    try:
        for verb in ("run", "submit"):
            said = refused(relayq(verb, "echo no"))
            assert "the broker takes no new work" in said
        # Looking and ending work.
        assert relayq("ps").returncode == 0
        go.touch()
        assert before.get(timeout=20) == "done"
    finally:
        connection.config_set("maxmemory", "0")
        connection.close()
    all_is_well()


# A full disk


@pytest.fixture
def small_spool(home) -> Iterator[Path]:
    """A spool on a small disk of its own."""
    spool = home / "spool"
    spool.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", str(spool)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"needs mounts: {done.stderr.strip()}", excused=True)
    yield spool
    subprocess.run(["umount", "--lazy", str(spool)], check=True)


def fill(spool: Path) -> Path:
    filler = spool / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


@pytest.mark.root
def test_a_full_spool_fails_a_new_job_after_some_tries_and_harms_no_running_one(
    small_spool, fleet, tmp_path
):
    go, runs = tmp_path / "go", tmp_path / "runs"
    before = fleet.job.run(f"touch {runs}; while [ ! -e {go} ]; do sleep 0.05; done; exit 7")
    until(runs.exists, within=10, what="the job to run")
    filler = fill(small_spool)
    began = monotonic()

    done = relayq("run", "echo hi")

    assert done.returncode == 125
    assert "its host can't write its files: No space left on device" in done.stderr
    # Longer than any permit: what ran goes on, and its end is told.
    until(lambda: monotonic() - began > 1.5 * fleet.config.lease.permit, within=20, what="time")
    go.touch()
    assert before.wait(10).exit_code == 7
    filler.unlink()
    all_is_well()


def gap(id: str, error: str) -> int:
    """Return how many bytes a remark says are missing of this job's output."""
    [missing] = re.findall(
        rf"^relayq: {id}  (\d+) bytes of output are missing: here's disk was full$",
        error,
        re.MULTILINE,
    )
    return int(missing)


@pytest.mark.root
def test_output_that_a_full_spool_cut_is_called_so(small_spool, fleet):
    line = "head -c 1000000 /dev/zero; exit 5"
    done = relayq("run", "--name", "big", line)

    id = fleet.relay.session().store.jobs.list(limit=1)[0].id
    assert done.returncode == 5
    assert 0 < len(done.stdout) == 1_000_000 - gap(id, done.stderr)
    assert "lost to a full disk" in relayq("show", id).stdout
    for command, code in (
        (["logs"], 0),
        (["logs", "-f", "--exit"], 5),
        (["logs", "--tail", "1"], 0),
    ):
        passed = relayq(*command, id)
        assert (passed.stdout, passed.returncode) == (done.stdout, code), command
        assert gap(id, passed.stderr) == gap(id, done.stderr)
    assert relayq("logs", "-q", id).stderr.count("are missing") == 1


@pytest.mark.root
def test_a_text_that_a_full_spool_cut_is_an_error_and_never_a_shorter_text(small_spool, fleet):
    result = fleet.job.run("echo begun; head -c 1000000 /dev/zero")

    for ask in (
        lambda: result.get(timeout=20),
        lambda: result.stdout,
        lambda: result.text,
        lambda: result.stderr,
        lambda: list(fleet.job.fetch(result.id).logs()),
    ):
        with pytest.raises(OutputUnavailable, match="are missing: here's") as caught:
            ask()
        assert (caught.value.host, result.state) == ("here", "succeeded")
        assert 0 < caught.value.missing < 1_000_006
    said = refused(relayq("result", result.id))
    assert f"{caught.value.missing} bytes of the output of {result.id} are missing: here's" in said
    assert f"relayq retry {result.id}" in said
    for command in (["result", "--json"], ["logs", "--json"]):
        told = relayq(*command, result.id)
        assert json.loads(told.stdout)["error"]["code"] == "output_unavailable"
        assert told.returncode == 125


@pytest.mark.root
def test_a_run_as_json_whose_output_a_full_spool_cut_is_an_error(small_spool, fleet):
    told = relayq("run", "--json", "head -c 1000000 /dev/zero")

    assert json.loads(told.stdout)["error"]["code"] == "output_unavailable"
    assert told.returncode == 125


@pytest.mark.root
def test_a_small_output_that_a_full_spool_cut_is_an_error_too(small_spool, fleet, tmp_path):
    go, runs = tmp_path / "go", tmp_path / "runs"
    result = fleet.job.run(f"touch {runs}; while [ ! -e {go} ]; do sleep 0.1; done; seq 9999")
    until(runs.exists, within=10, what="the job to run")
    fill(small_spool)
    go.touch()

    with pytest.raises(OutputUnavailable) as caught:
        result.get(timeout=20)

    assert caught.value.missing
    assert result.state == "succeeded"
