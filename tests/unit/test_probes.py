"""Asking a machine what it has: bounded, remembered, and right after a change."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from relayq.agents import adapters
from relayq.config import Config, Entry, Worker
from relayq.host import probes
from relayq.host.facts import Sheet, own_address
from tests.waiting import until

AGENTS = adapters.load()

ASK, RENDER_NODES = probes.ask, probes.render_nodes


class Machine:
    """A PATH of our own, on which tools are little scripts that note how often they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.home = folder / "user"
        self.home.mkdir()
        self.memory_file = folder / "cache" / "probes.json"
        self.asked = folder / "asked"

    def tool(self, name: str, body: str) -> Path:
        script = self.folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.asked}\n{body}\n')
        script.chmod(0o755)
        return script

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": str(self.folder), "HOME": str(self.home)}

    def memory(self) -> probes.Memory:
        return probes.Memory(str(self.memory_file))

    def examine(self) -> dict:
        return probes.examine(self.memory(), self.environ)

    def glance(self) -> dict:
        return probes.glance(self.memory(), self.environ)

    def questions(self) -> list[str]:
        asked = self.asked.read_text().splitlines() if self.asked.exists() else []
        self.asked.unlink(missing_ok=True)
        return asked


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "render_nodes", lambda: [])
    return Machine(tmp_path)


def test_a_tool_is_asked_for_its_version(machine):
    machine.tool("git", "echo git version 2.39.5")
    machine.tool("ffmpeg", "echo ffmpeg version n7.1 Copyright")
    machine.tool("unheard-of", "echo 1.0")

    assert machine.examine()["tools"] == {"git": "2.39.5", "ffmpeg": "7.1"}


def test_a_tool_is_asked_once_until_it_changes(machine):
    script = machine.tool("git", "echo git version 2.39.5")
    machine.examine()
    assert "git --version" in machine.questions()

    assert machine.examine()["tools"] == {"git": "2.39.5"}
    assert "git --version" not in machine.questions()

    script.write_text(script.read_text().replace("2.39.5", "2.40.10"))
    assert machine.examine()["tools"] == {"git": "2.40.10"}


def test_at_a_glance_nobody_is_asked(machine):
    machine.tool("git", "echo git version 2.39.5")
    machine.tool("docker", "echo 27.1")

    assert machine.glance()["tools"] == {"git": ""}
    assert machine.questions() == []

    machine.examine()
    machine.questions()
    assert machine.glance()["tools"] == {"git": "2.39.5", "docker": "27.1"}
    assert machine.questions() == []


def test_a_client_without_its_daemon_does_not_count(machine):
    flag = machine.folder.parent / "daemon"
    flag.touch()
    machine.tool("docker", f'[ -e {flag} ] || {{ echo "Cannot connect" >&2; exit 1; }}; echo 27.1')
    assert machine.examine()["tools"] == {"docker": "27.1"}

    flag.unlink()
    assert machine.examine()["tools"] == {}
    assert machine.glance()["tools"] == {}

    flag.touch()
    assert machine.examine()["tools"] == {"docker": "27.1"}


def test_a_tool_that_hangs_is_there_without_a_version_and_leaves_nothing_behind(
    machine, monkeypatch
):
    pid = machine.folder.parent / "pid"
    machine.tool("git", f"/bin/sleep 600 & echo $! > {pid}; wait")
    monkeypatch.setattr(probes, "ask", lambda argv: ASK(argv, patience=0.5))

    assert machine.examine()["tools"] == {"git": ""}

    left = int(pid.read_text())
    until(lambda: not _lives(left), within=5, what="the hanging child to end")


def test_a_worker_that_ends_leaves_no_tool_that_it_was_asking(machine):
    pid = machine.folder.parent / "pid"
    machine.tool("git", f"echo $$ > {pid}; exec /bin/sleep 600")
    said = []
    asking = threading.Thread(target=lambda: said.append(_end_of(machine.examine)))
    asking.start()
    until(lambda: pid.exists() and pid.read_text(), within=10, what="the tool to be asked")

    probes.give_up()

    asking.join(5)
    assert said == [probes.GivenUp]
    assert not _lives(int(pid.read_text()))
    assert _end_of(machine.examine) is probes.GivenUp
    assert not machine.memory_file.exists()


@pytest.fixture(autouse=True)
def _asks_again():
    yield
    probes.begin()


def _end_of(examine):
    try:
        return examine()
    except probes.GivenUp as end:
        return type(end)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_what_fails_or_is_not_there_says_nothing(tmp_path):
    assert probes.ask(["/nowhere/at/all"]) is None
    assert probes.ask(["/bin/sh", "-c", "echo x; exit 3"]) is None
    assert probes.ask(["/bin/sh", "-c", "echo out; echo err >&2"]) == "out\nerr\n"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("head -c 1000000 /dev/zero | tr '\\0' x", id="a megabyte"),
        pytest.param("printf '\\377\\376\\000\\033[2J'", id="not UTF-8"),
        pytest.param("head -c 20000 /dev/urandom | tr -d '0-9'", id="garbage"),
        pytest.param("yes", id="without end"),
        pytest.param("sleep 600 & exit 0", id="a child that keeps its output open"),
        pytest.param("kill -9 $$", id="killed"),
    ],
)
def test_a_tool_that_says_nonsense_is_there_without_a_version(machine, monkeypatch, body):
    path = f"PATH={os.environ['PATH']}"
    for name in ("git", "ffmpeg", "nvidia-smi"):
        machine.tool(name, f"{path}\n{body}")
    machine.tool("jq", "echo jq-1.7")
    monkeypatch.setattr(probes, "ask", lambda argv: ASK(argv, patience=1.0))

    found = machine.examine()

    assert found["tools"] == {"git": "", "ffmpeg": "", "jq": "1.7"}
    assert (found["gpus"], found["encoders"]) == ([], [])


def test_of_what_a_tool_says_only_the_beginning_is_kept():
    said = probes.ask(["/bin/sh", "-c", "echo 1.2; head -c 3000000 /dev/zero | tr '\\0' x"])

    assert said is not None
    assert said.startswith("1.2\nxxx")
    assert len(said) <= 200_000


def test_only_an_encoder_of_hardware_that_really_encodes_counts(machine):
    listed = "libx264 h264_nvenc h264_v4l2m2m hevc_vaapi"
    lines = "".join(f" V....D {name} about it\n" for name in listed.split())
    machine.tool(
        "ffmpeg",
        f"""case "$*" in
*-encoders*) printf '%s' '{lines}' ;;
*h264_v4l2m2m*) ;;
*-c:v*) exit 1 ;;
*) echo ffmpeg version 7.1 ;;
esac""",
    )

    assert machine.examine()["encoders"] == ["libx264", "h264_v4l2m2m"]

    # Without a render node nobody tries VAAPI.
    asked = machine.questions()
    assert sum("h264_nvenc" in line for line in asked) == 1
    assert not any("hevc_vaapi" in line for line in asked)
    assert machine.examine()["encoders"] == ["libx264", "h264_v4l2m2m"]
    assert machine.questions() == []
    assert machine.glance()["encoders"] == ["libx264", "h264_v4l2m2m"]


def test_cards_are_found_by_their_own_tool(machine, monkeypatch):
    monkeypatch.setenv("PATH", str(machine.folder))
    machine.tool("nvidia-smi", "echo NVIDIA T4, 15360 MiB, 535.1")

    [card] = machine.examine()["gpus"]

    assert (card["sort"], card["name"]) == ("cuda", "NVIDIA T4")


def test_render_nodes_are_those_that_this_user_may_use(tmp_path):
    for name in ("card0", "renderD129", "renderD128"):
        (tmp_path / name).touch()

    nodes = [str(tmp_path / "renderD128"), str(tmp_path / "renderD129")]

    assert RENDER_NODES(str(tmp_path)) == nodes
    assert RENDER_NODES(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("file", "system", "keys", "logged_in"),
    [
        (".claude/.credentials.json", "linux", [], True),
        (None, "linux", [], False),
        # There the keychain may have it.
        (None, "darwin", [], None),
        (None, "linux", ["ANTHROPIC_API_KEY"], True),
        (None, "linux", ["ANTHROPIC_BASE_URL"], False),
    ],
)
def test_an_agent_is_logged_in_as_far_as_a_file_tells(tmp_path, file, system, keys, logged_in):
    if file is not None:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()

    found = probes.agents_in(
        {"claude": "2.1"}, [AGENTS["claude"]], home=str(tmp_path), keys=keys, system=system
    )

    assert found == {"claude": {"version": "2.1", "logged_in": logged_in}}


def test_a_name_that_may_be_another_programs_is_an_agents_where_somebody_says_so(tmp_path):
    def found(**more):
        tools = {"goose": "3.24", "codex": "0.2"}
        agents = [AGENTS["goose"], replace(AGENTS["codex"], min_version="0.150")]
        return probes.agents_in(tools, agents, home=str(tmp_path), system="linux", **more)

    assert found() == {"codex": {"version": "0.2", "logged_in": False, "too_old": "0.150"}}
    assert found(named=["goose"])["goose"] == {"version": "3.24", "logged_in": None}
    assert found(keys=["GROQ_API_KEY"])["goose"]["logged_in"] is True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version of git": 5}',
        '{"version of git": [STAMP, {"a": 1}], "gpus": [[], 5], "encoders": [FFMPEG, 7]}',
        '{"version of git": [STAMP, null], "gpus": [[], ["card"]], "encoders": [FFMPEG, [1]]}',
        '{"version of git": [STAMP], "gpus": [[], {}], "encoders": [FFMPEG, {"a": 1}]}',
    ],
)
def test_a_broken_memory_is_none(machine, text):
    machine.memory_file.parent.mkdir()
    git = machine.tool("git", "echo git version 2.39.5")
    ffmpeg = machine.tool("ffmpeg", "echo ffmpeg version 6.1")
    stamps = [str(probes._stamp(str(file))) for file in (git, ffmpeg)]
    machine.memory_file.write_text(text.replace("STAMP", stamps[0]).replace("FFMPEG", stamps[1]))

    glance = machine.glance()
    assert (glance["gpus"], glance["encoders"]) == ([], [])
    assert machine.examine()["tools"] == {"git": "2.39.5", "ffmpeg": "6.1"}


# The sheet: what was found and what is declared


def sheet(machine: Machine, monkeypatch, **options) -> Sheet:
    monkeypatch.setenv("PATH", str(machine.folder))
    monkeypatch.setenv("HOME", str(machine.home))
    home = machine.folder.parent / "home"
    hosts = options.pop("hosts", {})
    config = Config(home=home, worker=Worker(name="here", **options), hosts=hosts)
    return Sheet(config)


def test_a_sheet_grows_when_tools_come_and_tells_so(machine, monkeypatch):
    own = sheet(machine, monkeypatch)
    told = []
    own.on_change = lambda: told.append(own.revision)
    own.look()
    assert "git" not in own.current()["capabilities"]

    machine.tool("git", "echo git version 2.39.5")
    own.look()

    assert "git" in own.current()["capabilities"]
    assert own.current()["tools"] == {"git": "2.39.5"}
    assert told == [own.revision]


def test_a_sheet_asks_nobody_while_nothing_changed(machine, monkeypatch):
    machine.tool("git", "echo git version 2.39.5")
    machine.tool("docker", "echo 27.1")
    own = sheet(machine, monkeypatch)
    own.look()
    machine.questions()

    own.look()

    assert machine.questions() == []


def test_the_next_worker_knows_at_once_what_this_one_found_out(machine, monkeypatch):
    machine.tool("git", "echo git version 2.39.5")
    sheet(machine, monkeypatch).look()
    machine.questions()

    assert sheet(machine, monkeypatch).current()["tools"] == {"git": "2.39.5"}
    assert machine.questions() == []


def test_a_sheet_has_what_is_declared(machine, monkeypatch):
    machine.tool("git", "echo git version 2.39.5")
    machine.tool("make", "echo GNU Make 4.3")

    facts = sheet(
        machine,
        monkeypatch,
        capabilities=("xcode", "-git"),
        labels=("heavy",),
        aliases=("mac",),
        resources={"disk": 2, "gpu": 0},
        limits={"transcode": 1},
        address="100.64.0.7",
    ).current()

    assert {"xcode", "make", "kind:run_command"} <= set(facts["capabilities"])
    assert "git" not in facts["capabilities"]
    assert (facts["labels"], facts["aliases"]) == (["heavy"], ["mac"])
    assert (facts["resources"], facts["limits"]) == ({"disk": 2}, {"transcode": 1})
    assert (facts["weight"], facts["address"]) == (1.0, "100.64.0.7")


def test_the_entry_of_a_host_says_as_much_as_its_own_keys(machine, monkeypatch):
    entry = Entry(aliases=("mini",), prefer_for=("transcode",), capabilities=("xcode",), weight=3.0)

    facts = sheet(machine, monkeypatch, aliases=("mac",), hosts={"here": entry}).current()

    assert facts["aliases"] == ["mac", "mini"]
    assert "xcode" in facts["capabilities"]
    assert (facts["weight"], facts["prefer_for"]) == (3.0, ["transcode"])


def test_an_own_weight_goes_before_that_of_the_entry(machine, monkeypatch):
    own = sheet(machine, monkeypatch, weight=2.0, hosts={"here": Entry(weight=3.0)})
    own._config = replace(own._config, origins={"worker.weight": "config.yml:3"})

    assert own._composed(machine.glance())["weight"] == 2.0


def test_a_sheet_has_the_size_of_the_machine(machine, monkeypatch):
    facts = sheet(machine, monkeypatch).current()

    assert facts["cpus"] == len(os.sched_getaffinity(0))
    assert facts["memory_bytes"] > 1 << 28
    assert facts["disk_bytes"] > 1 << 28


@pytest.mark.parametrize(
    "url", ["", "redis://127.0.0.1:6379/0", "unix:///tmp/redis.sock", "redis://[::1]:1", "garbage"]
)
def test_a_broker_on_this_machine_tells_no_address(url):
    assert own_address(url) is None
