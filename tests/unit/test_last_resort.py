"""What the command line says of an error that nobody foresaw."""

from __future__ import annotations

import errno
import json

import pytest

from relayq import cli


@pytest.fixture
def failing(monkeypatch):
    """Has every command fail with an error."""

    def fail(error):
        def main(*arguments, **options):
            raise error

        monkeypatch.setattr(cli.root, "main", main)

    return fail


def test_a_mistake_of_relayqs_own_is_no_exit_code_of_a_job(failing, capsys):
    failing(ValueError("odd"))

    assert cli.main(["ps"]) == 125
    said = capsys.readouterr().err
    assert "ValueError: odd" in said
    assert "relayq: a mistake in relayq itself" in said


def test_what_the_system_refuses_is_one_line_with_the_file(failing, capsys):
    failing(PermissionError(errno.EACCES, "Permission denied", "/etc/thing"))

    assert cli.main(["ps"]) == 125
    said = capsys.readouterr().err
    assert said == "relayq: /etc/thing: Permission denied\n  hint: relayq doctor\n"


def test_programs_are_told_in_json(failing, capsys):
    failing(OSError(errno.ENOSPC, "No space left on device"))

    assert cli.main(["ps", "--json"]) == 125
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"code": "os_error", "message": "No space left on device", "hint": "df -h"}
