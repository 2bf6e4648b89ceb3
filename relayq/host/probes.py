"""Asks this machine what it has: tools and versions, graphics, encoders, agents.

Every question is bounded in time, and what a tool answered is kept on disk until the tool changes:
asking forty programs for their versions takes seconds. `glance` asks nobody and is for the start.
"""

from __future__ import annotations

import json
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import util as modules
from typing import Any

from relayq import clock
from relayq.agents.adapters import Adapter
from relayq.model import machines
from relayq.model.machines import STUBS, TOOLS, Tool

#: Seconds that one question may take.
PATIENCE = 10.0
_MOST = 200_000
_NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
_DISPLAYS = ("system_profiler", "SPDisplaysDataType", "-json")
#: A Python module that is a capability, if the worker's own Python has it.
_MODULES = {
    "faster_whisper": "transcribe:faster-whisper",
    "pocketsphinx": "transcribe:pocketsphinx",
}


class GivenUp(Exception):
    """The worker ends, and asks nothing any more."""


class _Asking:
    """The programs that are being asked; a worker that ends doesn't leave one behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def begin(self) -> None:
        with self._lock:
            self._is_over = False

    def give_up(self) -> None:
        with self._lock:
            self._is_over = True
            for one in self._asked:
                _end(one)

    @contextmanager
    def started(self, argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:
            if self._is_over:
                raise GivenUp
            # A session of its own: what it leaves behind when it is too slow ends with it.
            asked = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._asked.add(asked)
        try:
            with asked:
                yield asked
        finally:
            with self._lock:
                self._asked.discard(asked)
                if self._is_over:
                    raise GivenUp


_asking = _Asking()
#: For a worker that begins; for one that ends, whose questions raise `GivenUp` from then on.
begin, give_up = _asking.begin, _asking.give_up


def _end(asked: subprocess.Popen[bytes]) -> None:
    # One that was waited for has a pid that may be another's by now.
    if asked.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(asked.pid, signal.SIGKILL)


def ask(argv: Sequence[str], *, patience: float = PATIENCE) -> str | None:
    """Run a program and return what it says; None if it fails, isn't there, or takes too long."""
    try:
        with _asking.started(argv) as asked:
            said = _heard(asked, clock.boottime() + patience)
            if said is None:
                _end(asked)
                return None
    except OSError:
        return None
    return said.decode(errors="replace") if asked.returncode == 0 else None


def _heard(asked: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """Return the beginning of what a program says until it ends; None if that takes too long."""
    assert asked.stdout is not None
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(asked.stdout, selectors.EVENT_READ)
        while (left := deadline - clock.boottime()) > 0:
            if not selector.select(left):
                break
            piece = os.read(asked.stdout.fileno(), 65_536)
            if not piece:
                with suppress(subprocess.TimeoutExpired):
                    asked.wait(max(0.0, deadline - clock.boottime()))
                    return bytes(said)
                break
            # The rest is read as well, or the program would wait for ever; but not kept.
            said += piece[: _MOST - len(said)]
    return None


class Memory:
    """What tools answered, by file, size and time of change; on disk, for the next worker."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._answers: dict[str, Any] = {}
        with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            read = json.load(file)
            self._answers = dict(filter(_is_answer, read.items())) if isinstance(read, dict) else {}
        self._used: dict[str, Any] = {}

    def known(self, question: str, file: str = "") -> Any:
        """Return the last answer to a question, if the file that gave it is still the same."""
        match self._answers.get(question):
            case [stamp, answer] if stamp == _stamp(file):
                pass
            case _:
                return None
        self._used[question] = [stamp, answer]
        return answer

    def keep(self, question: str, answer: Any, file: str = "") -> None:
        """Remember an answer."""
        self._answers[question] = self._used[question] = [_stamp(file), answer]

    def forget(self, question: str) -> None:
        """Forget an answer that isn't true any more."""
        self._answers.pop(question, None)
        self._used.pop(question, None)

    def save(self) -> None:
        """Write down what was asked or used since the last time."""
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        draft = f"{self._path}.{os.getpid()}"
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(self._used, file)
        os.replace(draft, self._path)
        self._answers, self._used = dict(self._used), {}


def _is_answer(entry: tuple[str, Any]) -> bool:
    """Whether something that was read from the disk is as it was written: versions are texts."""
    match entry:
        case [str(question), [list(), str()]]:
            return question.startswith("version of ")
        case ["gpus", [list(), [*cards]]]:
            return all(isinstance(card, dict) and "sort" in card for card in cards)
        case [str(question), [list(), [*names]]]:
            return question.startswith("encoders") and all(isinstance(n, str) for n in names)
    return False


def _stamp(file: str) -> list[int]:
    if not file:
        return []
    try:
        state = os.stat(file)
    except OSError:
        return []
    return [state.st_mtime_ns, state.st_size]


def tools_of(agents: Sequence[Adapter]) -> tuple[Tool, ...]:
    """Return all tools that are looked for, the agents' programs among them."""
    programs = (agent for agent in agents if agent.command)
    return (
        *TOOLS,
        *(Tool(one.name, os.path.expanduser(one.command), one.version_argv) for one in programs),
    )


def programs(path: str, agents: Sequence[Adapter] = ()) -> dict[str, str]:
    """Return where on this PATH each tool is that is there."""
    found = ((tool.name, shutil.which(tool.file, path=path)) for tool in tools_of(agents))
    # By the path that was found, links and all: some programs go by the name they are called by.
    return {name: os.path.abspath(file) for name, file in found if file}


def fingerprint(path: str, agents: Sequence[Adapter] = ()) -> list[Any]:
    """Return what changes when a tool comes, goes or is replaced."""
    return [(name, file, _stamp(file)) for name, file in programs(path, agents).items()]


def machine(home: str) -> dict[str, Any]:
    """Return what the system itself tells, without starting anything."""
    cpuinfo = _text("/proc/cpuinfo")
    disk = os.statvfs(home)
    return {
        "os": sys.platform,
        "arch": machines.architecture(platform.machine()),
        "release": platform.release(),
        "cpus": _cpus(),
        "cpu_model": machines.processor_in(cpuinfo),
        "model": _text("/proc/device-tree/model").strip("\0\n ") or machines.board_in(cpuinfo),
        "memory_bytes": _memory_bytes(),
        "disk_bytes": disk.f_blocks * disk.f_frsize,
        "python": platform.python_version(),
        "hostname": platform.node(),
        "pid": os.getpid(),
    }


def _cpus() -> int:
    # A container may have fewer than its machine.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    """Return the machine's memory, or the smaller limit of the container that this is."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _text("/sys/fs/cgroup/memory.max").strip()
    return min(whole, int(limit)) if limit.isdigit() else whole


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)
    except OSError:
        return ""


def glance(
    memory: Memory, environ: Mapping[str, str], agents: Sequence[Adapter] = ()
) -> dict[str, Any]:
    """Return what is there by the look of it, with what was answered earlier."""
    where = programs(environ.get("PATH", os.defpath), agents)
    versions = {}
    for tool in tools_of(agents):
        if (file := where.get(tool.name)) is None:
            continue
        known = memory.known(f"version of {tool.name}", file)
        if known is not None or not (tool.must_answer or _may_be_stub(tool, file)):
            versions[tool.name] = known or ""
    encoders = (
        memory.known(_encoders_by(render_nodes()), where["ffmpeg"]) if "ffmpeg" in where else None
    )
    return _found(versions, memory.known("gpus") or [], encoders or [])


def examine(
    memory: Memory, environ: Mapping[str, str], agents: Sequence[Adapter] = ()
) -> dict[str, Any]:
    """Ask all that isn't known, one question after the other, and remember the answers."""
    where = programs(environ.get("PATH", os.defpath), agents)
    stubs = sys.platform == "darwin" and ask(("xcode-select", "-p")) is None
    versions = {}
    for tool in tools_of(agents):
        if (file := where.get(tool.name)) is None or (stubs and _may_be_stub(tool, file)):
            continue
        version = _version(tool, file, memory)
        if version is not None:
            versions[tool.name] = version
    gpus = _gpus()
    memory.keep("gpus", gpus)
    encoders = _encoders(where["ffmpeg"], memory) if "ffmpeg" in where else []
    memory.save()
    return _found(versions, gpus, encoders)


def _found(versions: Mapping[str, str], gpus: list[Any], encoders: list[Any]) -> dict[str, Any]:
    return {
        "tools": dict(versions),
        "gpus": gpus,
        "encoders": encoders,
        "modules": [word for name, word in _MODULES.items() if _has_module(name)],
    }


def _has_module(name: str) -> bool:
    return modules.find_spec(name) is not None


def _may_be_stub(tool: Tool, file: str) -> bool:
    return sys.platform == "darwin" and tool.name in STUBS and file.startswith("/usr/bin/")


def _version(tool: Tool, file: str, memory: Memory) -> str | None:
    """Return a tool's version, empty if it has none to tell; None if it doesn't count."""
    question = f"version of {tool.name}"
    if not tool.asks:
        return ""
    # A daemon comes and goes without its client's file changing.
    if not tool.must_answer and (known := memory.known(question, file)) is not None:
        return str(known)
    said = ask([file, *tool.asks])
    if said is None and tool.must_answer:
        memory.forget(question)
        return None
    version = machines.version_in(said or "")
    memory.keep(question, version, file)
    return version


def _gpus() -> list[dict[str, Any]]:
    """Return the graphics of this machine, each with its sort: cuda, metal or vaapi."""
    cards = [{"sort": "cuda", **card} for card in machines.nvidia_in(ask(_NVIDIA) or "")]
    if sys.platform == "darwin":
        shown = machines.displays_in(ask(_DISPLAYS) or "")
        cards += [{"sort": "metal", **card} for card in shown if card.pop("metal")]
    elif not cards:
        cards += [{"sort": "vaapi", "name": node} for node in render_nodes()]
    return cards


def render_nodes(folder: str = "/dev/dri") -> list[str]:
    """Return the devices by which Linux encodes video, those that this user may use."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    paths = [os.path.join(folder, name) for name in names if name.startswith("renderD")]
    return [path for path in paths if os.access(path, os.R_OK | os.W_OK)]


def _encoders(ffmpeg: str, memory: Memory) -> list[str]:
    """Return the encoders of note that this ffmpeg has, those of hardware only if they encode."""
    nodes = render_nodes()
    if (known := memory.known(_encoders_by(nodes), ffmpeg)) is not None:
        return list(known)
    software, hardware = machines.encoders_in(ask((ffmpeg, "-hide_banner", "-encoders")) or "")
    encoders = list(software)
    for name in hardware:
        if name.endswith(("_vaapi", "_qsv")) and not nodes:
            continue
        trial = machines.trial_of(name, *nodes[:1])
        if ask((ffmpeg, *trial)) is not None:
            encoders.append(name)
    memory.keep(_encoders_by(nodes), encoders, ffmpeg)
    return encoders


def _encoders_by(nodes: Sequence[str]) -> str:
    return " ".join(("encoders", *nodes))


def agents_in(
    tools: Mapping[str, str],
    agents: Sequence[Adapter],
    *,
    home: str,
    keys: Collection[str] = (),
    named: Collection[str] = (),
    system: str = sys.platform,
) -> dict[str, Any]:
    """Return of each agent its version, and whether it is logged in as far as a file tells.

    `keys` are the names of the keys that this host has for agents, `named` the agents that its
    configuration names: of any other one without a login somebody else's program may have the name.
    """
    found: dict[str, Any] = {}
    for agent in agents:
        if agent.name not in tools:
            continue
        logged_in: bool | None = None
        if not set(agent.credentials).isdisjoint(keys) or any(
            os.path.exists(file.replace("~", home, 1)) for file in agent.login_files
        ):
            logged_in = True
        elif agent.login_files and not (agent.keychain and system == "darwin"):
            logged_in = False
        elif not agent.keychain and agent.name not in named:
            continue
        version = tools[agent.name]
        found[agent.name] = {"version": version, "logged_in": logged_in}
        if machines.is_older(version, agent.min_version):
            found[agent.name]["too_old"] = agent.min_version
    return found
