"""The expressions of workflows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.model import templates
from relayq.model.expressions import ExpressionError, is_true, parse, text_of

NAMES = {
    "steps": {
        "build": {
            "outputs": {"version": "1.2", "count": 3},
            "stdout": "a\nb",
            "state": "succeeded",
            "result": [{"id": 1}, {"id": 2}],
        },
        "test-all": {"state": "failed", "exit_code": 2},
    },
    "matrix": {"os": "linux"},
    "item": "x.mov",
}


def value(text: str):
    return parse(text).evaluate(NAMES, {"failure": lambda: True})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("-2.5e1", -25.0),
        ("0xff", 255),
        ("'it''s'", "it's"),
        ("true", True),
        ("null", None),
        ("steps.build.outputs.version", "1.2"),
        ("steps['test-all'].exit_code", 2),
        ("steps.test-all.exit_code", 2),
        ("steps.build.result[1].id", 2),
        ("steps.build.result.*.id", [1, 2]),
        ("steps.build.result[9].id", None),
        ("steps.build.nothing.at.all", None),
        ("lines(steps.build.stdout)[1]", "b"),
        ("1 == '1'", True),
        ("'Linux' == matrix.os", True),
        ("null == ''", True),
        ("null == 0", True),
        ("2 < 10", True),
        ("'2' < '10'", False),
        ("3 >= 3 && 2 <= 1", False),
        ("1 < 2 == true", True),
        ("false || 'x'", "x"),
        ("'' && failure()", ""),
        ("!failure() || !false", True),
        ("!(1 == 1)", False),
        ("(1 == 2 || 2 == 2) && 'yes'", "yes"),
        ("contains('Hello', 'ell')", True),
        ("contains(fromJSON('[1,\"a\"]'), 'A')", True),
        ("startsWith('Hello', 'he') && endsWith('Hello', 'LO')", True),
        ("format('{0}-{1} {{}}', 'a', 2)", "a-2 {}"),
        ("join(fromJSON('[1,2]'), '+')", "1+2"),
        ("fromJSON('{\"a\": [1]}').a[0]", 1),
        ("toJSON('a')", '"a"'),
        ("failure()", True),
    ],
)
def test_an_expression_comes_to_what_github_says(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("", 0, "something is missing"),
        ("1 +", 2, "'+' isn't expected"),
        ("(1", 2, "')' is expected"),
        ("steps.", 6, "a name is expected"),
        ("'open", 0, "has no end"),
        ('"double"', 0, "single quotes"),
        ("1 2", 2, "isn't expected"),
        ("a[1", 3, "']' is expected"),
        ("f(1,", 4, "something is missing"),
        ("1 = 1", 2, "isn't expected"),
        ("(" * 200 + "1" + ")" * 200, 0, "nested deeper"),
        ("!" * 200 + "1", 0, "nested deeper"),
    ],
)
def test_what_can_not_be_read_is_an_error_with_its_column(text, column, said):
    with pytest.raises(ExpressionError) as caught:
        parse(text)

    assert said in caught.value.message
    assert caught.value.column == column


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("1 == nobody.x", 5, "no such name: nobody; there is item, matrix, steps"),
        ("true && launch()", 8, "no such function: launch"),
        ("contains('a')", 0, "contains doesn't take 1 arguments"),
        ("fromJSON('{')", 0, "that is no JSON"),
        ("format('{1}', 'a')", 0, "no value for '{1}'"),
    ],
)
def test_what_can_not_be_worked_out_is_an_error_with_its_column(text, column, said):
    with pytest.raises(ExpressionError) as caught:
        value(text)

    assert said in caught.value.message
    assert caught.value.column == column


def test_only_what_is_needed_is_worked_out():
    assert value("true || launch()") is True
    assert value("false && launch()") is False


def test_the_steps_that_an_expression_uses_are_known_before():
    used = set(parse("steps.build.outputs[steps.test.stdout] == matrix.os").paths())

    assert used == {("steps", "build", "outputs"), ("steps", "test", "stdout"), ("matrix", "os")}
    assert parse("failure() || f(always())").calls() == {"||", "failure", "f", "always"}


def test_a_text_grows_to_a_limit_only():
    long = "x" * 2**19
    with pytest.raises(ExpressionError, match="makes more than 1 MiB"):
        parse("format('{0}{0}{0}', a)").evaluate({"a": long})


@pytest.mark.parametrize("nothing", [None, False, 0, 0.0, "", math.nan])
def test_nothing_is_not_true(nothing):
    assert not is_true(nothing)


@pytest.mark.parametrize("something", [True, 1, -1, "0", "false", [], {}])
def test_all_else_is_true(something):
    assert is_true(something)


def test_values_within_a_text():
    assert [text_of(one) for one in (None, True, 3.0, 2.5, [1], {"a": "ü"})] == [
        "",
        "true",
        "3",
        "2.5",
        "[1]",
        '{"a": "ü"}',
    ]


def column_of_error(call):
    try:
        call()
    except ExpressionError as error:
        return error.column
    return None


@given(st.text())
def test_whatever_is_written_is_a_value_or_an_error(text):
    column = column_of_error(lambda: parse(text))

    assert column is None or 0 <= column <= len(text)


@given(st.text(alphabet="stepbuild.[]()'!&|<>=1 *,{}$"))
def test_whatever_is_put_together_is_worked_out_or_an_error(text):
    column = column_of_error(lambda: templates.read(text).fill(NAMES))

    assert column is None or 0 <= column <= len(text)


def test_a_text_with_expressions_is_filled_in():
    filled = templates.read("v${{ steps.build.outputs.version }} on ${{ matrix.os }}!").fill(NAMES)

    assert filled == "v1.2 on linux!"


def test_a_text_that_is_one_expression_keeps_its_value():
    assert templates.read("${{ steps.build.outputs.count }}").fill(NAMES) == 3
    assert templates.read("${{ steps.build.outputs.count }} ").fill(NAMES) == "3 "


def test_braces_within_quotes_are_part_of_a_text():
    assert templates.read("<${{ format('{{{0}}}', 'a') }}>").fill(NAMES) == "<{a}>"
    assert templates.read("<${{ '}}' }}>").fill(NAMES) == "<}}>"


@pytest.mark.parametrize("text", ["", "plain", "$HOME ${x} {{ x }}", "}}"])
def test_a_text_without_expressions_stays_as_it_is(text):
    template = templates.read(text)

    assert template.is_plain
    assert template.fill({}) == text


def test_an_error_has_its_column_in_the_whole_text():
    with pytest.raises(ExpressionError) as caught:
        templates.read("abc ${{ 1 + 2 }}")
    assert caught.value.column == 10
    with pytest.raises(ExpressionError, match="without") as caught:
        templates.read("abc ${{ 1")
    assert caught.value.column == 4


def test_all_texts_of_a_table_are_filled_in():
    asked = {"cmd": ["echo", "${{ item }}"], "env": {"A": "${{ matrix.os }}"}, "n": 1}

    assert templates.fill_all(asked, NAMES) == {
        "cmd": ["echo", "x.mov"],
        "env": {"A": "linux"},
        "n": 1,
    }
