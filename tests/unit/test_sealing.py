"""Sealed texts: they open for one key and one purpose, and show nothing of what is inside."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.errors import BadSignature
from relayq.sealing import Agreement, seal, unseal

KEY = bytes(range(32))


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_what_was_sealed_opens_with_the_same_key_and_purpose(text, purpose):
    assert unseal(KEY, purpose, seal(KEY, purpose, text)) == text


@given(st.data())
def test_one_changed_byte_anywhere_is_found(data):
    sealed = bytearray(seal(KEY, b"join", b"the password of the broker"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(BadSignature):
        unseal(KEY, b"join", bytes(sealed))


@pytest.mark.parametrize("length", [0, 1, 35, 67, 80])
def test_a_cut_text_is_refused(length):
    with pytest.raises(BadSignature):
        unseal(KEY, b"join", seal(KEY, b"join", b"thirteen byte")[:length])


def test_another_key_or_purpose_opens_nothing():
    sealed = seal(KEY, b"join", b"secret")

    for key, purpose in ((KEY[::-1], b"join"), (KEY, b"rotation"), (KEY, b"")):
        with pytest.raises(BadSignature):
            unseal(key, purpose, sealed)


def test_the_same_text_is_never_sealed_the_same_way_and_does_not_show():
    text = b"A" * 4096
    first, second = seal(KEY, b"join", text), seal(KEY, b"join", text)

    assert first != second
    assert b"AAAA" not in first
    # Two texts under one keystream would show their difference.
    assert bytes(a ^ b for a, b in zip(first[36:-32], second[36:-32], strict=True)).count(0) < 64


def test_a_large_text_is_sealed_whole():
    text = os.urandom(1_000_003)

    assert unseal(KEY, b"files", seal(KEY, b"files", text)) == text


def test_a_key_that_could_be_guessed_is_refused():
    with pytest.raises(ValueError, match="seals nothing"):
        seal(b"hunter2", b"join", b"")


def test_two_who_talk_for_the_first_time_agree_on_what_nobody_else_knows():
    one, other, listener = Agreement(), Agreement(), Agreement()

    assert one.agreed(other.public) == other.agreed(one.public)
    assert listener.agreed(one.public) != one.agreed(other.public)


@pytest.mark.parametrize("number", [0, 1, 2**2048 - 1, None])
def test_numbers_that_would_give_the_key_away_are_refused(number):
    from relayq.sealing import _PRIME

    number = _PRIME - 1 if number is None else number
    with pytest.raises(BadSignature):
        Agreement().agreed(f"{number:0512x}")


@pytest.mark.parametrize("text", ["", "12", "-" + "0" * 510 + "5", "g" * 512, "\u0663" * 512])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(BadSignature):
        Agreement().agreed(text)
