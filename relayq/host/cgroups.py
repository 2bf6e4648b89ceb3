"""A job's memory and its number of processes, limited by a control group where the system has them.

Standard library only: the shim imports this module, and only for a job with such a limit. Version 1
takes one hierarchy for each controller, version 2 one for all. Without the right to make a group
nothing is limited, and the reason is told.

In version 2 a process can't be in a group whose children have controllers. So a job's group is made
in the nearest group above the worker's whose children have the controllers already: as systemd
sets up the slices of users and of services.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from relayq.host import tree

#: What each limit needs.
CONTROLLERS = {"memory": "memory", "processes": "pids"}
_PREFIX = "relayq-"
# Two reasons must fit into an exit record.
_LONGEST_REASON = 160


class Place:
    """Where a controller's groups can be made, and the group that this process is in."""

    def __init__(self, version: int, parent: str, own: str) -> None:
        self.version = version
        self.parent = parent
        self.own = own


class Group:
    """The control groups of one job; `skipped` says of each limit that isn't held, why.

    Its name begins with the id of this process, by which `sweep` knows whether it is in use.
    """

    def __init__(self, name: str, limits: dict[str, int]) -> None:
        self.skipped: dict[str, str] = {}
        self._made: dict[str, tuple[Place, str]] = {}
        for limit, value in limits.items():
            try:
                place = find_place(CONTROLLERS[limit])
                directory = os.path.join(place.parent, f"{_PREFIX}{os.getpid()}-{name}")
                with suppress(FileExistsError):
                    os.mkdir(directory)
                self._made[limit] = (place, directory)
                _set(place.version, directory, limit, value)
            except OSError as error:
                self._skip(limit, error)

    def add(self, pid: int) -> None:
        """Put a process into the group, and so all that it will start."""
        for limit, (_, directory) in self._made.items():
            if limit not in self.skipped:
                try:
                    _write(os.path.join(directory, "cgroup.procs"), str(pid))
                except OSError as error:
                    self._skip(limit, error)

    def was_out_of_memory(self) -> bool:
        """Tell whether the kernel ended one of its processes for want of memory."""
        place, directory = self._made.get("memory", (None, ""))
        if place is None:
            return False
        name = "memory.oom_control" if place.version == 1 else "memory.events"
        return _count(os.path.join(directory, name), "oom_kill") > 0

    def refused_processes(self) -> bool:
        """Tell whether a process couldn't be started because there were too many."""
        _, directory = self._made.get("processes", (None, ""))
        return bool(directory) and _count(os.path.join(directory, "pids.events"), "max") > 0

    def remove(self) -> None:
        """Remove the groups; one with a process left stays."""
        for _, directory in self._made.values():
            with suppress(OSError):
                os.rmdir(directory)

    def _skip(self, limit: str, error: OSError) -> None:
        self.skipped[limit] = f"{error.strerror or error}"[:_LONGEST_REASON]


def sweep() -> None:
    """Remove the empty groups that shims left which were killed."""
    for controller in CONTROLLERS.values():
        with suppress(OSError):
            parent = find_place(controller).parent
            for name in os.listdir(parent):
                if name.startswith(_PREFIX) and not _is_in_use(name):
                    with suppress(OSError):
                        os.rmdir(os.path.join(parent, name))


def _is_in_use(name: str) -> bool:
    """Whether the process that made a group still lives: it may be about to fill or read it."""
    pid = name.removeprefix(_PREFIX).partition("-")[0]
    maker = tree.process(int(pid)) if pid.isdigit() else None
    return maker is not None and maker.state != "Z"


def find_place(controller: str) -> Place:
    """Return where this process may make groups of a controller; an OSError says why nowhere."""
    if sys.platform != "linux":
        raise OSError("only Linux has control groups")
    with open("/proc/self/cgroup") as file:
        memberships = file.read()
    with open("/proc/self/mountinfo") as file:
        mounts = file.read()
    place = locate(controller, memberships, mounts)
    if place is None:
        raise OSError(f"no {controller} control groups here")
    if place.version == 2:
        place.parent = _delegating(place, controller)
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise OSError(f"no right to make control groups in {place.parent}")
    return place


def locate(controller: str, memberships: str, mounts: str) -> Place | None:
    """Return this process's group for a controller, from the texts of /proc.

    `memberships` is /proc/self/cgroup (cgroups(7)), `mounts` /proc/self/mountinfo (proc(5)).
    """
    paths = {}
    for line in memberships.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    unified = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split(" ")[3:5]
        kind, _, options = after.split(" ")[:3]
        if kind == "cgroup" and controller in options.split(",") and controller in paths:
            own = _below(paths[controller], root, point)
            return Place(1, own, own)
        if kind == "cgroup2" and "" in paths:
            own = _below(paths[""], root, point)
            unified = Place(2, own, own)
    return unified


def _below(path: str, root: str, point: str) -> str:
    """Return where a group of that path is seen, under a mount of `root` at `point`."""
    if root != "/" and path.startswith(root):
        path = path[len(root) :]
    return os.path.normpath(point + "/" + path)


def _delegating(place: Place, controller: str) -> str:
    directory = place.own
    while os.path.exists(os.path.join(directory, "cgroup.controllers")):
        with suppress(OSError), open(os.path.join(directory, "cgroup.subtree_control")) as file:
            if controller in file.read().split():
                return directory
        directory = os.path.dirname(directory)
    raise OSError(f"no control group above this one passes {controller} on")


def _set(version: int, directory: str, limit: str, value: int) -> None:
    if limit == "processes":
        _write(os.path.join(directory, "pids.max"), str(value))
    elif version == 1:
        _write(os.path.join(directory, "memory.limit_in_bytes"), str(value))
        # Without it a job that is out of memory goes on in the swap. Not all kernels count it.
        with suppress(FileNotFoundError):
            _write(os.path.join(directory, "memory.memsw.limit_in_bytes"), str(value))
    else:
        _write(os.path.join(directory, "memory.max"), str(value))
        with suppress(FileNotFoundError):
            _write(os.path.join(directory, "memory.swap.max"), "0")
        with suppress(FileNotFoundError):
            _write(os.path.join(directory, "memory.oom.group"), "1")


def _write(path: str, text: str) -> None:
    # Never makes a file: cgroupfs would say EACCES or EPERM for one that the kernel doesn't have.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _count(path: str, name: str) -> int:
    """Return a counter of a file of "name number" lines, 0 where it isn't."""
    with suppress(OSError), open(path) as file:
        for line in file:
            found, _, number = line.partition(" ")
            if found == name:
                return int(number)
    return 0
