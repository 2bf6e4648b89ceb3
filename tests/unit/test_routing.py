"""Where described work is proposed to go, and what speaks against that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.model.hosts import Host
from relayq.model.routing import Wishes, agents_of, objections, propose


def host(name: str, *capabilities: str, active: int = 0, online: bool = True, **facts) -> Host:
    return Host(
        name,
        "install",
        "boot",
        slots=2,
        seen_at=0.0,
        is_online=online,
        active=active,
        facts={"capabilities": list(capabilities), **facts},
    )


MINI = host("mini", "ffmpeg", "agent:claude", "agent:codex", "macos", aliases=["mac"])
BOX = host("box", "agent:ollama", "agent:claude", active=1)
PI = host("pi4", "raspberry-pi")
HOSTS = [MINI, BOX, PI]
ANY = Wishes()


@pytest.mark.parametrize(
    ("description", "wishes", "sort", "name", "agent"),
    [
        ("transcode the video", ANY, "agent", "mini", "claude"),
        ("refactor the payment service", ANY, "agent", "mini", "claude"),
        ("on mac: refactor it", ANY, "agent", "mini", "claude"),
        ("read the GPIO pins on pi4", ANY, "agent", "pi4", "claude"),
        ("have codex fix the tests", ANY, "agent", "mini", "codex"),
        ("refactor it", Wishes(default_agent="ollama"), "agent", "box", "ollama"),
        ("refactor it", Wishes(agents=("ollama",)), "agent", "box", "ollama"),
        ("refactor it", Wishes(hosts=("box",)), "agent", "box", "claude"),
        ("refactor it", Wishes(host="box"), "agent", "box", "claude"),
        ("refactor it", Wishes(agent="codex"), "agent", "mini", "codex"),
        ("run `df -h` on pi4", ANY, "command", "pi4", ""),
        ("df -h", Wishes(agent="none"), "command", "mini", ""),
        ("explain what `df -h` does", ANY, "agent", "mini", "claude"),
    ],
)
def test_the_rules_choose_by_names_needs_agents_and_load(description, wishes, sort, name, agent):
    found = propose(description, HOSTS, wishes)

    assert (found.sort, found.host, found.agent) == (sort, name, agent)


def test_a_quoted_command_is_taken_as_it_stands():
    assert propose("run `df -h | tail` on pi4", HOSTS, ANY).command == "df -h | tail"


@pytest.mark.parametrize(
    ("description", "permission"),
    [
        ("explain how the login works", "read_only"),
        ("review the diff", "read_only"),
        ("review the diff and fix what is wrong", ""),
        ("make it faster", ""),
    ],
)
def test_work_that_only_reads_may_only_read(description, permission):
    assert propose(description, HOSTS, ANY).permission == permission


def test_rules_that_only_know_who_is_free_arent_sure():
    assert not propose("make it faster", HOSTS, ANY).is_sure
    assert propose("transcode the video", HOSTS, ANY).is_sure
    assert propose("make it faster on box", HOSTS, ANY).is_sure


def test_a_capability_that_the_host_lacks_forbids_it_and_says_who_has_it():
    found = propose("transcode the video", HOSTS, Wishes(host="box"))

    blocks, _ = objections(found, HOSTS, ["claude"])

    assert blocks == ["box lacks ffmpeg; mini has it"]


def test_a_capability_that_nobody_has_forbids_it():
    blocks, _ = objections(propose("build the ios app", HOSTS, ANY), HOSTS, ["claude"])

    assert blocks == ["the fleet lacks xcodebuild; no host has it"]


def test_an_unknown_host_forbids_it():
    blocks, _ = objections(propose("x", HOSTS, Wishes(host="vax")), HOSTS, ["claude"])

    assert blocks == ["no such host: vax (known hosts: mini, box, pi4)"]


def test_an_agent_that_the_host_doesnt_list_and_a_host_that_is_away_are_warnings():
    away = replace(PI, is_online=False)

    blocks, warnings = objections(propose("x", [away], Wishes(host="pi4")), [away], ["claude"])

    assert not blocks
    assert warnings == [
        "pi4 doesn't list claude as logged in",
        "pi4 is offline; the job would wait",
    ]


def test_the_best_known_agents_come_first():
    assert agents_of(host("x", "agent:groq", "agent:codex", "agent:claude")) == [
        "claude",
        "codex",
        "groq",
    ]
