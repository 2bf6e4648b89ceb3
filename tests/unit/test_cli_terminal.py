"""What is typed into a job's terminal, and the escape that detaches."""

from __future__ import annotations

from contextlib import suppress

import pytest

from relayq.cli.terminal import Detached, Keys


def typed(*pieces: bytes) -> tuple[bytes, bool]:
    """Return what reaches the job of these pieces, and whether the user detached."""
    left, detached = iter([*pieces, b""]), []
    keys = Keys(lambda: next(left), lambda: detached.append(True))
    passed = b""
    with suppress(Detached):
        while piece := keys.read():
            passed += piece
    return passed, bool(detached)


@pytest.mark.parametrize(
    ("pieces", "passed"),
    [
        ([b"ls ~/x\r"], b"ls ~/x\r"),
        ([b"~"], b""),
        ([b"~x"], b"~x"),
        ([b"~~."], b"~."),
        ([b"a~.\r"], b"a~.\r"),
        ([b"\r~", b"?"], b"\r~?"),
    ],
)
def test_only_the_escape_is_kept_from_the_job(pieces, passed):
    assert typed(*pieces) == (passed, False)


@pytest.mark.parametrize("pieces", [[b"~."], [b"ls\r~.rest"], [b"ls\r", b"~", b"."], [b"\n~."]])
def test_a_tilde_and_a_dot_at_the_beginning_of_a_line_detach(pieces):
    assert typed(*pieces)[1]


def test_a_new_size_is_passed_on_between_keys():
    left = iter([b"a", None, b"b", b""])
    keys = Keys(lambda: next(left), lambda: None)

    assert [keys.read() for _ in range(4)] == [b"a", None, b"b", b""]
