"""Where a job's control groups are made, read from what the kernel says."""

from __future__ import annotations

import os

import pytest

from relayq.host import cgroups

V1 = "9:name=systemd:/\n8:pids:/\n4:memory:/machine/4d88\n0::/\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
V2 = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/relayq.service\n"
V2_MOUNTS = "30 24 0:26 / {0} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_version_1_has_a_hierarchy_for_each_controller():
    memory = cgroups.locate("memory", V1, V1_MOUNTS)
    pids = cgroups.locate("pids", V1, V1_MOUNTS)

    assert (memory.version, memory.own) == (1, "/sys/fs/cgroup/memory/machine/4d88")
    assert (pids.version, pids.own) == (1, "/sys/fs/cgroup/pids")


def test_in_a_container_the_mount_shows_a_part_of_the_hierarchy():
    mounts = "35 31 0:32 /docker/a1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"

    place = cgroups.locate("memory", "4:memory:/docker/a1/job\n", mounts)

    assert place.own == "/sys/fs/cgroup/memory/job"


def test_version_2_has_one_hierarchy():
    place = cgroups.locate("memory", V2, V2_MOUNTS.format("/sys/fs/cgroup"))

    assert place.version == 2
    assert place.own.startswith("/sys/fs/cgroup/user.slice/")
    assert place.own.endswith("/relayq.service")


def test_without_a_hierarchy_there_is_no_place():
    assert cgroups.locate("memory", "1:cpu:/\n", "") is None


@pytest.mark.parametrize(("passed_on", "expected"), [("cpu memory pids", "app.slice"), ("", None)])
def test_in_version_2_the_nearest_group_that_passes_the_controller_on_is_taken(
    tmp_path, passed_on, expected
):
    own = tmp_path / "user.slice/app.slice/relayq.service"
    own.mkdir(parents=True)
    for directory in (own, own.parent, own.parent.parent):
        (directory / "cgroup.controllers").write_text("cpu memory pids\n")
        (directory / "cgroup.subtree_control").write_text("\n")
    (own.parent / "cgroup.subtree_control").write_text(passed_on + "\n")
    place = cgroups.Place(2, str(own), str(own))

    if expected is None:
        with pytest.raises(OSError, match="passes memory on"):
            cgroups._delegating(place, "memory")
    else:
        assert os.path.basename(cgroups._delegating(place, "memory")) == expected


def test_a_limit_that_cannot_be_held_is_skipped_with_the_reason(monkeypatch):
    def nowhere(controller):
        raise OSError(f"no {controller} control groups here")

    monkeypatch.setattr(cgroups, "find_place", nowhere)

    group = cgroups.Group("x", {"memory": 1_000_000, "processes": 10})

    assert group.skipped == {
        "memory": "no memory control groups here",
        "processes": "no pids control groups here",
    }
    group.add(os.getpid())
    assert not group.was_out_of_memory()
    assert not group.refused_processes()


def test_a_process_that_cannot_be_added_is_one_whose_limit_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "find_place", lambda _: cgroups.Place(1, str(tmp_path), ""))
    monkeypatch.setattr(cgroups, "_set", lambda *_: None)
    group = cgroups.Group("x", {"processes": 10})

    group.add(os.getpid())  # no file of the kernel's here

    assert group.skipped == {"processes": "No such file or directory"}
    group.remove()
    assert not list(tmp_path.iterdir())


def test_what_the_kernel_counted_is_read_from_either_version(tmp_path, monkeypatch):
    place = cgroups.Place(1, str(tmp_path), "")
    monkeypatch.setattr(cgroups, "find_place", lambda _: place)
    monkeypatch.setattr(cgroups, "_set", lambda *_: None)
    group = cgroups.Group("x", {"memory": 10**8, "processes": 10})
    [made] = tmp_path.iterdir()

    (made / "pids.events").write_text("max 3\n")
    (made / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert group.was_out_of_memory()
    assert group.refused_processes()

    place.version = 2
    assert not group.was_out_of_memory()
    (made / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.was_out_of_memory()


def test_a_sweep_removes_the_groups_of_shims_that_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "find_place", lambda _: cgroups.Place(1, str(tmp_path), ""))
    gone = 2**22 + 1  # above the highest process id
    for name in (f"relayq-{gone}-j.1.u", f"relayq-{os.getpid()}-j.1.u", "somebody-elses"):
        (tmp_path / name).mkdir()

    cgroups.sweep()

    left = {one.name for one in tmp_path.iterdir()}
    assert left == {f"relayq-{os.getpid()}-j.1.u", "somebody-elses"}
