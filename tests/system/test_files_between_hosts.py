"""Files between machines that share no disk: there and back, over cut links, and every refusal.

Each machine is a network namespace with a home of its own. How much went over a cable is what the
kernel counted on it; its speed is bounded, so that it can be pulled out in the middle.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.conftest import missing
from tests.system import fleet as fleets
from tests.system.fleet import PORT, Command, Fleet, Host, ip
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.root]

MB = 1_000_000
#: So that 200 MB take some seconds.
RATE = "600mbit"
#: For how long a cable is out.
OUT = 2.0


@pytest.fixture(scope="module")
def built() -> Iterator[Fleet]:
    if not fleets.has_namespaces():
        missing("needs the right to make network namespaces", excused=True)
    with fleets.fleet() as fleet:
        client = fleet.add("client")
        (client.home / "share").mkdir()
        fleet.add("mini", "worker: {name: mini, max_concurrent: 2}\n").start_worker()
        paths = f"{{{client.home}/share: {fleet.directory}/mount}}"
        nas = fleet.add("nas", f"worker: {{name: nas, paths: {paths}}}\n")
        (fleet.directory / "mount").symlink_to(client.home / "share")
        nas.start_worker()
        for host in (client, fleet.host("mini")):
            bound(host)
        yield fleet


@pytest.fixture
def fleet(built: Fleet, request: pytest.FixtureRequest) -> Fleet:
    built.note(f"# {request.node.name.removeprefix('test_').replace('_', ' ')}")
    built.host("client").set_link("up")
    for name in ("mini", "nas"):
        built.host(name).repair()
    until(lambda: online(built) == {"mini", "nas"}, within=30, what="both hosts to be online")
    return built


@pytest.fixture
def client(fleet: Fleet) -> Host:
    return fleet.host("client")


@pytest.fixture
def mini(fleet: Fleet) -> Host:
    return fleet.host("mini")


@pytest.fixture
def nas(fleet: Fleet) -> Host:
    return fleet.host("nas")


@pytest.fixture
def folder(client: Host, request: pytest.FixtureRequest) -> Path:
    """A directory of the client's, the test's own."""
    made = client.home / re.sub(r"\W", "-", request.node.name)
    made.mkdir()
    return made


def bound(host: Host) -> None:
    """Bound the speed of a host's cable, both ways."""
    number = next(n for n, one in enumerate(host.fleet.hosts, 1) if one is host)
    for namespace, device in (
        (host.namespace, "eth0"),
        (host.fleet.broker.namespace, f"port{number}"),
    ):
        words = ["tc", "qdisc", "add", "dev", device, "root", "tbf"]
        words += ["rate", RATE, "burst", "256kb", "latency", "50ms"]
        done = subprocess.run(["ip", "netns", "exec", namespace, *words], capture_output=True)
        if done.returncode != 0:
            missing("needs tc with tbf", excused=True)


def online(fleet: Fleet) -> set[str]:
    asked = fleet.host("client").start_relayq("status", "--json").finish(noted=False)
    return {host["name"] for host in json.loads(asked.out)["hosts"] if host["online"]}


def moved(host: Host, way: str) -> int:
    """Return how many bytes the host has sent (`tx`) or received (`rx`) so far."""
    [link] = json.loads(ip("-j", "-s", "-n", host.namespace, "link", "show", "eth0"))
    return int(link["stats64"][way]["bytes"])


def cut(host: Host, way: str, told: Command, *, after: int = 80 * MB) -> None:
    """Pull the cable once so much has gone over it, drop its transfers, and plug it in again."""
    began = moved(host, way)

    def is_in_the_middle() -> bool:
        assert told.status is None, str(told)
        return moved(host, way) - began >= after

    until(is_in_the_middle, within=60, what=f"{after} bytes of {host.name}'s {way}")
    host.set_link("down")
    # The broker's connections live on, those of files are gone for good: here at once, while the
    # file service hears nothing of it.
    command = ["ip", "netns", "exec", host.namespace, "ss", "-K", "dport", "!=", str(PORT)]
    subprocess.run(command, capture_output=True, check=True)
    at = monotonic()
    until(lambda: monotonic() - at > OUT, what="the cable to be out for a while")
    host.set_link("up")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start(client: Host, folder: Path, *words: str) -> Command:
    """Start relayq in a directory of the client's."""
    line = f"cd {shlex.quote(str(folder))} && exec {shlex.join([*fleets.RELAYQ, *words])}"
    return client.start("sh", "-c", line)


def relayq(client: Host, folder: Path, *words: str) -> Command:
    return start(client, folder, *words).finish(60)


def refused(done: Command, code: int = 125) -> str:
    """Return what a command said that was refused as it should be."""
    assert done.status == code, str(done)
    assert "Traceback" not in done.err
    assert re.search(r"^  hint: .", done.err, re.MULTILINE), done.err
    return done.err


def jobs(client: Host) -> int:
    """Return how many jobs were ever queued."""
    return len(json.loads(client.relayq("ps", "-a", "--json").out)["jobs"])


def record(client: Host, selector: str = "last") -> dict:
    return json.loads(client.relayq("show", "--json", selector).out)


@pytest.mark.timeout(240)
def test_200_mb_go_there_and_back_over_links_that_are_cut(
    client: Host, mini: Host, folder: Path
) -> None:
    (folder / "film").write_bytes(os.urandom(200 * MB))
    expected = hashlib.sha256((folder / "film").read_bytes() + b"end\n").hexdigest()
    ways = [(client, "tx"), (mini, "rx"), (mini, "tx"), (client, "rx")]
    before = [moved(*way) for way in ways]

    command = "cp film back && chmod 640 back && echo end >> back"
    told = start(client, folder, "run", "--on", "mini", "--in", "film", "--out", "back", command)
    for host, way in ways:
        cut(host, way, told)
    told.finish(90)

    assert told.status == 0
    assert digest(folder / "back") == expected
    assert (folder / "back").stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in folder.iterdir()) == ["back", "film"]
    went = [moved(*way) - was for way, was in zip(ways, before, strict=True)]
    client.fleet.note(
        f"# 200 MB, cut four times: {[n // MB for n in went]} MB, {told.seconds:.0f} s"
    )
    # What had arrived wasn't sent again.
    assert all(200 * MB <= each < 230 * MB for each in went), went
    found = record(client)
    assert (found["state"], found["attempt"]) == ("succeeded", 1)


def test_the_same_file_is_sent_once(client: Host, mini: Host, folder: Path) -> None:
    (folder / "film").write_bytes(os.urandom(20 * MB))
    words = ("run", "--on", "mini", "--in", "film", "sha256sum film")
    first = relayq(client, folder, *words)
    before = moved(client, "tx"), moved(mini, "rx")

    again = relayq(client, folder, *words)

    assert first.out == again.out == f"{digest(folder / 'film')}  film\n"
    assert moved(client, "tx") - before[0] < MB
    # It was in the cache.
    assert moved(mini, "rx") - before[1] < MB


def test_what_a_host_reads_on_a_share_is_not_copied(client: Host, nas: Host, folder: Path) -> None:
    share = client.home / "share"
    (share / "new").mkdir()
    (share / "film").write_bytes(os.urandom(20 * MB))
    before = [moved(host, way) for host in (client, nas) for way in ("tx", "rx")]

    done = relayq(
        *(client, share, "run", "--on", "nas", "--in", "film", "--out", "back:new/"),
        "readlink film; { cat film; echo end; } > back",
    )

    after = [moved(host, way) for host in (client, nas) for way in ("tx", "rx")]
    assert done.status == 0, str(done)
    assert done.out == f"{client.fleet.directory}/mount/film\n"
    assert (share / "new" / "back").read_bytes() == (share / "film").read_bytes() + b"end\n"
    assert max(now - was for now, was in zip(after, before, strict=True)) < MB
    [kept] = record(client)["files"]
    assert (kept["place"], kept["dest"]) == ("placed", f"{share}/new/back")


def test_a_batch_comes_back_from_whoever_did_it(client: Host, folder: Path) -> None:
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"text {name}\n")
        relayq(
            *(client, folder, "submit", "--group", "batch", "--in", f"{name}.txt"),
            *("--out", "*.up", f"tr a-z A-Z < {name}.txt > {name}.up"),
        )
    waited = client.relayq("wait", "@batch")

    got = relayq(client, folder, "get", "@batch", "results")

    assert (waited.status, got.status) == (0, 0), str(got)
    found = {one.name: one.read_text() for one in (folder / "results").iterdir()}
    assert found == {f"{name}.up": f"TEXT {name.upper()}\n" for name in "abc"}
    assert sorted(got.out.splitlines()) == [f"{folder}/results/{name}.up" for name in "abc"]


def test_an_input_that_changes_while_it_is_sent_queues_nothing(client: Host, folder: Path) -> None:
    (folder / "film").write_bytes(os.urandom(60 * MB))
    count, began = jobs(client), moved(client, "tx")

    told = start(client, folder, "run", "--on", "mini", "--in", "film", "true")
    until(lambda: moved(client, "tx") - began > 10 * MB, within=30, what="a part to be sent")
    with (folder / "film").open("r+b") as film:
        film.seek(50 * MB)
        film.write(b"changed meanwhile")
    told.finish()

    assert "film was changed while it was sent" in refused(told)
    assert jobs(client) == count


def test_an_interrupted_submit_queues_nothing(client: Host, folder: Path) -> None:
    import signal

    (folder / "film").write_bytes(os.urandom(100 * MB))
    count, began = jobs(client), moved(client, "tx")

    told = start(client, folder, "run", "--on", "mini", "--in", "film", "true")
    until(lambda: moved(client, "tx") - began > 10 * MB, within=30, what="a part to be sent")
    told.kill(signal.SIGINT, within=5)
    told.finish()

    assert told.status == 130
    assert "relayq: nothing was queued" in told.err
    assert jobs(client) == count


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--in", "none"], "none can't be taken along: no such file or directory"),
        (["--in", "film:../x"], "it leads out of the job's directory"),
        (["--out", "/etc/passwd"], "it must be relative to the job's directory"),
        (["--out", "film"], "film exists"),
        (["--on", "all", "--out", "x"], "many hosts can't all bring back the same file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_with_files_is_told_before_anything_is_queued(
    words: list[str], said: str, client: Host, folder: Path
) -> None:
    (folder / "film").write_bytes(b"film")
    count = jobs(client)

    done = relayq(client, folder, "run", *words, "true")

    assert said in refused(done)
    assert jobs(client) == count
    assert (folder / "film").read_bytes() == b"film"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("true", "no file matches back"),
        ("ln -s ../../../fleet.key back", "back leads out of the job's directory"),
        ("ln -s nowhere back", "back is no regular file"),
    ],
)
def test_a_result_that_is_not_there_fails_the_job(
    command: str, said: str, client: Host, folder: Path
) -> None:
    done = relayq(client, folder, "run", "--on", "mini", "--out", "back", command)

    assert done.status == 125
    assert re.search(rf"failed: files: .*{re.escape(said)}", done.err), done.err
    assert list(folder.iterdir()) == []
    assert record(client)["reason"] == "files"


def test_what_a_failed_command_left_is_brought_back(client: Host, folder: Path) -> None:
    done = relayq(
        *(client, folder, "run", "--on", "mini", "--out", "log", "--out", "back"),
        "echo broken > log; exit 7",
    )

    assert done.status == 7
    assert (folder / "log").read_text() == "broken\n"


def test_what_came_to_be_here_meanwhile_is_not_replaced(
    client: Host, mini: Host, folder: Path
) -> None:
    go = mini.home / "go"
    command = f"until test -e {go}; do sleep 0.05; done; echo theirs > back"
    told = start(client, folder, "run", "--on", "mini", "--out", "back", command)
    until(lambda: jobs(client) and record(client)["phase"] == "started", what="the job to run")

    (folder / "back").write_text("mine\n")
    go.touch()
    told.finish()

    assert "back exists" in refused(told)
    assert (folder / "back").read_text() == "mine\n"
    done = relayq(client, folder, "get", "last", "--overwrite")
    assert (done.status, (folder / "back").read_text()) == (0, "theirs\n")
    go.unlink()


def test_without_room_here_the_files_stay_where_they_are(client: Host, folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], check=True)
    try:
        done = relayq(
            *(client, small, "run", "--on", "mini", "--out", "back"),
            "head -c 9000000 /dev/zero > back",
        )

        said = refused(done)
        assert re.search(r"back needs 9 MB, and there is room for 4\.\d+ MB", said), said
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
    assert relayq(client, folder, "get", "last", "elsewhere").status == 0
    assert (folder / "elsewhere").stat().st_size == 9 * MB


# Without a file service


@pytest.fixture(scope="module")
def plain() -> Iterator[Fleet]:
    """A broker without a file service, and one host."""
    if not fleets.has_namespaces():
        missing("needs the right to make network namespaces", excused=True)
    with fleets.fleet({"RELAYQ_SERVE__START": "no", "RELAYQ_WORKER__PATIENCE": "2s"}) as fleet:
        fleet.add("client")
        fleet.add("mini", "worker: {name: mini}\n").start_worker()
        until(lambda: online(fleet) == {"mini"}, within=30, what="the host to be online")
        yield fleet


def test_small_files_need_no_service(plain: Fleet) -> None:
    client = plain.host("client")
    (client.home / "names").write_bytes(b"c\nb\na\n" * 40_000)

    done = relayq(
        *(client, client.home, "run", "--in", "names", "--out", "sorted"), "sort names > sorted"
    )

    assert done.status == 0, str(done)
    assert (client.home / "sorted").read_bytes() == b"".join(
        line * 40_000 for line in (b"a\n", b"b\n", b"c\n")
    )


def test_a_large_input_without_a_service_is_refused_at_once(plain: Fleet) -> None:
    client = plain.host("client")
    (client.home / "film").write_bytes(bytes(MB))
    count = jobs(client)

    done = relayq(client, client.home, "run", "--in", "film", "true")

    assert "film has 1 MB: more than 256 KiB needs the file service" in refused(done)
    assert "relayq serve" in done.err
    assert jobs(client) == count


def test_a_large_result_without_a_service_can_still_be_had(plain: Fleet) -> None:
    client = plain.host("client")

    done = relayq(
        *(client, client.home, "run", "--on", "mini", "--out", "back"),
        "head -c 1000000 /dev/urandom | tee back | sha256sum",
    )

    said = refused(done)
    assert re.search(r"back \(1 MB\) is still on mini, at /.*: there is no file service", said)
    [hint] = re.findall(r"^  hint: (relayq run --on mini -- cat .* > back)$", said, re.MULTILINE)
    line = hint.replace("relayq", shlex.join(fleets.RELAYQ), 1)
    assert client.start("sh", "-c", line).finish().status == 0
    assert digest(client.home / "back") == done.out.split()[0]
