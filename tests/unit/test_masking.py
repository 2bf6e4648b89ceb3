"""Secrets are hidden in whatever a job writes, however it is cut, and nothing else is."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.host.masking import Hider, forms
from relayq.host.masking import given as with_secrets
from relayq.host.written import Output
from relayq.model.output import STDERR, STDOUT, only, split

SECRET = "s3cr/t+va lue=ü"


def written(hider, pieces, channel=STDOUT):
    """Return what comes of pieces, and of the end after them."""
    return b"".join([*(hider.feed(channel, piece) for piece in pieces), hider.rest(channel)])


def test_a_secret_is_hidden_wherever_it_is_cut():
    text = f"before {SECRET} after\n".encode()

    for cut in range(len(text)):
        assert written(Hider([SECRET]), [text[:cut], text[cut:]]) == b"before *** after\n"
    assert written(Hider([SECRET]), [bytes([byte]) for byte in text]) == b"before *** after\n"


@pytest.mark.parametrize("prefix", ["", "a", "ab", "abc", "user:"])
@pytest.mark.parametrize("suffix", ["", "\n", "zz"])
def test_a_secret_in_base64_shows_no_letter_that_is_its_own(prefix, suffix):
    encode = [base64.b64encode, base64.urlsafe_b64encode]
    for encoded in [one(f"{prefix}{SECRET}{suffix}".encode()) for one in encode]:
        shown = written(Hider([SECRET]), [encoded[:9], encoded[9:]])

        assert b"***" in shown
        assert len(shown) - 3 <= len(base64.b64encode(f"{prefix}{suffix}xxxx".encode()))


@pytest.mark.parametrize(
    "encoded",
    [quote(SECRET), quote(SECRET, safe=""), quote(SECRET, safe="").lower(), json.dumps(SECRET)],
)
def test_a_secret_is_hidden_in_a_url_and_in_json(encoded):
    shown = written(Hider([SECRET]), [encoded.encode()])

    assert shown.strip(b'"') == b"***"


def test_what_only_begins_like_a_secret_is_held_back_no_longer_than_needed():
    hider = Hider(["password-of-mine"])

    assert hider.feed(STDOUT, b"give the pass") == b"give the "
    assert hider.feed(STDOUT, b"port\n") == b"passport\n"
    assert hider.feed(STDOUT, b"a passw") == b"a "
    assert hider.rest(STDOUT) == b"passw"


def test_the_channels_are_looked_at_each_by_itself():
    hider = Hider(["abcdef"])

    assert hider.feed(STDOUT, b"abc") == hider.feed(STDERR, b"abc") == b""
    assert hider.feed(STDERR, b"def!") == b"***!"
    assert hider.feed(STDOUT, b"d!") == b"abcd!"


def test_secrets_that_overlap_are_hidden_whole():
    assert written(Hider(["abcdef", "defghi"]), [b"1abcdefghi2"]) == b"1***2"
    assert written(Hider(["abcdef", "defghi"]), [b"1abcdef", b"ghi2"]) == b"1***2"
    assert written(Hider(["abcdef", "abcdefgh"]), [b"abcdef", b"gh."]) == b"***."
    assert written(Hider(["abcdef"]), [b"abcdefabcdef"]) == b"******"


@given(
    st.lists(st.sampled_from(["aabaab", "abaaba", "bbbbbb", "a", "b", "ab", "."]), max_size=20),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_no_cut_lets_a_secret_through_or_changes_what_is_shown(words, cuts):
    text = "".join(words).encode()
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    values = ["aabaab", "abaaba", "bbbbbb"]

    shown = written(Hider(values), pieces)

    assert shown == written(Hider(values), [text])
    assert not any(value.encode() in shown for value in values)


def test_forms_are_long_enough_to_hide_no_ordinary_word():
    assert min(map(len, forms("abcdef"))) >= 6


class Step:
    """A command that was begun, and what it writes."""

    def __init__(self, command, output):
        self.command, self.output = command, output
        begun.append(self)

    def run(self):
        self.output.append(STDOUT, b"it is hush-")
        self.output.append(STDOUT, b"hush and hush")
        return {"status": "exited", "output_bytes": 0}


begun: list[Step] = []


@pytest.fixture
def keys(tmp_path):
    begun.clear()
    path = tmp_path / "secrets.env"
    path.write_text('KEY="hush-hush"\nOTHER=of-others\n')
    path.chmod(0o600)
    return path


def taken(keys, names):
    """Return the record of a command with these secrets."""
    output = Output(str(keys.parent / "output"))
    given = {"KEY": "hush-hush"}
    command = {"env": {"A": "1"}, "secrets": {"names": names}, "given": given}
    return with_secrets(Step)(command, output).run()


def test_a_command_gets_the_secrets_that_it_asks_for_and_no_other(keys):
    record = taken(keys, ["KEY"])

    frames, size = split((keys.parent / "output").read_bytes())
    assert begun[0].command["env"] == {"A": "1", "KEY": "hush-hush", "RELAYQ_SECRETS": "KEY"}
    assert only(frames, STDOUT) == b"it is *** and hush"
    assert record["output_bytes"] == size


def test_a_command_that_was_not_given_its_secrets_is_not_begun(keys):
    record = taken(keys, ["KEY", "GONE"])

    assert (record["status"], record["error"]) == (
        "unstarted",
        "it was not given its secrets: GONE",
    )
    assert not begun


def test_a_step_beside_the_command_gets_none(keys):
    with_secrets(Step)({"env": {}, "secrets": None}, Output(str(keys.parent / "output"))).run()

    assert begun[0].command["env"] == {}
    assert begun[0].output.hider is None
