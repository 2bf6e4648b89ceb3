"""What logind says before this machine sleeps or halts: lines as its programs printed them."""

from __future__ import annotations

import pytest

from relayq.host.bedtime import Bedtime, Notices, listening_argv
from tests.waiting import until

GDBUS = """\
Monitoring signals on object /org/freedesktop/login1 owned by org.freedesktop.login1
The name org.freedesktop.login1 is owned by :1.0
/org/freedesktop/login1: org.freedesktop.login1.Manager.SessionNew ('3', objectpath '/org/x')
/org/freedesktop/login1: org.freedesktop.login1.Manager.PrepareForSleep (true,)
/org/freedesktop/login1: org.freedesktop.login1.Manager.PrepareForSleep (false,)
/org/freedesktop/login1: org.freedesktop.login1.Manager.PrepareForShutdown (true,)
"""
_FROM = "sender=:1.0 -> destination=(null destination)"
_PATH = "path=/org/freedesktop/login1; interface=org.freedesktop.login1.Manager"
DBUS_MONITOR = f"""\
signal time=1795272153.776869 sender=org.freedesktop.DBus -> destination=:1.2 serial=2 \
path=/org/freedesktop/DBus; interface=org.freedesktop.DBus; member=NameAcquired
   string ":1.2"
signal time=1795272154.779232 {_FROM} serial=7 {_PATH}; member=SessionNew
   string "3"
   object path "/org/freedesktop/login1/session/_33"
signal time=1795272154.779251 {_FROM} serial=8 {_PATH}; member=PrepareForSleep
   boolean true
signal time=1795272154.981142 {_FROM} serial=9 {_PATH}; member=PrepareForSleep
   boolean false
signal time=1795272155.182024 {_FROM} serial=10 {_PATH}; member=PrepareForShutdown
   boolean true
"""
BUSCTL = """\
Monitoring bus message stream.
‣ Type=signal  Endian=l  Flags=0  Version=1 Cookie=11  Timestamp="Sat 2026-11-21 14:42:36 UTC"
  Sender=:1.0  Path=/org/freedesktop/login1  Interface=org.freedesktop.login1.Manager  \
Member=SessionNew
  UniqueName=:1.0
  MESSAGE "so" {
          STRING "3";
          OBJECT_PATH "/org/freedesktop/login1/session/_33";
  };

‣ Type=signal  Endian=l  Flags=0  Version=1 Cookie=12  Timestamp="Sat 2026-11-21 14:42:36 UTC"
  Sender=:1.0  Path=/org/freedesktop/login1  Interface=org.freedesktop.login1.Manager  \
Member=PrepareForSleep
  UniqueName=:1.0
  MESSAGE "b" {
          BOOLEAN true;
  };

‣ Type=signal  Endian=l  Flags=0  Version=1 Cookie=13  Timestamp="Sat 2026-11-21 14:42:37 UTC"
  Sender=:1.0  Path=/org/freedesktop/login1  Interface=org.freedesktop.login1.Manager  \
Member=PrepareForSleep
  UniqueName=:1.0
  MESSAGE "b" {
          BOOLEAN false;
  };

‣ Type=signal  Endian=l  Flags=0  Version=1 Cookie=14  Timestamp="Sat 2026-11-21 14:42:37 UTC"
  Sender=:1.0  Path=/org/freedesktop/login1  Interface=org.freedesktop.login1.Manager  \
Member=PrepareForShutdown
  UniqueName=:1.0
  MESSAGE "b" {
          BOOLEAN true;
  };
"""


def said(text: str) -> list[tuple[str, bool]]:
    notices = Notices()
    return [notice for line in text.splitlines() if (notice := notices.read(line))]


@pytest.mark.parametrize("text", [GDBUS, DBUS_MONITOR, BUSCTL])
def test_each_program_tells_when_the_machine_sleeps_wakes_and_halts(text):
    assert said(text) == [("Sleep", True), ("Sleep", False), ("Shutdown", True)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "true",
        "/org/freedesktop/login1: org.freedesktop.login1.Manager.UserNew ('PrepareForSleep true',)",
        DBUS_MONITOR.replace("login1.Manager", "login2.Manager"),
        f"signal {_FROM} {_PATH}; member=PrepareForSleep\nsignal another\n   boolean true",
    ],
)
def test_nothing_else_means_that_it_sleeps(text):
    assert said(text) == []


def test_what_is_there_listens():
    def only(*there: str):
        return lambda name: f"/usr/bin/{name}" if name in there else None

    assert listening_argv("linux", only("gdbus", "busctl")) == [
        "/usr/bin/gdbus",
        "monitor",
        "--system",
        "--dest",
        "org.freedesktop.login1",
        "--object-path",
        "/org/freedesktop/login1",
    ]
    monitor = listening_argv("linux", only("dbus-monitor", "busctl"))
    assert monitor[:2] == ["/usr/bin/dbus-monitor", "--system"]
    # Anybody may send such a signal; only logind's is meant.
    assert "sender='org.freedesktop.login1'" in monitor[2]
    assert listening_argv("linux", only("busctl"))[:2] == ["/usr/bin/busctl", "monitor"]
    assert listening_argv("linux", only()) is None
    assert listening_argv("darwin", only("gdbus")) is None


class Told:
    """A Bedtime whose programs are shell lines; `heard` are its reasons at each change."""

    def __init__(self, listen: str, delay: str = "cat") -> None:
        self.heard: list[str] = []
        self.bedtime = Bedtime(
            lambda: self.heard.append(self.bedtime.reason),
            listen=["sh", "-c", listen],
            delay=["sh", "-c", delay],
        )
        self.bedtime.listen()


@pytest.fixture
def says(tmp_path):
    """A file whose lines are said as they come."""
    file = tmp_path / "says"
    file.touch()
    return file


def test_a_machine_that_wakes_goes_on(says):
    told = Told(f"tail -n +1 -f {says}")
    lines = GDBUS.splitlines(keepends=True)

    says.write_text("".join(lines[:4]))
    until(lambda: told.heard == ["the machine goes to sleep"], what="its bedtime")
    with says.open("a") as file:
        file.write(lines[4])
    until(lambda: told.heard[1:] == [""], what="its morning")
    told.bedtime.close()


def test_sleep_is_delayed_until_the_fleet_knows_and_again_after_waking(says, tmp_path):
    held = tmp_path / "held"
    told = Told(f"tail -n +1 -f {says}", f"echo > {held}; cat; rm {held}")
    lines = GDBUS.splitlines(keepends=True)
    until(held.exists, what="the delay")

    says.write_text(lines[3])
    until(lambda: told.heard, what="its bedtime")
    told.bedtime.told("")
    assert held.exists()
    told.bedtime.told(told.bedtime.reason)
    assert not held.exists()

    with says.open("a") as file:
        file.write(lines[4])
    until(held.exists, what="the delay of the next sleep")
    told.bedtime.close()
    assert not held.exists()


def test_a_fleet_that_doesnt_answer_delays_sleep_for_a_moment_only(says, tmp_path, monkeypatch):
    held = tmp_path / "held"
    told = Told(f"tail -n +1 -f {says}", f"echo > {held}; cat; rm {held}")
    says.write_text(GDBUS)
    until(lambda: told.bedtime.reason == "the machine shuts down", what="its bedtime")
    until(held.exists, what="the delay")

    told.bedtime.look()
    assert held.exists()
    monkeypatch.setattr("relayq.host.bedtime._GOOD_NIGHT", 0.0)
    told.bedtime.look()

    assert not held.exists()
    assert told.bedtime.reason
    told.bedtime.close()


def test_a_sleep_that_never_comes_is_forgotten(says, monkeypatch):
    told = Told(f"tail -n +1 -f {says}")
    says.write_text(GDBUS)
    until(lambda: told.bedtime.reason == "the machine shuts down", what="its bedtime")

    told.bedtime.look()
    assert told.bedtime.reason
    monkeypatch.setattr("relayq.host.bedtime._LONGEST", 0.0)
    told.bedtime.look()

    assert told.bedtime.reason == ""
    told.bedtime.close()


def test_a_machine_without_logind_sleeps_when_it_likes(caplog):
    caplog.set_level("DEBUG")
    told = Told("exit 1", "exit 1")

    until(lambda: "nothing here tells when" in caplog.text, what="a remark")

    assert told.heard == []
    assert len(caplog.records) == 1
    told.bedtime.close()


def test_what_listened_ends_with_the_worker(tmp_path):
    alive = tmp_path / "alive"
    told = Told(f"trap 'rm {alive}; exit' TERM; touch {alive}; while :; do sleep 0.05; done")
    until(alive.exists, what="it to listen")

    told.bedtime.close()

    until(lambda: not alive.exists(), what="it to end")
