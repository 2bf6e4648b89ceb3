"""Shell lines with expressions in them: a value gets to the shell as a variable, never as code.

`echo "${{ steps.a.stdout }}"` becomes `echo "${RELAYQ_X1}"`, with the value in the environment.
Whatever is in it, no shell reads it as a command: of an expansion only words and patterns are
made, and between quotes not even these. How the text around it is quoted decides how the variable
has to stand there, so the text is read as a shell does. Where a shell would work a value out as
arithmetic, or take a variable literally, an expression is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from relayq.model.expressions import Expression, ExpressionError, Value, text_of
from relayq.model.templates import BEGIN, expression_at

#: What Linux takes for one variable with its name (MAX_ARG_STRLEN).
_LONGEST = 128 * 1024 - 1
_BARE, _SINGLE, _NUMBER, _UNSEEN = "${%s}", "'\"${%s}\"'", "number", ""
_PLAIN = re.compile(r"[^\s;&|<>()'\"\\$`#]+")
_SHELLS = frozenset("sh ash bash dash ksh mksh zsh".split())
_AFTER_WORD = frozenset(" \t\r\n;&|<>()")
_SUBSCRIPT = re.compile(r"[A-Za-z_]\w*\[[^\]]*")
#: Words after which a command begins.
_BEFORE_COMMAND = frozenset("if then else elif do while until ! { time".split())
#: What has bash work out the operands of a test, which may hold commands: a[$(id)].
_WORKS_OUT = re.compile(r"(?<!\S)-(?:eq|ne|lt|le|gt|ge|v|R|t)(?!\S)")
_OPERATOR = re.compile(r"\$\{!?(?:\w+|[@*#?$!-])([#%]?)")


@dataclass(frozen=True, slots=True)
class Bound:
    """A shell line without expressions, and the variables that it needs."""

    text: str
    variables: Mapping[str, str]


def bind(
    text: str, value_of: Callable[[Expression], Value], *, taken: Collection[str] = ()
) -> Bound:
    """Return a line with a variable for each expression; `taken` names aren't used for them."""
    if BEGIN not in text:
        return Bound(text, {})
    reader = _Reader(text, value_of, taken)
    reader.commands()
    return Bound("".join(reader.made), reader.variables)


def script_in(argv: Sequence[str]) -> int | None:
    """Return which of a program's arguments is a line for a shell, as in `bash -ec LINE`."""
    for at, word in enumerate(argv):
        if word.rpartition("/")[2] not in _SHELLS:
            continue
        has_line = False
        for number, option in enumerate(argv[at + 1 :], at + 1):
            if has_line and option[:1] not in ("-", "+"):
                return number
            has_line = has_line or re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*", option) is not None
    return None


def check(text: str) -> None:
    """Raise ExpressionError, with the column, where an expression can't stand in a shell line."""
    bind(text, lambda expression: 0)


class _Reader:
    """One reading of a line, from its beginning to its end."""

    def __init__(
        self, text: str, value_of: Callable[[Expression], Value], taken: Collection[str]
    ) -> None:
        self.made: list[str] = []
        self.variables: dict[str, str] = {}
        self._text = text
        self._at = 0
        self._value_of = value_of
        self._taken = taken
        #: Why no expression can stand here, "" if one can.
        self._ban = ""
        #: Here-documents that begin after this line: their last line, and whether that was quoted.
        self._documents: list[tuple[str, bool, bool]] = []

    # What is read

    def commands(self, *, closes: bool = False) -> None:
        """Read commands to the parenthesis that closes them, or to the end of the text."""
        depth, cases, ban = 0, list[int](), self._ban
        word, is_command = self._at, True
        while char := self._peek():
            begin = self._at
            if char in " \t\r\n;&|":
                is_command = is_command or char in "\n;&|"
                self._copy(1)
                if char == "\n":
                    self._read_documents()
                if char in "\n;&|":
                    self._ban = self._ban if self._ban == _IN_TEST else ban
                word = self._at
            elif char == "#" and word == begin:
                self._comment()
            elif char == "(":
                if is_command and self._text.startswith("((", begin):
                    self._arithmetic("((")
                else:
                    depth += 1
                    self._copy(1)
                word, is_command = self._at, True
            elif char == ")":
                self._copy(1)
                word, is_command = self._at, True
                if cases and cases[-1] == depth:
                    continue  # the end of a pattern
                if closes and not depth:
                    self._ban = ban
                    return
                depth = max(0, depth - 1)
            elif char in "<>":
                self._redirection()
                word = self._at
            elif (found := _PLAIN.match(self._text, begin)) is not None:
                whole = word == begin and self._ends_word(found.end())
                self._copy(len(found[0]))
                if whole:
                    self._keyword(found[0], cases, depth, is_command=is_command, ban=ban)
                    is_command = is_command and found[0] in _BEFORE_COMMAND
                    is_command = is_command or (found[0] == "in" and bool(cases))
                else:
                    is_command = False
            else:
                is_command = False
                self._part(word)
        self._ban = ban

    def _keyword(
        self, word: str, cases: list[int], depth: int, *, is_command: bool, ban: str
    ) -> None:
        """Take note of a word that changes how what comes after it is read."""
        if word == "]]":
            self._ban = ban
        elif not is_command:
            return
        elif word == "case":
            cases.append(depth)
        elif word == "esac" and cases:
            cases.pop()
        elif word == "[[":
            end = self._text.find("]]", self._at)
            inner = self._text[self._at : end if end >= 0 else None]
            self._ban = ban or (_IN_TEST if _WORKS_OUT.search(inner) else "")
        elif word == "let":
            self._ban = ban or _IN_LET

    def _ends_word(self, at: int) -> bool:
        return at == len(self._text) or self._text[at] in _AFTER_WORD

    def _part(self, word: int) -> None:
        """Read a part of a word that isn't plain: something quoted, or an expansion."""
        char = self._peek()
        if self._is_expression():
            is_index = _SUBSCRIPT.fullmatch(self._text, word, self._at) is not None
            self._insert(_NUMBER if is_index else _BARE)
        elif char == "'":
            self._single()
        elif char == '"':
            self._copy(1)
            self._double()
        elif char == "$" and self._text.startswith("$'", self._at):
            self._escaped()
        else:
            self._common(char)

    def _common(self, char: str) -> None:
        """Read what is the same within double quotes and outside of them."""
        if char == "\\":
            if self._text.startswith(BEGIN, self._at + 1):
                raise self._error("a backslash before an expression would be for the shell")
            self._copy(2)
        elif char == "`":
            self._backticks()
        elif char == "$":
            self._dollar()
        else:
            self._copy(1)

    def _double(self, end: int | None = None) -> None:
        """Read to the closing double quote; a here-document to its `end`, with no quotes in it."""
        while (char := self._peek()) and (end is None or self._at < end):
            if self._is_expression():
                self._insert(_BARE)
            elif char == '"' and end is None:
                self._copy(1)
                return
            else:
                self._common(char)

    def _single(self) -> None:
        self._copy(1)
        while char := self._peek():
            if self._is_expression():
                self._insert(_SINGLE)
                continue
            self._copy(1)
            if char == "'":
                return

    def _escaped(self) -> None:
        """Read `$'...'`: only some shells know it, and find its end by its backslashes."""
        end = self._text.find("'", self._at + 2)
        end = len(self._text) if end < 0 else end + 1
        inner = self._text[self._at : end]
        if BEGIN in inner or ("\\" in inner and BEGIN in self._text[end:]):
            raise self._error("not every shell knows $'...': an expression can't stand beside it")
        self._copy(len(inner))

    def _comment(self) -> None:
        while (char := self._peek()) and char != "\n":
            if self._is_expression():
                self._insert(_UNSEEN)
            else:
                self._copy(1)

    def _backticks(self) -> None:
        begin, at = self._at, self._at + 1
        while at < len(self._text) and self._text[at] != "`":
            at += 2 if self._text[at] == "\\" else 1
        if BEGIN in self._text[begin:at]:
            raise self._error("an expression can't stand within backticks; $( ) does the same")
        self._copy(at + 1 - begin)

    def _dollar(self) -> None:
        at = self._at
        if self._text.startswith(BEGIN, at + 1):
            self.made.append("\\$")  # before a variable it would be read as the shell's own number
            self._at += 1
        elif self._text.startswith("$((", at):
            self._arithmetic("$((")
        elif self._text.startswith("$(", at):
            self._copy(2)
            self.commands(closes=True)
        elif self._text.startswith("${", at):
            self._braces()
        else:
            self._copy(2 if self._text.startswith("$$", at) else 1)

    def _braces(self) -> None:
        """Read `${name:-word}`, in which bash finds indices and offsets to work out."""
        operator = _OPERATOR.match(self._text, self._at)
        is_quoting = operator is None or bool(operator[1])
        ban, self._ban = self._ban, self._ban or _IN_BRACES
        self._copy(2)
        while (char := self._peek()) and char != "}":
            if self._is_expression():
                self._insert(_BARE)
            elif char == '"':
                self._copy(1)
                self._double()
            elif char == "'" and is_quoting:
                self._single()
            else:
                self._common(char)
        self._copy(1)
        self._ban = ban

    def _arithmetic(self, begin: str) -> None:
        """Read to the second closing parenthesis."""
        self._copy(len(begin))
        depth = 2
        while depth and (char := self._peek()):
            if self._is_expression():
                self._insert(_NUMBER)
            elif char in "()":
                depth += 1 if char == "(" else -1
                self._copy(1)
            else:
                self._common(char)

    def _redirection(self) -> None:
        at = self._at
        if not self._text.startswith("<<", at) or self._text.startswith("<<<", at):
            self._copy(3 if self._text.startswith("<<<", at) else 1)
            return
        strips = self._text.startswith("<<-", at)
        self._copy(3 if strips else 2)
        while self._peek() in (" ", "\t"):
            self._copy(1)
        found = re.compile(r"(?:\\.|'[^']*'|\"[^\"]*\"|[^\s;&|<>()'\"\\])+").match(
            self._text, self._at
        )
        if found is None:
            return
        if BEGIN in found[0]:
            raise self._error("an expression can't be the end of a here-document")
        self._copy(len(found[0]))
        last = re.sub(r"\\(.)|['\"]", r"\1", found[0])
        self._documents.append((last, last != found[0], strips))

    def _read_documents(self) -> None:
        """Read the here-documents that begin here."""
        documents, self._documents = self._documents, []
        for last, is_literal, strips in documents:
            begin, end = self._at, self._at
            while end < len(self._text):
                line, newline, _ = self._text[end:].partition("\n")
                if (line.lstrip("\t") if strips else line) == last:
                    break
                end += len(line) + len(newline)
            if is_literal:
                if BEGIN in self._text[begin:end]:
                    raise self._error(
                        f"here a shell takes a variable literally; begin with <<{last}, unquoted"
                    )
                self._copy(end - begin)
            else:
                self._double(end)

    # What is made of it

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _copy(self, count: int) -> None:
        self.made.append(self._text[self._at : self._at + count])
        self._at += count

    def _is_expression(self) -> bool:
        return self._text.startswith(BEGIN, self._at)

    def _error(self, message: str) -> ExpressionError:
        return ExpressionError(message, column=self._at)

    def _insert(self, form: str) -> None:
        """Put a variable where the expression stands, in this form."""
        if form and self._ban:
            raise self._error(self._ban)
        begin = self._at
        expression, self._at = expression_at(self._text, begin)
        if form == _UNSEEN:
            return
        try:
            value = text_of(self._value_of(expression))
        except ExpressionError as error:
            raise ExpressionError(error.message, column=begin) from error
        if form == _NUMBER:
            if not re.fullmatch(r"-?[0-9]+", value):
                said = f"a shell works this out, so it must be a whole number: {value:.40}"
                raise ExpressionError(said, column=begin)
            self.made.append(value)
            return
        self.made.append(form % self._variable(value, begin))

    def _variable(self, value: str, column: int) -> str:
        if "\0" in value:
            raise ExpressionError("a shell's variable can't hold a NUL", column=column)
        number = len(self.variables) + 1
        while (name := f"RELAYQ_X{number}") in self._taken or name in self.variables:
            number += 1
        if len(value.encode("utf-8", "surrogatepass")) + len(name) + 2 > _LONGEST:
            raise ExpressionError(
                "it is too long for a command (128 KiB); pass it as a file, or as standard input",
                column=column,
            )
        self.variables[name] = value
        return name


_IN_TEST = "between [[ and ]] bash works out what it compares as numbers: test with [ ]"
_IN_LET = "a shell works out what comes after let: use $(( ))"
_IN_BRACES = "an expression can't stand within ${ }: give it to a variable first"
