"""Whether this host starts a job that it was given: not twice, not too late, and for whom.

By default the fleet's key is enough. Where the home has an `authorized_submitters`, a person's own
key must have signed it, and within that line's limits. What a worker makes of a signed spec (the
items of a batch, the jobs of a list, those of a schedule) needs no key: it is made again here from
what was signed, and must be the same. What a job asked its worker to submit is as much that
worker's word as the job's: it needs a worker's key that is authorised for `children`, and the
parent's submitter must be allowed to do it, too.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from relayq import clock
from relayq.config import Config
from relayq.errors import BadSignature, NoSuchJob, NoSuchSchedule, RelayqError
from relayq.host.delivery import Attempt
from relayq.host.retelling import can_be_told
from relayq.host.seen import Seen
from relayq.identity import check_installed, is_signed_by
from relayq.kinds import Command
from relayq.kinds.command import expand
from relayq.model import batches
from relayq.model.consents import good_until
from relayq.model.fans import child_of
from relayq.model.grants import granted
from relayq.model.jobs import Outcome, Spec
from relayq.model.submitters import Submitter, read_submitters
from relayq.privileges import as_owner, job_user
from relayq.rotation import check_trusted
from relayq.signing import Signer, endorsement
from relayq.store import Store

log = logging.getLogger(__name__)

FILE = "authorized_submitters"
#: How many jobs may have made the next one, until the one that a person signed.
_DEEPEST = 16
#: What a clock may be wrong by.
_SKEW = 86_400.0


class Unauthorised(BadSignature):
    """Nobody whom this host's owner authorised has signed it, or not for this."""


class EndedBefore(Exception):
    """This host has brought the job to an end of late, and knows how: it is to be told again."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.id)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job that may start: until when its spec is good, and by whose lines, the nearest first.

    Where the host asks for no more than the fleet's key, there are no lines.
    """

    good_until: float
    submitters: tuple[Submitter, ...] = ()

    @property
    def about(self) -> dict[str, str]:
        """What the audit trail says of it."""
        names = " ".join(f"{one.name}:{one.id}" for one in self.submitters)
        return {"submitters": names} if names else {}


class Register:
    """The host's `authorized_submitters`, read again whenever it has changed."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._text = str(self._path)
        self._known: tuple[object, Mapping[str, Submitter]] = (None, {})

    def lines(self) -> Mapping[str, Submitter] | None:
        """Return the submitters by the ids of their keys, None without such a file.

        A file that can't be read, or trusted, authorises nobody: `Unauthorised`.
        """
        try:
            with as_owner():
                held = os.stat(self._text)
        except OSError as error:
            with as_owner():
                # A link may lead to a disk that isn't there.
                if isinstance(error, FileNotFoundError) and not os.path.islink(self._text):
                    return None
            raise _unreadable(error) from error
        stamp = (held.st_ino, held.st_mtime_ns, held.st_size, held.st_mode, held.st_uid)
        if self._known[0] != stamp:
            self._known = (stamp, self._read())
        return self._known[1]

    def _read(self) -> Mapping[str, Submitter]:
        try:
            check_installed()
            with as_owner():
                check_trusted(self._path)
                text = self._path.read_text("utf-8")
            found = read_submitters(text)
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(error) from error
        except RelayqError as error:
            hint = "relayq key ls, on that host" if error.hint is None else error.hint
            raise Unauthorised(f"this host's {FILE}: {error.message}", hint=hint) from error
        return {one.id: one for one in found}


def _unreadable(error: Exception) -> Unauthorised:
    return Unauthorised(
        f"this host can't read its {FILE}: {error}", hint="relayq key ls, on that host"
    )


class Admission:
    """Judges the jobs that one host claims."""

    def __init__(
        self,
        config: Config,
        host: str,
        store: Store,
        signer: Signer,
        *,
        may_run: Callable[[str], bool],
    ) -> None:
        self._may_run = may_run
        self._timeout = config.defaults.timeout
        self._host = host
        self._store = store
        self._signer = signer
        self._register = Register(config.home)
        self.seen = Seen(config.home)

    def tell(self) -> None:
        """Say in the log whose jobs run here, if this host asks; what runs goes on in any case."""
        try:
            lines = self._register.lines()
        except Unauthorised as error:
            log.error("no job runs here: %s%s", error, f" ({error.hint})" if error.hint else "")
            return
        if lines is not None:
            log.info("only jobs of these keys run here: %s", ", ".join(lines) or "none")

    def admit(self, spec: Spec, signed: bytes, answer: bytes | None = None) -> Admitted:
        """Say by whose word a job may start, or raise why it may not.

        `signed` is its spec as this fleet signed it; `answer` a person's reply, which was checked.
        """
        lines = self._register.lines()
        by = () if lines is None else self._origin(spec, signed, lines)
        if lines is not None and not spec.signed_at:
            raise BadSignature("it doesn't say when it was signed")
        until, now = good_until(spec), clock.now()
        # A spec that was signed anew, since Redis had lost the job, is a new word for the same id.
        has_ended = self.seen.has_ended(spec.id, until + _SKEW)
        if has_ended or now >= until:
            try:
                until = self._heard(spec, answer, now, lines, has_ended=has_ended)
            except BadSignature:
                before = self.seen.outcome_of(spec.id) if has_ended else None
                if before is None:
                    raise
                raise EndedBefore(self._signer.check_outcome(before, id=spec.id)) from None
        return Admitted(until, by)

    def _heard(
        self,
        spec: Spec,
        answer: bytes | None,
        now: float,
        lines: Mapping[str, Submitter] | None,
        *,
        has_ended: bool,
    ) -> float:
        """Return until when a job is good that needs a person's word to start once more."""
        until = good_until(spec, now)
        if answer is not None and self._is_news(spec, answer, until, has_ended=has_ended):
            return until
        signed = self._store.jobs.consent(spec.id)
        if signed is not None:
            consent = self._signer.check_consent(signed)
            until = good_until(spec, min(consent.at, now + _SKEW))
            if consent.covers(spec) and now < until:
                if lines is not None:
                    self._check_word("consent", signed, spec, lines)
                if self._is_news(spec, signed, until, has_ended=has_ended):
                    return until
        if has_ended:
            raise BadSignature(
                f"{self._host} has brought it to an end before, and nobody said since that it may "
                "run again",
                hint=f"relayq retry {spec.id}",
            )
        raise BadSignature(
            f"it was signed {(now - spec.signed_at) / 86_400:.0f} days ago, which is too long",
            hint=f"relayq retry {spec.id}",
        )

    def _is_news(self, spec: Spec, signed: bytes, until: float, *, has_ended: bool) -> bool:
        """Whether a person's word is good for one more start; it is for retries after that."""
        is_first = self.seen.hear(spec.id, hashlib.sha256(signed).hexdigest(), until + _SKEW)
        return is_first or not has_ended

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take note that this host has brought a job to an end, and how."""
        until = attempt.good_until
        if not until:
            # It was adopted.
            spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
            until = good_until(spec)
        told = self._signer.sign_outcome(outcome) if can_be_told(outcome) else None
        self.seen.end(attempt.token.id, max(until, clock.now()) + _SKEW, told)

    def check_start(self, admitted: Admitted, spec: Spec, command: Command) -> None:
        """Raise `Unauthorised` if what a job's spec came to is beyond what its submitter may."""
        if not admitted.submitters:
            return
        home = os.path.expanduser("~")
        asked = spec.payload.get("cwd")
        directory = os.path.realpath(expand(asked, home)) if asked else None
        for one in admitted.submitters:
            # Of a step, all is known only now.
            self._check(one, spec)
            if one.user not in (None, job_user()):
                raise Unauthorised(
                    f"jobs of {one.name} run as {one.user}, and those here as {job_user()}"
                )
            if directory is not None or not (spec.files_in or spec.files_out):
                why = one.why_not_in(directory or os.path.realpath(command.cwd), home=home)
                if why:
                    raise Unauthorised(why)

    def check_said(self, what: str, attempt: Attempt, signed: bytes) -> None:
        """Raise `Unauthorised` for a "reply", or input ("note"), of who may not submit that job."""
        lines = self._register.lines()
        if lines is not None:
            spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
            self._check_word(what, signed, spec, lines)

    def check_reply(self, signed: bytes, spec: Spec) -> None:
        """Raise `Unauthorised` unless who replied to a job may submit such a one here."""
        lines = self._register.lines()
        if lines is not None:
            self._check_word("reply", signed, spec, lines)

    def _check_word(
        self, what: str, signed: bytes, spec: Spec, lines: Mapping[str, Submitter]
    ) -> None:
        by = self._endorser(what, signed, lines)
        if by is None or by.children:
            what = {"note": "input"}.get(what, what)
            raise Unauthorised(f"the {what} isn't signed by a key that {self._host} authorised")
        self._check(by, spec)

    def _endorser(
        self, what: str, signed: bytes, lines: Mapping[str, Submitter]
    ) -> Submitter | None:
        """Return whose own key signed this; None for nobody's, or one that isn't authorised."""
        found = endorsement(what, signed)
        by = None if found is None else lines.get(found.id)
        if found is None or by is None:
            return None
        if not is_signed_by(by.public, found.signature, found.text):
            raise BadSignature(f"the signature of {by.name} is wrong")
        return by

    def _check(self, by: Submitter, spec: Spec) -> None:
        timeout = self._timeout if spec.timeout is None else spec.timeout
        if why := by.why_not(spec, host=self._host, now=clock.now(), timeout=timeout):
            raise Unauthorised(why)

    def _origin(
        self, spec: Spec, signed: bytes, lines: Mapping[str, Submitter], depth: int = 0
    ) -> tuple[Submitter, ...]:
        """Return by whose lines a job may run; raises `Unauthorised` if by nobody's."""
        if depth > _DEEPEST:
            raise Unauthorised("it is too many jobs away from what a person signed")
        by = self._endorser("spec", signed, lines)
        if by is not None and not by.children:
            self._check(by, spec)
            return (by,)
        found = self._derived(spec, lines, depth) if by is None else ()
        if by is not None and spec.ancestors:
            parent, its_signed = self._parent(spec.ancestors[-1])
            if spec.ancestors[:-1] != parent.ancestors or spec.grant != parent.grant:
                raise Unauthorised(f"it isn't below {parent.id} as it says")
            granted(parent).check(parent, spec)
            found = (by, *self._origin(parent, its_signed, lines, depth + 1))
        for one in found:
            self._check(one, spec)
        if found:
            return found
        stranger = endorsement("spec", signed)
        whose = "only the fleet's key" if stranger is None else f"key {stranger.id}"
        raise Unauthorised(
            f"it is signed by {whose if by is None else by.name}, which isn't authorised for it "
            f"on {self._host}",
            hint=f"relayq key show, where it was submitted; relayq key authorize, on {self._host}",
        )

    def _derived(
        self, spec: Spec, lines: Mapping[str, Submitter], depth: int
    ) -> tuple[Submitter, ...]:
        """Return by whose lines a job may run that was made of what a person signed, if it was."""
        makers: list[Callable[[Spec], tuple[Spec, bytes] | None]] = [self._batch, self._step]
        for maker in makers:
            made = maker(spec)
            if made is not None:
                return self._origin(*made, lines, depth + 1)
        by = self._scheduled(spec, lines)
        return () if by is None else (by,)

    def _parent(self, id: str) -> tuple[Spec, bytes]:
        try:
            signed = self._store.jobs.signed_spec(id)
        except NoSuchJob as error:
            raise Unauthorised(f"{id}, of which it was made, was forgotten") from error
        return self._signer.check_spec(signed, id=id), signed

    def _batch(self, spec: Spec) -> tuple[Spec, bytes] | None:
        """Return the batch that gave this job's item back, None if none did."""
        numbers = batches.numbers_of(spec)
        if spec.kind != batches.SINGLE or not spec.ancestors or len(numbers) != 1:
            return None
        parent, signed = self._parent(spec.ancestors[-1])
        if parent.kind != batches.KIND:
            return None
        made = batches.given_back(parent, numbers)
        return (parent, signed) if spec in made else None

    def _step(self, spec: Spec) -> tuple[Spec, bytes] | None:
        """Return the step that became this job, among others; None if none did.

        Only its values aren't the step's own: they are of what other jobs gave.
        """
        id, _, number = (spec.item_of or "").partition(" ")
        if not id or not number.isdecimal():
            return None
        parent, signed = self._parent(id)
        made = child_of(parent, int(number), spec.matrix)
        is_same = replace(made, host=spec.host, name=spec.name) == spec
        return (parent, signed) if is_same and parent.fans and self._may_run(made.queue) else None

    def _scheduled(self, spec: Spec, lines: Mapping[str, Submitter]) -> Submitter | None:
        """Return who signed the schedule of which this job is, None if it is of none."""
        name = spec.meta.get("schedule")
        if not name:
            return None
        # Imported only where something recurs: it knows of time zones.
        from relayq.model.schedules import submitted_as
        from relayq.recurring import check

        try:
            record = self._store.schedules.fetch(name).record
        except NoSuchSchedule:
            return None
        try:
            job = submitted_as(check(self._signer, record), spec)
        except ValueError as error:
            raise Unauthorised(f"the schedule {name} can't be read here: {error}") from error
        if job is None or not self._may_run(job.queue):
            return None
        by = self._endorser("note", record.signed, lines)
        return None if by is None or by.children else by
