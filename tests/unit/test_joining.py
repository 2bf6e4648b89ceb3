"""Tokens and tickets: who has one joins once, and who listens, guesses or comes late gets nothing.

The broker here is one that relayq doesn't manage, so that nothing has to run.
"""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import replace
from urllib.parse import quote

import pytest

from relayq import clock, config, joining
from relayq.embedded import users
from relayq.embedded.admission import Gate, joined, make_ticket, void_tickets
from relayq.embedded.tickets import ANSWER_KEPT
from relayq.errors import BadSignature, ConfigError, Conflict, JoinRefused, RelayqError
from relayq.model.joining import (
    PURPOSE,
    Admission,
    Wish,
    answer_key,
    keys_of,
    new_token,
    read_token,
    read_wish,
)
from relayq.sealing import Agreement, unseal
from relayq.signing import load_key

URLS = ("http://100.64.0.1:8000",)
PASSWORD = "the-one-password-of-redis"


@pytest.fixture
def own(tmp_path):
    return config.load(
        {
            "RELAYQ_HOME": str(tmp_path / "home"),
            "RELAYQ_WORKER__NAME": "vm",
            "RELAYQ_BROKER__HOST": "10.0.0.9",
            "RELAYQ_BROKER__PASSWORD": PASSWORD,
        }
    )


@pytest.fixture
def gate(own):
    return Gate(own)


@pytest.fixture
def now(monkeypatch):
    at = [1_800_000_000.0]
    monkeypatch.setattr(clock, "now", lambda: at[0])
    return at


def made(own, **options):
    return make_ticket(own, URLS, **{"role": "worker", "host": None, "lasts": 3600.0, **options})[0]


class Machine:
    """One that wants to join."""

    def __init__(self, token, name="pi4", *, install="a" * 32, **more):
        self.agreement = Agreement()
        self.token = token
        nonce = new_token(()).ticket * 2
        self.wish = Wish(token.ticket, nonce, name, install, self.agreement.public, **more)

    def proof(self):
        return self.wish.proof(keys_of(self.token.secret)[0])

    def joins(self, gate, *, address="100.64.0.7"):
        return gate.admit(self.wish, self.proof(), address=address)

    def opens(self, answer):
        agreed = self.agreement.agreed(answer["public"])
        key = answer_key(keys_of(self.token.secret)[1], self.wish, answer["public"], agreed)
        return Admission.of_text(unseal(key, PURPOSE, bytes.fromhex(answer["sealed"])))


def refusal(machine, gate, **options):
    with pytest.raises(JoinRefused) as caught:
        machine.joins(gate, **options)
    return caught.value.reason


def test_who_has_a_token_gets_all_that_its_machine_needs(own, gate):
    machine = Machine(made(own))

    given = machine.opens(machine.joins(gate))

    assert (given.fleet, given.role, given.host, given.is_own) == ("vm", "worker", "pi4", False)
    assert given.key == own.fleet_key_path.read_text()
    assert given.broker["password"] == PASSWORD
    assert (given.broker["host"], given.broker["port"]) == ("10.0.0.9", 6379)
    assert [one.name for one in joined(own)] == ["pi4"]


def test_a_token_lets_one_machine_in_and_no_second_one(own, gate):
    token = made(own)
    Machine(token).joins(gate)

    with pytest.raises(JoinRefused, match="used already, by pi4") as caught:
        Machine(token, "thief").joins(gate)
    assert caught.value.reason == "used_token"
    assert "relayq hosts rm pi4" in caught.value.hint


def test_of_many_that_ask_at_once_one_gets_in(own, gate):
    token = made(own)
    answers = []

    def ask(number):
        try:
            answers.append(Machine(token, f"pi{number}").joins(gate))
        except JoinRefused as error:
            answers.append(error.reason)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(one if isinstance(one, str) else "in" for one in answers) == [
        "in",
        *["used_token"] * 7,
    ]


def test_a_lost_answer_is_had_again_by_the_one_that_asked_and_for_a_while_only(own, gate, now):
    machine = Machine(made(own))
    first = machine.joins(gate)

    assert machine.joins(gate) == first
    assert machine.opens(first).host == "pi4"
    now[0] += ANSWER_KEPT + 1
    assert refusal(machine, gate) == "used_token"


def test_who_recorded_everything_and_finds_the_token_later_reads_nothing(own, gate):
    token = made(own)
    machine = Machine(token)
    answer = machine.joins(gate)
    # All that was on the wire, and the token; what they agreed on is in nobody's hands any more.
    key, own_half = keys_of(token.secret)[1], Agreement()

    for agreed in (b"", own_half.agreed(answer["public"]), own_half.agreed(machine.wish.public)):
        guess = answer_key(key, machine.wish, answer["public"], agreed)
        with pytest.raises(BadSignature):
            unseal(guess, PURPOSE, bytes.fromhex(answer["sealed"]))
    assert PASSWORD.encode().hex() not in answer["sealed"]
    # Sent once more, what was recorded brings only what was recorded.
    assert gate.admit(machine.wish, machine.proof(), address="evil") == answer


def test_a_wish_that_was_changed_on_the_way_is_refused(own, gate):
    machine = Machine(made(own))
    changes = {"name": "mini", "install": "b" * 32, "as_client": True, "nonce": "c" * 32}

    for field, value in {**changes, "public": Agreement().public}.items():
        wish = replace(machine.wish, **{field: value})
        with pytest.raises(JoinRefused) as caught:
            gate.admit(wish, machine.proof(), address=field)
        assert caught.value.reason == "unknown_token"
    assert machine.opens(machine.joins(gate)).host == "pi4"


def test_wrong_proofs_and_unknown_tickets_look_the_same(own, gate):
    token = made(own)
    wrong = Machine(replace(token, secret=b"x" * 32))
    unknown = Machine(new_token(URLS))
    said = []
    for machine in (wrong, unknown):
        with pytest.raises(JoinRefused) as caught:
            machine.joins(gate)
        said.append((caught.value.reason, caught.value.message, caught.value.hint))

    assert said[0] == said[1]


def test_an_address_that_guesses_is_not_heard_any_more_and_others_are(own, gate):
    token = made(own)
    for _ in range(10):
        assert refusal(Machine(new_token(URLS)), gate, address="evil") == "unknown_token"

    assert refusal(Machine(token), gate, address="evil") == "too_many"
    assert Machine(token).joins(gate, address="friend")


def test_a_ticket_that_is_guessed_at_from_many_addresses_becomes_void(own, gate):
    token = made(own)
    for number in range(20):
        wrong = Machine(replace(token, secret=number.to_bytes(32, "big")))
        refusal(wrong, gate, address=f"evil{number}")

    assert refusal(Machine(token), gate) == "unknown_token"


def test_a_token_expires(own, gate, now):
    token = made(own, lasts=60.0)
    now[0] += 61

    assert refusal(Machine(token), gate) == "expired_token"


def test_unused_tokens_can_be_made_void(own, gate):
    used, one, other = made(own), made(own), made(own)
    Machine(used).joins(gate)

    assert void_tickets(own) == 2
    assert refusal(Machine(one), gate) == refusal(Machine(other), gate) == "unknown_token"


def test_a_name_belongs_to_the_installation_that_joined_by_it(own, gate):
    Machine(made(own)).joins(gate)
    token = made(own)

    assert refusal(Machine(token, install="b" * 32), gate) == "name_taken"
    assert refusal(Machine(token, "vm"), gate) == "name_taken"
    # Refused so, a token is still good.
    assert Machine(token).joins(gate)
    assert Machine(made(own), "pi5", install="b" * 32).joins(gate)


def test_a_token_for_a_name_gives_that_name_also_in_the_place_of_an_older_machine(own, gate):
    Machine(made(own)).joins(gate)
    token = made(own, host="pi4")

    assert refusal(Machine(token, "mini", is_named=True), gate) == "name_fixed"
    fresh = Machine(token, "raspberrypi", install="b" * 32)
    assert fresh.opens(fresh.joins(gate)).host == "pi4"


def test_a_worker_s_token_makes_a_client_if_asked_and_a_client_s_no_worker(own, gate):
    asked = Machine(made(own), "laptop", as_client=True)
    plain = Machine(made(own, role="client"), "phone")

    assert asked.opens(asked.joins(gate)).role == "client"
    assert plain.opens(plain.joins(gate)).role == "client"


def test_a_token_is_good_still_when_nothing_could_be_given_for_it(tmp_path):
    own = config.load({"RELAYQ_HOME": str(tmp_path), "RELAYQ_WORKER__NAME": "vm"})
    token = made(own)

    for _ in range(2):
        with pytest.raises(RelayqError, match="the broker doesn't run"):
            Machine(token).joins(Gate(own))


def test_a_token_is_good_still_when_it_could_not_be_noted_who_joined_by_it(own, gate):
    token = made(own, host="pi4")
    notes = own.home / "broker" / "joined.json"
    notes.write_text("{")
    with pytest.raises(RelayqError, match="can't be understood"):
        Machine(token).joins(gate)

    notes.unlink()

    assert Machine(token).joins(gate)
    assert [one.name for one in joined(own)] == ["pi4"]


def test_a_machine_that_was_given_nothing_has_no_name_here(tmp_path):
    own = config.load({"RELAYQ_HOME": str(tmp_path), "RELAYQ_WORKER__NAME": "vm"})
    with pytest.raises(RelayqError, match="the broker doesn't run"):
        Machine(made(own)).joins(Gate(own))

    assert joined(own) == []


@pytest.mark.parametrize("name", ["worker-pi4", "client-pi4", "old-raspberry"])
def test_the_name_of_a_machine_whose_user_was_made_by_hand_is_taken(own, gate, name):
    role = "client" if name.startswith("client") else "worker"
    users.add_user(own, name, role=role, host=None if "pi4" in name else "pi4")
    token = made(own)

    assert refusal(Machine(token), gate) == "name_taken"
    assert Machine(made(own, host="pi4")).joins(gate)


def test_no_token_gives_the_name_of_the_broker_s_machine(own):
    with pytest.raises(Conflict, match="vm is this machine"):
        made(own, host="vm")


def test_tickets_are_their_owner_s_alone_and_never_hold_the_secret(own, gate):
    token = made(own)
    folder = own.home / "broker" / "tickets"
    (file,) = folder.iterdir()
    unused = file.read_text()
    Machine(token).joins(gate)
    used = json.loads(file.read_text())

    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    assert token.secret.hex() not in unused
    # Who reads the disk later can't open a recorded answer either.
    assert used["answer_key"] == ""


# What a machine keeps


@pytest.fixture
def other(tmp_path, monkeypatch):
    monkeypatch.setenv("RELAYQ_HOME", str(tmp_path / "other"))
    return config.load()


def test_a_machine_that_can_keep_nothing_says_so_before_it_asks():
    with pytest.raises(ConfigError, match="can't write /proc/relayq"):
        joining.check_changeable(config.load({"RELAYQ_HOME": "/proc/relayq"}))


def test_a_look_whether_it_can_leaves_nothing_behind(other):
    joining.check_changeable(other)

    assert list(other.home.iterdir()) == []


def test_the_authority_of_a_broker_by_its_url_comes_with_the_answer(tmp_path, other):
    there = tmp_path / "of the vm.crt"
    there.write_text("BEGIN CERTIFICATE")
    asked = "sentinel://a:1;sentinel://b:2/0?master=fleet&ssl_cert_reqs=required"
    own = config.load(
        {
            "RELAYQ_HOME": str(tmp_path / "home"),
            "RELAYQ_BROKER__URL": f"{asked}&ssl_ca_certs={quote(str(there))}",
            "RELAYQ_BROKER__PASSWORD": PASSWORD,
        }
    )
    machine = Machine(made(own))

    given = machine.opens(machine.joins(Gate(own)))
    joining.keep(other, joining.Answer(given, "100.64.0.1"), slots=None)

    kept = other.home / joining.CERTIFICATE
    assert kept.read_text() == "BEGIN CERTIFICATE"
    told = config.load()
    assert told.broker.url == f"{asked}&ssl_ca_certs={quote(str(kept))}"
    assert joining.membership(told).host == "pi4"


def test_a_key_of_another_fleet_is_there_until_the_new_one_is(own, gate, other):
    machine = Machine(made(own))
    before = load_key(other.fleet_key_path)
    given = machine.opens(machine.joins(gate))
    # Nothing can be written in its place.
    (other.home / joining.PASSWORD).mkdir()

    with pytest.raises(ConfigError, match="can't write"):
        joining.keep(other, joining.Answer(given, "100.64.0.1"), slots=None)
    assert load_key(other.fleet_key_path) == before

    (other.home / joining.PASSWORD).rmdir()
    aside = joining.keep(other, joining.Answer(given, "100.64.0.1"), slots=None)
    assert load_key(aside) == before
    assert aside.stat().st_mode & 0o777 == 0o600
    assert other.fleet_key_path.read_text() == given.key


# Tokens and wishes


def test_a_token_is_one_line_that_terminals_may_break():
    token = new_token(URLS)
    text = token.text

    assert read_token(text) == token
    assert read_token(f"  {text[:40]}\n{text[40:]}\r\n") == token
    assert "secret" not in repr(token)
    assert len(text) < 200


@pytest.mark.parametrize(
    "change", [lambda t: t[:-20], lambda t: t + "!", lambda t: t[:30] + t[31:]]
)
def test_a_token_that_was_cut_says_so(change):
    with pytest.raises(ConfigError, match="cut or changed"):
        read_token(change(new_token(URLS).text))


def test_a_token_that_nests_without_end_is_none():
    deep = base64.urlsafe_b64encode(b"[" * 30_000).decode()

    with pytest.raises(ConfigError, match="cut or changed"):
        read_token(f"rq1.{deep}")


@pytest.mark.parametrize("text", ["", "hello", "rq2.abc", "K10abc::server:def"])
def test_what_is_no_token_says_how_one_looks(text):
    with pytest.raises(ConfigError, match=r"begins with rq1\."):
        read_token(text)


@pytest.mark.parametrize(
    "change",
    [
        {"ticket": "../../etc/passwd"},
        {"ticket": "A" * 16},
        {"name": "a/b"},
        {"name": ""},
        {"nonce": 5},
        {"install": None},
        {"is_named": "yes"},
        {"more": 1},
        {"proof": None},
        {"proof": "\u0663"},
    ],
)
def test_what_has_another_form_is_refused_before_anything_is_looked_up(change):
    machine = Machine(new_token(URLS))
    said = {**machine.wish.signed(b"k"), **change}

    with pytest.raises(ValueError, match=r".+"):
        read_wish(said)
    for other in ([], "text", None, 5):
        with pytest.raises(ValueError, match="object"):
            read_wish(other)
