"""The runner program: it carries out one order for an agent, as a job's process under its shim.

The order comes on standard input. A readable transcript goes to standard output as it happens, the
answer into the report that the worker reads when this process has ended; a worker may die and
another take over meanwhile. Whatever the agent does, it doesn't hold a slot to wait for its API.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from relayq.agents import invocation
from relayq.agents.adapters import Adapter
from relayq.agents.answers import Answer, ErrorClass, Status
from relayq.agents.classify import failure
from relayq.agents.order import Order
from relayq.errors import RelayqError
from relayq.host import credentials, masking
from relayq.host.conversation import Conversation
from relayq.host.program import Program, Signals
from relayq.host.sessions import Carried, SessionInUse, Sessions, write_whole
from relayq.kinds.agent import LATEST, UNWRITTEN
from relayq.kinds.command import expand

#: What a worker takes of a report.
LARGEST_REPORT = 8 * 2**20
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXIT_CODES = {
    Status.OK: 0,
    Status.NEEDS_HUMAN: 80,
    Status.REQUEUED: 75,
    Status.CANCELLED: 130,
    Status.TIMED_OUT: 124,
}


def main() -> None:
    """Carry out the order on standard input, and exit with a code that says how that went."""
    signals = Signals()
    # A locale of ASCII mustn't end the run at the first umlaut.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    order = Order.from_dict(json.load(sys.stdin.buffer))
    environ = dict(os.environ)
    order = replace(
        order,
        job_id=environ.get("RELAYQ_JOB_ID", order.job_id),
        attempt=int(environ.get("RELAYQ_ATTEMPT", order.attempt)),
        report=environ.get("RELAYQ_REPORT", order.report),
    )
    try:
        answer = Runner(order, environ, signals).run()
    except OSError as error:
        # The report is on the same disk, and so is what is said here: the exit code remains.
        with suppress(OSError):
            sys.stdout.write(f"! its host can't write the report: {error.strerror or error}\n")
            sys.stdout.flush()
        os._exit(UNWRITTEN)
    sys.exit(EXIT_CODES.get(answer.status, 1))


class Runner:
    """One order, from its session to its report."""

    def __init__(self, order: Order, environ: Mapping[str, str], signals: Signals) -> None:
        self._order = order
        self._adapter = Adapter.from_dict(order.adapter)
        self._environ = environ
        self._signals = signals
        self._home = environ.get("HOME") or os.path.expanduser("~")
        self._sessions = Sessions(order.state_dir)
        self._secrets, self._hidden = masking.of_job(environ)
        self._keys: dict[str, str] = {}
        self._mask = credentials.Mask({})

    def run(self) -> Answer:
        """Carry the order out and leave the report."""
        self._sessions.prune()
        try:
            self._keys = credentials.read_keys(f"{self._order.state_dir}.env", self._order.account)
            self._mask = credentials.Mask(self._keys, self._hidden)
            answer = self._answered()
        except SessionInUse as error:
            said = f"the session {error} is in use by another run on this host"
            answer = self._refused(ErrorClass.SESSION_IN_USE, said)
        except _NotFound as error:
            answer = self._refused(ErrorClass.SESSION_NOT_FOUND, str(error))
        except RelayqError as error:
            is_config = getattr(error, "place", None) is not None
            hint = f" ({error.hint})" if error.hint else ""
            error_class = ErrorClass.AUTH if is_config else ErrorClass.INVALID
            answer = self._refused(error_class, f"{error}{hint}")
        except OSError as error:
            said = f"its host can't write its files: {error.strerror or error}"
            answer = self._refused(ErrorClass.TRANSIENT, said)
        self._sessions.unlock()
        self._report(answer)
        return answer

    def _refused(self, error_class: ErrorClass, message: str) -> Answer:
        sys.stdout.write(f"! {self._mask.text(message)}\n")
        return failure(self._order, error_class, message)

    def _report(self, answer: Answer) -> None:
        if not self._order.report:
            return
        report = {
            "answer": self._mask.value(answer.as_dict()),
            "home": self._home,
            "has_sessions": self._adapter.session != "none",
            "unattended": self._order.unattended,
        }
        if len(json.dumps(report)) > LARGEST_REPORT:
            said = "its structured answer is too large; the raw events have it"
            kept = replace(
                answer,
                structured=None,
                text=answer.text[: 2**20],
                status=Status.NEEDS_HUMAN,
                error_class=ErrorClass.NEEDS_REVIEW,
                message=said,
            )
            report["answer"] = self._mask.value(kept.as_dict())
        write_whole(self._order.report, report)

    def _answered(self) -> Answer:
        """Return the answer, of a fresh session when the one that the job carried is gone."""
        order = self._order
        own = self._sessions.carried(order.job_id, order.agent, order.account, self._home)
        if own is not None and not self._adapter.argv_resume:
            own = None
        if own is None:
            return self._converse(*self._begun())
        answer = self._converse(self._resumed(own), own)
        if answer.error_class is not ErrorClass.SESSION_NOT_FOUND or self._signals.is_asked:
            return answer
        sys.stdout.write("- its session is gone: it begins anew\n")
        self._sessions.forget(order.job_id, order.agent)
        fresh = replace(
            order,
            session=None,
            fork=False,
            cwd=own.cwd,
            tools=tuple(dict.fromkeys((*order.allowed, *own.allowed))),
            prompt=_with_reply(order.prompt, order.answer.text if order.answer else own.reply),
        )
        return replace(self._converse(fresh, None), is_context_lost=True)

    def _begun(self) -> tuple[Order, Carried | None]:
        """Return the order for a job that has no session yet, and what is known of a named one."""
        order = self._order
        cwd = None if order.cwd is None else expand(order.cwd, self._home)
        before = None
        if order.session == LATEST:
            before = self._sessions.latest(order.agent, order.account, cwd)
            if before is None:
                raise _NotFound(
                    f"{order.agent} has had no session in {cwd or 'any directory'} on this host"
                )
        elif order.session is not None:
            before = self._sessions.known(order.session)
        if before is not None:
            order = replace(order, session=before.session_id)
            cwd = cwd or before.cwd
        reply = order.answer.text if order.answer else ""
        cwd = cwd or self._sessions.scratch(order.job_id)
        return replace(order, cwd=cwd, prompt=_with_reply(order.prompt, reply)), before

    def _resumed(self, own: Carried) -> Order:
        """Return the order for a job that goes on where an earlier attempt of it left off."""
        order = self._order
        reply = order.answer.text if order.answer else own.reply
        if own.has_progressed:
            prompt = reply or invocation.CONTINUE
        else:
            # The session may never have heard what it is for.
            prompt = _with_reply(order.prompt, reply)
        sys.stdout.write(f"- goes on in its session {own.session_id}\n")
        return replace(
            order,
            session=own.session_id,
            fork=False,
            cwd=own.cwd,
            tools=tuple(dict.fromkeys((*order.tools, *own.allowed))),
            prompt=prompt,
        )

    def _converse(self, order: Order, before: Carried | None) -> Answer:
        """Start the agent in its session and follow it to its end."""
        if order.cwd == self._sessions.scratch_path(order.job_id):
            self._sessions.scratch(order.job_id)
        if order.cwd is None or not os.path.isdir(order.cwd):
            raise RelayqError(f"no such directory: {order.cwd}")
        if order.session is not None and not order.fork:
            self._sessions.lock(order.session)
        directory = self._sessions.run(order.job_id, order.attempt)
        is_new = order.session is None or order.fork
        new_session = str(uuid.uuid4()) if self._adapter.chooses_session_id and is_new else ""
        conversation = Conversation(
            order,
            self._adapter,
            sessions=self._sessions,
            home=self._home,
            before=before,
            mask=self._mask,
            raw=os.path.join(directory, "raw.jsonl"),
        )
        try:
            program = self._start(order, directory, new_session)
        except OSError as error:
            return self._unstarted(order, error)
        return conversation.follow(program, self._signals, on_cancel=self._report)

    def _start(self, order: Order, directory: str, new_session: str) -> Program:
        adapter = self._adapter
        env = credentials.environment(
            self._environ,
            keys=self._keys,
            passed=adapter.env_pass,
            added={
                **invocation.environment(
                    adapter, order, directory=directory, is_root=os.geteuid() == 0
                ),
                **self._secrets,
            },
        )
        if adapter.is_http:
            invocation.check(adapter, order)
            code = (
                f"import sys; sys.path.insert(0, {_ROOT!r}); from relayq.host.llm import main; "
                "main()"
            )
            argv = [sys.executable, "-I", "-c", code]
            stdin = json.dumps(
                {
                    "url": adapter.url,
                    "model": order.model or adapter.default_model,
                    "prompt": order.prompt,
                    "schema": order.schema,
                    "key_env": adapter.key_env,
                    "first_answer": adapter.first_answer,
                    "patience": order.limits.stall,
                }
            )
        else:
            argv = invocation.argv(adapter, order, directory=directory, new_session=new_session)
            if "/" in argv[0]:
                argv[0] = expand(argv[0], self._home)
            stdin = invocation.stdin(adapter, order)
            for name, text in invocation.files(adapter, order).items():
                path = os.path.join(directory, name)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
                    file.write(text)
        assert order.cwd is not None
        return Program(
            argv,
            env=env,
            cwd=order.cwd,
            stdin=stdin.encode("utf-8", "surrogatepass"),
            signals=self._signals,
            grace=order.limits.grace,
        )

    def _unstarted(self, order: Order, error: OSError) -> Answer:
        """Return the answer of an agent whose program can't be started."""
        what = f"{self._adapter.command}: {error.strerror or error}"
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
            return failure(order, ErrorClass.MISSING, f"can't start {what}")
        if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENOSPC):
            return failure(order, ErrorClass.TRANSIENT, f"this host can't start {what}")
        return failure(order, ErrorClass.INVALID, f"can't start {what}")


class _NotFound(Exception):
    """There is no session as it was asked for."""


def _with_reply(prompt: str, reply: str) -> str:
    if not reply or reply == invocation.CONTINUE:
        return prompt
    return f"{prompt}\n\nA person's answer to what you asked before:\n{reply}"
