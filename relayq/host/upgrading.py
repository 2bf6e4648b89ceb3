"""Puts another version of relayq in the place of this one, and has this home's programs run it.

Jobs that run go on under their shims meanwhile. What runs this is itself replaced underneath: all
that is needed afterwards is imported before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from relayq import embedded
from relayq.config import Config
from relayq.embedded import managed
from relayq.embedded.processes import is_gone, wait_for
from relayq.errors import RelayqError
from relayq.model.installs import UV, VENV, Install, check_source, commands, read_install
from relayq.model.units import Role
from relayq.version import __version__

#: Downloads on a Raspberry Pi's card may take their time.
_PATIENCE = 1800.0
_STARTED_WITHIN = 60.0
#: What of a failed installation is told.
_TOLD = 12


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What became of an upgrade."""

    before: str
    after: str
    source: str
    restarted: tuple[str, ...]


def install_of(config: Config) -> Install:
    """Return how relayq came to be here, as its installer wrote it down or as it looks."""
    path = config.home / "installed.json"
    try:
        return read_install(path.read_text())
    except FileNotFoundError:
        return _guessed()
    except (OSError, ValueError) as error:
        raise RelayqError(
            f"{path} can't be understood: {error}", hint="run the installer again"
        ) from error


def _guessed() -> Install:
    """Return what can be seen of an installation that nobody wrote down."""
    if sys.prefix == sys.base_prefix or _is_checkout():
        raise RelayqError(
            "no installer put relayq here, so it can't tell how to upgrade it",
            hint="upgrade it as you installed it, then: relayq worker restart",
        )
    if (receipt := _receipt()) is None:
        return Install(VENV, "relayq", (), sys.prefix)
    wanted: list[dict[str, Any]] = receipt.get("requirements", [])
    own = next((one for one in wanted if one.get("name") == "relayq"), {})
    source = own.get("path") or own.get("url") or own.get("directory") or "relayq"
    source = f"git+{own['git']}" if "git" in own else source
    return Install(UV, source, tuple(own.get("extras", ())), UV)


def _receipt() -> dict[str, Any] | None:
    """Return what uv noted of its tool, None where uv didn't install this."""
    try:
        with (Path(sys.prefix) / "uv-receipt.toml").open("rb") as file:
            return dict(tomllib.load(file)["tool"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_checkout() -> bool:
    """Tell whether relayq runs from its sources, which are their owner's."""
    try:
        said = metadata.distribution("relayq").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return True
    with suppress(ValueError, TypeError, AttributeError):
        return bool(json.loads(said or "{}").get("dir_info", {}).get("editable"))
    return False


def planned(install: Install, source: str | None) -> list[list[str]]:
    """Return the commands of an upgrade."""
    source = check_source(source or install.source)
    is_links = os.path.isdir(source) and any(Path(source).glob("relayq-*.whl"))
    if os.path.isabs(source) and not os.path.exists(source):
        raise RelayqError(
            f"{source} isn't on this machine", hint="--source takes what every host can reach"
        )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return commands(install, source, is_links=is_links, python=python)


def upgrade(
    config: Config, install: Install, source: str | None, *, say: Callable[[str], None]
) -> Upgraded:
    """Install, look whether that one runs, and only then restart what runs here."""
    first, *again = planned(install, source)
    _run(first)
    after = _version()
    if after == __version__:
        for argv in again:
            _run(argv)
        after = _version()
    say(f"relayq {after} is here; the worker takes it up")
    restarted = restart(config)
    return Upgraded(__version__, after, source or install.source, tuple(restarted))


def _run(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            env=_environment(),
        )
    except OSError as error:
        raise RelayqError(
            f"{argv[0]} can't be run: {error.strerror}", hint="run the installer again"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise RelayqError(
            f"nothing was restarted: {argv[0]} didn't end within {_PATIENCE / 60:.0f} min",
            hint="relayq worker upgrade --source WHERE takes another source",
        ) from error
    if done.returncode:
        told = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-_TOLD:])
        raise RelayqError(
            f"nothing was restarted: {' '.join(argv)} ended with {done.returncode}\n{told}",
            hint="relayq worker upgrade --source WHERE takes another source",
        )
    return done.stdout


def _environment() -> dict[str, str]:
    """Return our environment without what would have another Python's modules found."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {
        name: text
        for name, text in os.environ.items()
        if name not in left_out and not name.startswith("RELAYQ_")
    }
    if (receipt := _receipt()) is None:
        return kept
    # Where the tool is now, whatever else uv would think of in a service's environment.
    where = {"UV_TOOL_DIR": os.path.dirname(sys.prefix)}
    for entry in receipt.get("entrypoints", ()):
        where["UV_TOOL_BIN_DIR"] = os.path.dirname(entry["install-path"])
    return {**kept, **where}


def _version() -> str:
    """Return the version that is there now; one that doesn't start is never switched to."""
    said = _run([sys.executable, "-P", "-m", "relayq", "version", "--json"])
    try:
        return str(json.loads(said.strip().splitlines()[-1])["relayq"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise RelayqError(
            f"the new relayq doesn't start, so nothing was restarted: {said.strip()[-300:]}",
            hint="relayq worker upgrade --source WHERE takes another source",
        ) from error


def restart(config: Config) -> list[str]:
    """Have the worker and the file service of this home run what is installed now."""
    done = []
    if _restart_service(config, Role.SERVE) or _restart_files(config):
        done.append("serve")
    if _restart_service(config, Role.WORKER) or _restart_worker(config):
        done.append("worker")
    return done


def _restart_service(config: Config, role: Role) -> bool:
    service = managed.installed(config, role)
    if service is None or not managed.state(service).is_up:
        return False
    if service.is_of_machine and os.geteuid() != 0:
        # Only root may say so; but one that ends is started again by itself.
        pid = embedded.worker_pid(config) if role is Role.WORKER else embedded.files_pid(config)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            wait_for(lambda: is_gone(pid), _STARTED_WITHIN)
    else:
        managed.restart(service)
    return True


def _restart_files(config: Config) -> bool:
    if embedded.files_pid(config) is None:
        return False
    embedded.stop_files(config)
    return embedded.start_files(config) is not None


def _restart_worker(config: Config) -> bool:
    """Have a worker in the background become the new one: started by a job it would end with it."""
    pid = embedded.ask_to_renew(config)
    if pid is None:
        return False
    wait_for(lambda: embedded.is_renewed(config), _STARTED_WITHIN)
    return wait_for(lambda: embedded.worker_pid(config) is not None, _STARTED_WITHIN)
