"""Jobs of AI agents, for who asks: how they are made, what they answer, and what they are told."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.dispatch import Dispatcher
from relayq.errors import Conflict, NoSuchSession, RelayqError
from relayq.model.jobs import JobRecord, JobState, Outcome
from relayq.model.reviews import VERDICTS
from relayq.model.sessions import Session as AgentSession

if TYPE_CHECKING:
    from relayq.agents.answers import Answer
    from relayq.client import Relay
    from relayq.results import JobResult
    from relayq.session import Session

#: Kinds whose result is an agent's answer.
AGENT_KINDS = frozenset({"run_agent", "run_claude"})
_SESSIONS = "relayq agent sessions"


class OfAgents:
    """What a `Job` can do with agents."""

    relay: Relay

    #: What the client itself has.
    submit: Callable[..., JobResult]
    fetch: Callable[[str], JobResult]

    def agent(
        self,
        name: str,
        prompt: str,
        /,
        *,
        cwd: str | None = None,
        permission: str | None = None,
        session: str | None = None,
        continue_: bool = False,
        host: str | None = None,
        account: str | None = None,
        **options: Any,
    ) -> JobResult:
        """Queue a prompt for an agent: claude, codex, gemini, groq, or one of the configuration.

        `cwd` is a directory on the host (without it, a fresh one), `permission` read_only, edit or
        full: what the agent may do there without asking; without a word what `agents:` says, else
        edit. `session` is the id of one to go on with (`relayq agent sessions`), on its own host
        and in its own directory; `continue_` means the one that was used last, and `fork=True`
        branches off. `model`, `max_turns`, `budget` (USD), `schema` (of the answer), `tools` (that
        it may use without asking), `mcp` (servers by name), `args` (further arguments of its
        program) and `env` are the agent's, `account` and `fallbacks` (other agents, for when this
        one has no allowance left) the fleet's. The rest is as for `submit`.
        """
        asked = self.asked_of_agent(
            name,
            cwd=cwd,
            permission=permission,
            session=session,
            continue_=continue_,
            host=host,
            account=account,
            **options,
        )
        return self.submit("run_agent", prompt=prompt, **asked)

    def claude(self, prompt: str, **options: Any) -> JobResult:
        """Queue a prompt for Claude; see `agent`."""
        return self.agent("claude", prompt, **options)

    def answer(self, id: str, text: str = "", **options: Any) -> str:
        """Answer what a job asks; see `JobResult.answer`."""
        return self.fetch(id).answer(text, **options)

    def asked_of_agent(
        self,
        name: str,
        /,
        *,
        cwd: str | None = None,
        permission: str | None = None,
        session: str | None = None,
        continue_: bool = False,
        host: str | None = None,
        account: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the keywords of `submit` for an agent's job, its session found."""
        if session is not None and continue_:
            raise RelayqError("either a session or the last one (continue_), not both")
        if host is None and (host := _only_host(options)) is not None:
            del options["on"]
        host = host and self.relay.config.host_called(host)
        found = None
        if session is not None:
            found = self._session_of(name, session, host)
        elif continue_:
            found = self._last_session(name, account=account, host=host, cwd=cwd)
        if found is not None:
            host, session, cwd = found.host, found.id, cwd or found.cwd or None
            account = account or found.account.rpartition("/")[2] or None
        given = {"cwd": cwd, "session": session, "host": host, "account": account}
        return {
            "agent": name,
            "permission": (permission or self.relay.config.mode_of(name)).replace("-", "_"),
            **{key: value for key, value in given.items() if value is not None},
            **options,
        }

    def _session_of(self, agent: str, id: str, host: str | None) -> AgentSession | None:
        """Return what the fleet knows of a session; None for one that only its host may know."""
        try:
            found = self.relay.session().store.sessions.fetch(id)
        except NoSuchSession:
            if host is None:
                raise
            return None
        if found.agent != agent:
            raise RelayqError(f"the session {found.id} is {found.agent}'s", hint=_SESSIONS)
        if host is not None and host != found.host:
            raise Conflict(
                f"the session {found.id} lives on {found.host}, and can't go on on {host}",
                hint=f"--on {found.host}, or without --on",
            )
        return found

    def _last_session(
        self, agent: str, *, account: str | None, host: str | None, cwd: str | None
    ) -> AgentSession:
        for one in self.relay.session().store.sessions.list(agent=agent, host=host, limit=10_000):
            is_account = account in (None, one.account.rpartition("/")[2])
            if is_account and cwd in (None, one.cwd, _shortened(one, cwd)):
                return one
        where = f" in {cwd}" if cwd else ""
        on = f" on {host}" if host else ""
        raise NoSuchSession(f"{agent} has had no session{where}{on}", hint=_SESSIONS)


def _shortened(session: AgentSession, cwd: str | None) -> str | None:
    """Return the text of `cwd`, if it means the session's directory in its own home."""
    if cwd is None or not cwd.startswith("~"):
        return cwd if cwd and os.path.normpath(cwd) == session.cwd else None
    meant = os.path.normpath(session.home + cwd.removeprefix("~"))
    return cwd if meant == os.path.normpath(session.cwd) else None


def _only_host(options: Mapping[str, Any]) -> str | None:
    """Return the one host of `on`, if that is what it has."""
    from relayq.parsing import is_host_name

    on = options.get("on") or ()
    words = [on] if isinstance(on, str) else [*on]
    return words[0] if len(words) == 1 and is_host_name(words[0]) else None


def answer_of(record: JobRecord, outcome: Outcome | None) -> Answer | None:
    """Return what an agent's last attempt came to; None for other jobs, and before its end."""
    if record.kind not in AGENT_KINDS or outcome is None or not isinstance(outcome.result, dict):
        return None
    if record.spec is not None and record.spec.fans:
        return None  # the jobs that it became have the answers
    # Imported late: most who ask have no agent's job.
    from relayq.agents.answers import Answer

    return Answer.from_dict(outcome.result)


def value_of(answer: Answer) -> Any:
    """Return what `get` returns: the structured value, if one was asked for, else the text."""
    return answer.text if answer.structured is None else answer.structured


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that a person can say to a job; with a `verdict` it ends, or is queued, so."""

    label: str
    text: str = ""
    allow: tuple[str, ...] = ()
    verdict: str = ""


def choices_of(record: JobRecord, outcome: Outcome | None) -> Sequence[Choice]:
    """Return what a person can say to a job, in the order of their numbers.

    What the choices of a parked job mean is taken of its signed outcome, never of its record.
    """
    result = outcome.result if outcome is not None else None
    if record.state is JobState.NEEDS_HUMAN:
        if isinstance(result, dict) and isinstance(result.get("choices"), list):
            return [
                Choice(
                    str(one.get("label", "")),
                    str(one.get("text", "")),
                    tuple(map(str, one.get("allow", ()))),
                    str(one.get("verdict", "")),
                )
                for one in result["choices"]
                if isinstance(one, dict)
            ]
        return [Choice(verdict, verdict=verdict) for verdict in VERDICTS]
    return [Choice(label, label) for label in record.choices]


def reply(
    session: Session,
    record: JobRecord,
    outcome: Outcome | None,
    *,
    text: str = "",
    choice: int | str | None = None,
    allow: Iterable[str] = (),
    force: bool = False,
) -> str:
    """Give a job a person's word; returns "queued", "told", "already", or the verdict it meant."""
    dispatcher = Dispatcher(session.store, session.signer)
    chosen = _chosen(record.id, choices_of(record, outcome), text, choice)
    allowed = tuple(dict.fromkeys((*(chosen.allow if chosen else ()), *allow)))
    if chosen is not None and chosen.verdict:
        notes = "" if text == chosen.label else text
        dispatcher.resolve(record.id, chosen.verdict, notes=notes, force=force)
        return chosen.verdict
    if record.state is JobState.NEEDS_HUMAN and record.kind not in AGENT_KINDS:
        raise Conflict(
            f"{record.id} can't hear an answer: it has ended, and is to be judged",
            hint=f"relayq resolve {record.id} {'|'.join(VERDICTS)}",
        )
    if chosen is not None:
        text = chosen.text if choice is None or not text else f"{chosen.text}\n{text}"
    if not text.strip() and allowed:
        from relayq.agents.invocation import CONTINUE

        text = f"You may use {', '.join(allowed)} now. {CONTINUE}"
    if not text.strip():
        raise RelayqError("what is the answer? a text, or the number of a choice", hint=_review())
    return dispatcher.answer(record.id, text, allow=allowed, at=clock.now(), force=force)


def _chosen(
    id: str, choices: Sequence[Choice], text: str, choice: int | str | None
) -> Choice | None:
    wanted = text if choice is None else choice
    if isinstance(wanted, int) or (choice is not None and str(wanted).isdecimal()):
        number = int(wanted)
        if 1 <= number <= len(choices):
            return choices[number - 1]
        raise RelayqError(
            f"{id} has {len(choices)} choices, and no number {number}", hint=_review()
        )
    labelled = [one for one in choices if one.label.casefold() == str(wanted).strip().casefold()]
    if choice is not None and not labelled:
        known = ", ".join(one.label for one in choices) or "none"
        raise RelayqError(f"{id} has no choice {choice!r}; there is {known}", hint=_review())
    return labelled[0] if labelled else None


def _review() -> str:
    return "relayq review"
