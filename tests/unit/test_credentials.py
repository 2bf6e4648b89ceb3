"""What an agent gets of its host: an allow-list, its own keys, and none of them written down."""

import pytest

from relayq.errors import ConfigError
from relayq.host.credentials import Mask, environment, read_keys


@pytest.fixture
def keys(tmp_path):
    """Return a function that writes a file of keys."""

    def write(text, mode=0o600):
        path = tmp_path / "agents.env"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return write


def test_keys_are_lines_of_names_and_values(keys):
    path = keys("# mine\n\nA_KEY=one\nexport B = 'two words'\nC=x=y\n")

    assert read_keys(path) == {"A_KEY": "one", "B": "two words", "C": "x=y"}


def test_a_key_of_an_account_comes_before_the_common_one(keys):
    path = keys("KEY@work=mine\nKEY=common\n")

    assert read_keys(path) == {"KEY": "common"}
    assert read_keys(path, "work") == {"KEY": "mine"}


def test_no_file_is_no_keys(tmp_path):
    assert read_keys(str(tmp_path / "agents.env")) == {}


def test_a_wrong_line_is_named_without_what_is_in_it(keys):
    path = keys("A=one\nsk-very-secret\n")

    with pytest.raises(ConfigError, match=r"agents.env:2: expected NAME=value") as caught:
        read_keys(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(keys, mode):
    path = keys("A=one\n", mode)

    with pytest.raises(ConfigError, match="others can read") as caught:
        read_keys(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_an_agent_gets_what_is_allowed_and_what_it_asked_for():
    own = {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h", "ANTHROPIC_API_KEY": "of the worker"}
    own |= {"CLAUDECODE": "1", "RELAYQ_REPORT": "/r", "RELAYQ_JOB_ID": "j", "AWS_SECRET": "s"}

    env = environment(
        own,
        keys={"A_KEY": "a", "B_KEY": "b", "CLAUDE_CODE_OAUTH_TOKEN": "t"},
        passed=["A_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "C_KEY"],
        added={"CLAUDE_CODE_MAX_RETRIES": "3"},
    )

    assert env == {
        **{"PATH": "/bin", "LC_ALL": "C", "HOME": "/h", "RELAYQ_JOB_ID": "j", "TERM": "dumb"},
        **{"A_KEY": "a", "CLAUDE_CODE_OAUTH_TOKEN": "t", "CLAUDE_CODE_MAX_RETRIES": "3"},
    }


def test_a_jobs_secrets_are_masked_without_their_names():
    mask = Mask({"KEY": "key-of-the-agent"}, ["of-the-job", "b2YtdGhlLWpvYg"])

    assert mask.text("key-of-the-agent of-the-job") == "[KEY] ***"
    assert mask.line(b'{"it": "b2YtdGhlLWpvYg"}') == b'{"it": "***"}'


def test_keys_are_masked_the_longest_first_and_short_ones_not_at_all():
    mask = Mask({"LONG": "secret-and-more", "PART": "secret-and", "SHORT": "an"})

    assert mask.text("a secret-and-more, secret-and an end") == "a [LONG], [PART] an end"
    assert mask.line(b"secret-and-more") == b"[LONG]"
    assert mask.value({"secret-and": ["secret-and-more", 5, None]}) == {
        "[PART]": ["[LONG]", 5, None]
    }
