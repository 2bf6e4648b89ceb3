"""A worker that root starts, and whose jobs run as somebody else (`worker.run_as`).

The worker becomes that user, and with it everything that it starts: fork server, shims, commands,
the steps that move files, git, agents. So the spool, worktrees and caches are that user's, and
nothing is written or read there with more than that user's rights. What a job must not see stays
root's: the fleet's key, the broker's password, the secrets, the audit trail. They lie in root's
home of relayq, of which the user can pass the door and see nothing; the worker opens them by what
privileges.py keeps of root's rights.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
import sys
from pathlib import Path

from relayq import privileges
from relayq.config import KEYS, Config, install_id
from relayq.errors import ConfigError
from relayq.kinds.transcribe import is_hubs

log = logging.getLogger(__name__)

#: What of relayq's home is for jobs, and so their user's.
_THEIRS = ("spool", "cache", "models", "agents", "worktrees")
_THEIR_FILES = ("agents.env",)
#: What they may read: it is no secret.
_OPEN = ("install",)
#: What the worker goes on with; all else is of root's session, and may be a secret of root's.
_STAY = frozenset(
    "PATH LANG LANGUAGE TZ PYTHONPATH NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID".split()
)
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


def lower(config: Config) -> None:
    """Become whom the jobs are to run as, if that is somebody else; ConfigError where it can't."""
    name = config.worker.run_as
    if name is None or privileges.is_lowered():
        return
    account = _account(name)
    if account.pw_uid == 0:
        raise ConfigError(
            "worker.run_as: root, whose jobs could read all that is to be kept from them",
            hint="relayq config set worker.run_as USER",
        )
    if os.geteuid() == account.pw_uid:
        return
    if sys.platform != "linux":
        raise ConfigError(
            f"worker.run_as: only on Linux can a worker of root's run its jobs as {name}",
            hint=f"start the worker as {name}, by UserName in its launchd plist",
        )
    if os.geteuid() != 0:
        raise ConfigError(
            f"worker.run_as: {name}, and only root's worker can run jobs as somebody else",
            hint="sudo -E relayq worker install --system --user root",
        )
    _share(config.home, account)
    privileges.become(account.pw_uid, account.pw_gid, name)
    for variable in [one for one in os.environ if not _may_stay(one)]:
        del os.environ[variable]
    os.environ |= {
        "HOME": account.pw_dir,
        "USER": name,
        "LOGNAME": name,
        "SHELL": account.pw_shell or "/bin/sh",
        # Else it would be looked for in that user's home from here on.
        "RELAYQ_HOME": str(config.home),
    }
    os.chdir("/")
    for path in (config.spool, Path(sys.executable), _PACKAGE_ROOT / "relayq"):
        _check_reach(path, name)
    log.info("jobs run as %s", name)


def _may_stay(variable: str) -> bool:
    """Whether jobs may see a variable of root's, in the processes below this one."""
    if variable.startswith("RELAYQ_"):
        key = variable.removeprefix("RELAYQ_").lower().replace("__", ".")
        return key not in KEYS or not KEYS[key].metadata["secret"]
    return variable in _STAY or variable.startswith("LC_") or is_hubs(variable)


def _account(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"worker.run_as: this machine has no user {name}", hint="relayq config show worker"
        ) from None


def _share(home: Path, account: pwd.struct_passwd) -> None:
    """Give the user what is for jobs, and close everything else to all but root."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    install_id(home)
    held = home.stat()
    if held.st_uid != 0:
        owner = f"worker.run_as: {home} must be root's, and is of user {held.st_uid}"
        raise ConfigError(owner, hint="RELAYQ_HOME=/var/lib/relayq, for a home of root's")
    for entry in os.scandir(home):
        if entry.is_symlink() or entry.name in (*_THEIRS, *_THEIR_FILES):
            continue
        mode = stat.S_IMODE(entry.stat().st_mode)
        closed = mode & 0o700 | (0o044 if entry.name in _OPEN else 0)
        if mode != closed:
            os.chmod(entry.path, closed)
    for name in _THEIRS:
        (home / name).mkdir(mode=0o700, exist_ok=True)
    for name in (*_THEIRS, *_THEIR_FILES):
        if (home / name).exists():
            _give(home / name, account)
    # Last: to pass is all that others can do here.
    os.chmod(home, 0o711)


def _give(path: Path, account: pwd.struct_passwd) -> None:
    """Make a file or a directory, with all in it, the user's.

    What is theirs already isn't looked into: their jobs may be changing it right now.
    """
    held = path.lstat()
    if stat.S_ISLNK(held.st_mode):
        raise ConfigError(f"worker.run_as: {path} is a link", hint=f"rm {path}")
    if held.st_uid == account.pw_uid:
        return
    if held.st_uid != 0 and held.st_mode & 0o077 != 0:
        raise ConfigError(f"worker.run_as: {path} is of user {held.st_uid}", hint=f"rm -r {path}")
    if stat.S_ISDIR(held.st_mode):
        # From below: as long as the top is closed nobody can put a link anywhere in it.
        os.chmod(path, 0o700)
        for root, folders, files, descriptor in os.fwalk(
            path, topdown=False, follow_symlinks=False
        ):
            del root
            for name in (*folders, *files):
                os.chown(
                    name, account.pw_uid, account.pw_gid, dir_fd=descriptor, follow_symlinks=False
                )
    os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _check_reach(path: Path, name: str) -> None:
    """Raise if the user, as whom this process runs by now, can't get there."""
    if os.access(path, os.R_OK | os.X_OK):
        return
    closed = next((one for one in reversed(path.parents) if not os.access(one, os.X_OK)), path)
    raise ConfigError(
        f"worker.run_as: {name} can't get to {path}: {closed} is closed to others",
        hint="install relayq, and put RELAYQ_HOME, where that user may go: /opt, /var/lib",
    )
