"""A command for each of many inputs: placeholders, sources, quotes."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayq.errors import RelayqError
from relayq.model.maps import (
    Item,
    combined,
    command_for,
    filled,
    items_of,
    lines_of,
    with_placeholder,
)

NASTY = [
    "a b",
    "it's",
    'q"q',
    "$(id)",
    "`id`",
    "x\ny",
    "-n",
    "\\",
    "a;b&c|d",
    "*",
    "\udcff",
    "",
    "~",
]


def item(*values: str, number: int = 1) -> Item:
    return Item(number, values)


@pytest.mark.parametrize(
    ("placeholder", "value", "meant"),
    [
        ("{}", "dir/a.tar.gz", "dir/a.tar.gz"),
        ("{.}", "dir/a.tar.gz", "dir/a.tar"),
        ("{.}", "dir.d/a", "dir.d/a"),
        ("{.}", "dir/.hidden", "dir/.hidden"),
        ("{/}", "dir/a.gz", "a.gz"),
        ("{//}", "dir/sub/a.gz", "dir/sub"),
        ("{//}", "a.gz", "."),
        ("{/.}", "dir/a.gz", "a"),
        ("{#}", "whatever", "7"),
        ("{1}{1/}", "dir/a", "dir/aa"),
        ("{ }{}}", "a", "{ }a}"),
    ],
)
def test_a_placeholder_stands_for_a_part_of_the_input(placeholder, value, meant):
    assert filled(placeholder, item(value, number=7)) == meant


def test_several_sources_give_all_combinations_and_linked_ones_go_along():
    assert combined([(["a", "b"], False), (["1", "2"], False)]) == [
        ("a", "1"),
        ("a", "2"),
        ("b", "1"),
        ("b", "2"),
    ]
    assert combined([(["a", "b"], False), (["1", "2", "3"], True), (["x"], False)]) == [
        ("a", "1", "x"),
        ("b", "2", "x"),
    ]


def test_an_input_of_a_source_that_is_not_there_is_refused():
    with pytest.raises(RelayqError, match="source 3, and there are 2"):
        command_for("echo {3}", item("a", "b"))


def test_what_has_no_placeholder_gets_the_input_at_its_end():
    assert with_placeholder("wc -l") == "wc -l {}"
    assert with_placeholder(["wc", "-l"]) == ["wc", "-l", "{}"]
    assert with_placeholder(["wc", "{.}"]) == ["wc", "{.}"]


def test_a_program_gets_each_value_as_it_is():
    assert command_for(["printf", "%s", "{}", "x{}"], item("a b", "$(id)")) == [
        *("printf", "%s", "a b", "$(id)", "xa b $(id)"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "printf %s {}",
        'printf %s "{}"',
        "printf %s '{}'",
        'printf %s "$(printf %s "{}")"',
        'printf %s "$(printf %s {})"',
        "printf %s \"\"''{}",
    ],
)
@pytest.mark.parametrize("value", NASTY)
def test_no_shell_takes_a_part_of_an_input_for_code(line, value):
    made = command_for(line, item(value))

    ran = subprocess.run(["/bin/sh", "-c", made], capture_output=True, check=True)

    within = "$(" in line
    wanted = value.rstrip("\n") if within else value
    assert ran.stdout == wanted.encode("utf-8", "surrogateescape")


@settings(max_examples=200)
@given(
    value=st.text(alphabet="a'\"$`\\ (){}\n*-", max_size=12), place=st.sampled_from(["", "'", '"'])
)
def test_a_quoted_input_is_one_word_wherever_it_stands(value, place):
    made = command_for(f"x {place}<{{}}>{place} y", item(value))

    if place == '"' and any(mark in value for mark in "$`"):
        assert shlex.quote(value) in made
    else:
        assert shlex.split(made) == ["x", f"<{value}>", "y"]


@pytest.mark.parametrize(
    "line",
    [
        "echo `echo {}`",
        'echo "`echo {}`"',
        "cat <<END\n{}\nEND\n",
        "echo $'it\\'s' {}",
        'echo "$(case x in a) echo {};; esac)"',
        "echo $(({} + 1))",
    ],
)
def test_a_place_in_which_nothing_can_be_quoted_is_refused(line):
    with pytest.raises(RelayqError, match="an input can't stand"):
        command_for(line, item("a[$(id)]"))


def test_numbers_and_names_can_be_calculated_with():
    assert command_for('echo "$(({} * (2 + {#})))" {}', item("7", number=3)) == (
        'echo "$((7 * (2 + 3)))" 7'
    )


def test_a_comment_neither_opens_a_quote_nor_has_inputs():
    assert command_for("true # it's {}\necho {} a#b'{}'", item("$x y")) == (
        "true # it's {}\necho '$x y' a#b'$x y'"
    )


def test_a_here_string_and_quoted_backticks_are_no_such_places():
    assert command_for("cat <<< {}", item("a b")) == "cat <<< 'a b'"
    assert command_for("echo '`' {}", item("a b")) == "echo '`' 'a b'"


def test_inputs_are_texts_numbers_paths_or_several_of_these(tmp_path):
    [first, second, third] = items_of(["a", 7, (tmp_path, "b")])

    assert (first.values, second.values, third.values) == (("a",), ("7",), (str(tmp_path), "b"))
    assert [first.number, third.number] == [1, 3]
    with pytest.raises(RelayqError, match="an input is a text"):
        items_of([None])


def test_lines_end_with_a_newline_or_a_nul():
    assert lines_of("a\n\nb") == ["a", "", "b"]
    assert lines_of("a\nb\0c\0", by_nul=True) == ["a\nb", "c"]
    assert lines_of("") == []
