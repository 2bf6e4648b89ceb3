"""Expressions that are worked out as far as something is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.model.expressions import ExpressionError, Literal, parse
from relayq.model.folding import expressions_in, fold, fold_all, fold_text, is_whole, written

KNOWN = {"inputs": {"n": 3, "name": "it's", "list": [1, "a"]}, "matrix": {"os": "linux"}}
LATE = {"steps": {"a": {"outputs": {"v": "7", "t": True}, "stdout": "x y"}}}


def folded(text: str) -> str:
    return fold(parse(text), KNOWN).text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("inputs.n", "3"),
        ("inputs.name", "'it''s'"),
        ("inputs.list", "fromJSON('[1, \"a\"]')"),
        ("inputs.nothing", "null"),
        ("inputs.n == 3 && steps.a.stdout", "steps.a.stdout"),
        ("inputs.n == 4 && steps.a.stdout", "false"),
        ("matrix.os || failure()", "'linux'"),
        ("steps.a.outputs[matrix.os]", "steps.a.outputs.linux"),
        ("steps.a.outputs['with space']", "steps.a.outputs['with space']"),
        ("(steps.a || matrix.os) && always()", "(steps.a || 'linux') && always()"),
        ("!(steps.a == inputs.n)", "!(steps.a == 3)"),
        ("format('{0}-{1}', matrix.os, steps.a)", "format('{0}-{1}', 'linux', steps.a)"),
        ("contains(inputs.list, 'a')", "true"),
        ("fromJSON(steps.a)[inputs.n].x", "fromJSON(steps.a)[3].x"),
        ("steps.*.result", "steps.*.result"),
        ("steps.a == (steps.b == inputs.n)", "steps.a == (steps.b == 3)"),
    ],
)
def test_what_is_known_is_filled_in_and_the_rest_stays_an_expression(text, left):
    assert folded(text) == left


def test_what_nobody_may_come_to_is_left_for_who_does():
    assert "fromJSON('{')" in folded("steps.a && fromJSON('{')")


ATOMS = st.sampled_from(
    ["inputs.n", "matrix.os", "steps.a.outputs.v", "steps.a.outputs['t']", "1", "'q'''", "null"]
)
TEXTS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("== != < <= && ||".split()), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        inner.map(lambda text: f"!{text}" if text[0] == "(" else f"!({text})"),
        inner.map(lambda text: f"format('{{0}}!', {text})"),
        inner.map(lambda text: f"fromJSON(toJSON({text})).v"),
    ),
    max_leaves=8,
)


@given(TEXTS)
def test_folding_first_comes_to_the_same_as_knowing_all_at_once(text):
    whole = parse(text).evaluate({**KNOWN, **LATE})

    assert parse(folded(text)).evaluate({**KNOWN, **LATE}) == whole
    assert parse(written(parse(text).node)).evaluate({**KNOWN, **LATE}) == whole


@given(TEXTS)
def test_with_everything_known_nothing_is_left(text):
    assert isinstance(fold(parse(text), {**KNOWN, **LATE}).node, Literal)


def test_texts_are_filled_in_and_one_expression_keeps_its_value():
    assert fold_text("v${{ inputs.n }} on ${{ matrix.os }}", KNOWN) == "v3 on linux"
    assert fold_text("${{ inputs.list }}", KNOWN) == [1, "a"]
    assert fold_text("a ${{ steps.a }} ${{ inputs.n }}", KNOWN) == "a ${{ steps.a }} 3"
    assert fold_all({"k": ["${{ inputs.n }}", 5]}, KNOWN) == {"k": [3, 5]}


def test_what_was_filled_in_is_never_read_as_an_expression():
    known = {"inputs": {"evil": "${{ steps.secret.stdout }}"}}

    left = fold_text("x ${{ inputs.evil }}", known)
    alone = fold_text("${{ inputs.evil }}", known)

    for text in (left, alone):
        [expression] = expressions_in(text)
        assert not [path for path in expression.paths() if path[0] == "steps"]
        assert expression.evaluate({}) == known["inputs"]["evil"]


def test_a_text_of_nothing_but_one_expression_is_told_from_others():
    assert is_whole("${{ a }}")
    assert not is_whole(" ${{ a }}")
    assert not is_whole("a")
    with pytest.raises(ExpressionError):
        is_whole("${{ a")
