"""In a shell line a value is never code, whatever it holds, and arrives as it is in quotes."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relayq.model.expressions import ExpressionError
from relayq.model.shelltext import bind, check, script_in

SHELLS = [["/bin/sh"], *([["bash", "--posix"]] if shutil.which("bash") else [])]
#: Each writes the value, from one of the places where it may stand.
PLACES = [
    'printf %s "${{ v }}"',
    "printf %s '${{ v }}'",
    "printf %s ''\"\"'${{ v }}'''",
    'x=$(printf %s "${{ v }}"; echo .); printf %s "${x%.}"',
    'x="$(printf %s \'${{ v }}\'; echo .)"; printf %s "${x%.}"',
    '# isn\'t code: ${{ v }}\nprintf %s "${{ v }}" # \'nor "this: ${{ v }}',
    'x=${{ v }}; printf %s "$x"',
    "x='a'\\''b'; printf %s \"${{ v }}\"",
    "case a in a) printf %s \"${{ v }}\";; b) echo '${{ v }}';; esac",
    "x=$(case a in b) ;; a) printf %s '${{ v }}';; esac; echo .); printf %s \"${x%.}\"",
    "x=$(cat <<END\nisn't ${{ v }}.\nEND\n); x=${x%.}; printf %s \"${x#isn\\'t }\"",
    "cat <<'END' >&2\nisn't $x\nEND\nprintf %s '${{ v }}'",
    'if [ "${{ v }}" != \'a"\' ]; then printf %s "${{ v }}"; else printf %s \'${{ v }}\'; fi',
    'f() { printf %s "$1"; }; f "${{ v }}"',
    "echo `echo \"'\"` >&2; printf %s '${{ v }}'",
    'echo ${x:-"\'"} "${x:-\'}" ${x#\'}\'} >&2; printf %s "${{ v }}"',
    'echo $((1 << 2)) >&2; printf %s "${{ v }}"',
    "! grep -q \\' /dev/null; printf %s '${{ v }}'",
]
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
SIGNS = "'\"\\$`;&|<>(){}[]*?~#!\n\t =%^-a1"
PARTS = ["${{ v }}", "'${{ v }}'", '"${{ v }}"', "<<E\n", *"$( ${ case esac $' [[ $((".split()]

both_shells = pytest.mark.parametrize(
    "shell", SHELLS, ids=lambda shell: shell[0].rpartition("/")[2]
)


def ran(shell: list[str], line: str, value: str, cwd: Path | None = None) -> bytes:
    """Return what a line writes, in which every expression comes to this value."""
    bound = bind(line, lambda expression: value)
    return subprocess.run(
        [*shell, "-c", bound.text],
        env={"PATH": os.environ["PATH"], **bound.variables},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=20,
    ).stdout


@both_shells
@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), value=VALUES | st.text(SIGNS, max_size=12))
@example(place=PLACES[0], value='"; echo pwned; "')
@example(place=PLACES[1], value="'; echo pwned; '")
@example(place=PLACES[3], value="$(echo pwned)`echo pwned`")
@example(place=PLACES[10], value="END\necho pwned")
@example(place=PLACES[6], value="a  *  b\n\n")
@example(place=PLACES[0], value="${RELAYQ_X1}")
def test_any_value_arrives_byte_by_byte_and_nothing_of_it_runs(shell, place, value):
    assert ran(shell, place, value).decode() == value


@pytest.mark.parametrize("place", PLACES)
@both_shells
def test_a_value_full_of_signs_arrives_at_every_place(shell, place):
    value = f"$(echo x) `echo x`; {SIGNS}\\"

    assert ran(shell, place, value).decode() == value


@both_shells
@settings(max_examples=60, deadline=None)
@given(line=st.lists(st.sampled_from(PARTS) | st.sampled_from(SIGNS), max_size=14).map("".join))
def test_however_a_line_is_garbled_a_value_in_it_is_no_code(shell, line, tmp_path_factory):
    folder = tmp_path_factory.mktemp("garbled")
    proof = folder / "proof"
    value = f"';\"; $(touch {proof}) `touch {proof}` a[$(touch {proof})]\n touch {proof}\n"
    with suppress(ExpressionError):
        ran(shell, line, value, cwd=folder)

    assert not proof.exists()


def test_bare_a_value_becomes_words_as_any_variable_of_the_shell():
    assert ran(SHELLS[0], "printf '<%s>' ${{ v }}", "a b\tc; echo x") == b"<a><b><c;><echo><x>"


def test_each_expression_has_a_variable_of_its_own_and_no_name_that_is_taken():
    bound = bind("a ${{ v }} '${{ w }}'", lambda one: one.text.strip(), taken={"RELAYQ_X1"})

    assert bound.text == "a ${RELAYQ_X2} ''\"${RELAYQ_X3}\"''"
    assert bound.variables == {"RELAYQ_X2": "v", "RELAYQ_X3": "w"}


def test_a_dollar_before_an_expression_stays_a_dollar():
    assert ran(SHELLS[0], 'printf %s "$${{ v }}" $${{ v }}', "5") == b"$5$5"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo $((1 + ${{ v }}))", "whole number"),
        ("a[${{ v }}]=1", "whole number"),
        ("((x = ${{ v }}))", "whole number"),
        ("let x=${{ v }}", "after let"),
        ("[[ ${{ v }} -eq 1 ]]", "[[ and ]]"),
        ('if [[ -n x && "${{ v }}" -eq 1 ]]; then x; fi', "[[ and ]]"),
        ("echo ${x:-${{ v }}}", "within ${ }"),
        ("echo ${x:$(echo ${{ v }})}", "within ${ }"),
        ("echo `echo ${{ v }}`", "backticks"),
        ("echo \\${{ v }}", "backslash"),
        ("cat <<'E'\n${{ v }}\nE", "literally"),
        ("cat <<${{ v }}\nE", "end of a here-document"),
        ("echo $'a\\n' ${{ v }}", "$'...'"),
    ],
)
def test_where_a_shell_would_work_it_out_or_take_it_literally_it_is_an_error(line, said):
    with pytest.raises(ExpressionError) as error:
        bind(line, lambda expression: "a[$(touch pwned)]")

    assert said in error.value.message
    assert 0 < error.value.column <= line.index("${{")


def test_a_number_may_stand_in_arithmetic():
    assert ran(SHELLS[0], 'echo "$((${{ v }} * 2))"', "-21") == b"-42\n"


def test_a_test_of_texts_works_nothing_out():
    line = '[[ "${{ v }}" == *b* && ${{ v }} != x ]] && printf %s "${{ v }}"'

    assert ran(["bash"], line, "a b $(x)") == b"a b $(x)"


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        (["bash", "-c", "x"], 2),
        (["/bin/sh", "-ec", "x", "y"], 2),
        (["env", "A=1", "bash", "-eo", "pipefail", "-c", "x"], 6),
        (["bash", "-c", "-e", "x"], 3),
        (["sh", "file", "x"], None),
        (["python3", "-c", "x"], None),
        (["echo", "hi"], None),
        ([], None),
    ],
)
def test_a_line_for_a_shell_is_found_among_the_arguments_of_a_program(argv, number):
    assert script_in(argv) == number


def test_a_test_that_has_ended_bans_nothing_after_it():
    check("[[ 1 -eq 1 ]] && echo ${{ v }}; let y=1; echo ${{ v }}")


def test_a_value_that_no_variable_can_hold_is_an_error():
    for value, said in (("a\0b", "NUL"), ("x" * 140_000, "too long")):
        with pytest.raises(ExpressionError, match=said):
            bind("echo ${{ v }}", lambda expression, value=value: value)
