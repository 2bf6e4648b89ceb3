"""Runs of analyses in Redis: found by their ids, gone after a month, signed as a whole."""

from __future__ import annotations

import pytest

from relayq.errors import AmbiguousId, BadSignature, NoSuchAnalysis
from relayq.signing import Signer

DAY = 86_400.0


def test_a_run_is_found_by_a_beginning_that_only_it_has(store):
    store.analyses.keep("aa11", b"one", created_at=1.0)
    store.analyses.keep("aa22", b"two", created_at=2.0)

    assert store.analyses.find("aa2") == "aa22"
    assert store.analyses.fetch("aa22") == b"two"
    assert store.analyses.newest(5) == ["aa22", "aa11"]
    with pytest.raises(AmbiguousId):
        store.analyses.find("aa")
    for unknown in ("b", ""):
        with pytest.raises(NoSuchAnalysis):
            store.analyses.find(unknown)


def test_a_run_is_forgotten_after_a_month_or_when_nothing_was_queued_of_it(store):
    store.analyses.keep("aa11", b"one", created_at=0.0)
    store.analyses.keep("aa22", b"two", created_at=31 * DAY)
    store.analyses.keep("aa33", b"three", created_at=31 * DAY)
    store.analyses.forget("aa33")

    assert store.analyses.newest(5) == ["aa22"]
    assert store.analyses.fetch("aa33") is None
    assert 0 < store.connection.ttl(store.keys("analysis", "aa22")) <= 30 * DAY


def test_what_was_found_in_many_files_is_there_for_the_next_run(store):
    found = {f"key{number}": str(number).encode() for number in range(1200)}

    store.analyses.remember(found)

    assert store.analyses.found([*found, "another"]) == found
    assert 0 < store.connection.ttl(store.keys("analysed", "key7")) <= 30 * DAY


def test_what_is_kept_under_one_name_cannot_be_passed_off_as_another_one():
    signer = Signer(b"k" * 32)
    signed = signer.sign_note("analysed:a", b"[]")

    assert signer.check_note(signed, name="analysed:a") == b"[]"
    for wrong in (signed.replace(b"[]", b"{}"), signed[:-1], b"", b"a b c"):
        with pytest.raises(BadSignature):
            signer.check_note(wrong, name="analysed:a")
    with pytest.raises(BadSignature):
        signer.check_note(signed, name="analysed:b")
