"""All about one job, in labelled lines: `show`, and what a submit would do (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Iterable

from relayq.cli import agentfacts, families, files, git, graphs, meters, outputs, scripts
from relayq.cli.show import command_of, due, kind_of, run_time, state_of, why_failed, wishes_of
from relayq.cli.tables import painted
from relayq.cli.texts import age, inert, instant, limit
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason, Spec
from relayq.model.secrets import said_of
from relayq.parsing import size_text


def job_details(record: JobRecord, outcome: Outcome | None, now: float) -> list[str]:
    """Return the lines of `show`."""
    since = record.finished_at or record.started_at or record.created_at
    name = f'  "{inert(record.spec.name)}"' if record.spec and record.spec.name else ""
    state = painted(state_of(record), state_of(record))
    head = f"{record.id}  {state}  since {instant(since)} ({age(now - since)}){name}"
    return [head, *_labelled(_details(record, outcome, now))]


def plan(spec: Spec) -> list[str]:
    """Return the lines of `--dry-run`."""
    return list(_labelled(_plan(spec)))


def _labelled(details: Iterable[tuple[str, str]]) -> Iterable[str]:
    for label, value in details:
        first, *rest = [inert(line) for line in value.splitlines()] or [""]
        yield f"  {label:<10}{first}".rstrip()
        yield from (" " * 12 + line for line in rest)


def _plan(spec: Spec) -> Iterable[tuple[str, str]]:
    yield from _what_runs(spec)
    yield "Host", _host_asked(spec)
    yield "Queue", spec.queue
    yield from _asked_for(spec)


def _what_runs(spec: Spec) -> Iterable[tuple[str, str]]:
    command = spec.payload.get("cmd")
    if "prompt" in spec.payload:
        yield "Prompt", command_of(spec)
        yield "Agent", ", ".join(agentfacts.asked(spec))
    elif not isinstance(command, list):
        yield "Command", command_of(spec)
    elif script := scripts.called(command):
        yield "Script", f"{script}, {len(str(command[4]).splitlines())} lines"
        yield "By", " ".join(str(word) for word in command[5:])
    else:
        yield "Program", command_of(spec)


def _asked_for(spec: Spec) -> Iterable[tuple[str, str]]:
    is_fresh = "prompt" in spec.payload or spec.files_in or spec.files_out
    nowhere = "a fresh directory" if is_fresh else "~"
    yield "Cwd", f"{spec.payload.get('cwd') or nowhere}{git.directory(spec)}"
    if env := spec.payload.get("env"):
        yield "Env", ", ".join(env)
    if spec.secrets:
        yield "Secrets", ", ".join(map(said_of, spec.secrets))
    yield from files.asked(spec)
    yield "Limits", _limits(spec)
    if spec.due_at is not None:
        yield "Due", instant(spec.due_at)
    yield from graphs.asked(spec)
    yield from families.asked(spec)
    for label, value in (
        ("Group", spec.group),
        ("Labels", ", ".join(spec.labels)),
        ("Meta", ", ".join(f"{key}={value}" for key, value in spec.meta.items())),
        ("Unique", spec.unique),
        ("Note", spec.note),
    ):
        if value:
            yield label, value


def _host_asked(spec: Spec) -> str:
    """Say where a job may run."""
    parts = [spec.host or " or ".join(spec.on) or "any host", *wishes_of(spec)]
    return ", ".join(parts)


def _restrictions(spec: Spec) -> list[str]:
    """Say what a job asks of its host, unless that is one by its name and no more."""
    return [" or ".join(spec.on), *wishes_of(spec)] if spec.on else wishes_of(spec)


def _details(record: JobRecord, outcome: Outcome | None, now: float) -> Iterable[tuple[str, str]]:
    spec = record.spec
    yield from _what_runs(spec) if spec is not None else [("Command", "?")]
    yield "Kind", kind_of(record)
    yield "Host", _where(record)
    if spec is not None:
        if asked := _restrictions(spec):
            yield "Asked", ", ".join(asked)
        yield from _asked_for(spec)
    yield from agentfacts.did(record, outcome)
    yield from outputs.became(record, outcome)
    if record.state is JobState.FAILED:
        yield "Failed", why_failed(record, outcome)
    elif record.state is JobState.SCHEDULED and record.attempt:
        yield "Next try", due(record, now)
        yield "Last try", why_failed(record, outcome)
    elif record.reason not in (None, Reason.EXIT):
        yield "Reason", str(record.reason)
    if record.state is JobState.RUNNING and record.paused is not None:
        yield "Paused", _paused(record, now)
    elif record.pause_at is not None:
        yield "Paused", f"asked for {age(now - record.pause_at)} ago; its host hasn't obeyed yet"
    if record.progress is not None:
        yield "Progress", meters.described(record.progress, now)
    if record.exit_code is not None:
        yield "Exit", str(record.exit_code)
    if record.signal is not None:
        yield "Signal", str(record.signal)
    if outcome is not None:
        yield "Output", _output(outcome)
        if outcome.remarks:
            yield "Limited", "\n".join(outcome.remarks)
        yield from git.committed(outcome)
        yield from files.brought(outcome, record.host)
        yield from outputs.given(outcome)
    yield "Times", _times(record, now)
    yield "Submitted", spec.submitter if spec is not None else "?"
    if record.note:
        yield "Remark", record.note
    yield "Next", " | ".join(f"relayq {verb} {record.id}" for verb in _next(record))


def _paused(record: JobRecord, now: float) -> str:
    since = f", since {instant(record.paused_at)}" if record.paused_at is not None else ""
    lasts = f" ({age(now - record.paused_at)})" if record.paused_at is not None else ""
    return f"{record.paused}{since}{lasts}; its time limit stands still"


def _where(record: JobRecord) -> str:
    attempt = f"attempt {record.attempt}" if record.attempt else "no attempt yet"
    losses = f", lost {record.losses} times" if record.losses else ""
    phase = f", {record.phase}" if record.state is JobState.RUNNING and record.phase else ""
    return f"{'any host' if record.target == '-' else record.target} ({attempt}{losses}{phase})"


def _limits(spec: Spec) -> str:
    parts = [] if spec.timeout is None else [f"timeout {limit(spec.timeout)}"]
    parts += [f"memory {size_text(spec.memory)}"] if spec.memory is not None else []
    parts += [f"processes {spec.processes}"] if spec.processes is not None else []
    parts += [f"output {size_text(spec.max_output)}"] if spec.max_output is not None else []
    parts += [f"priority {spec.priority}", f"retries {spec.retries}", f"on lost {spec.on_lost}"]
    if spec.retries:
        first, longest = spec.backoff
        parts.append(f"after {limit(first)} to {limit(longest)} on {', '.join(spec.retry_on)}")
    return ", ".join(parts)


def _output(outcome: Outcome) -> str:
    lost = (
        f", {size_text(outcome.dropped_bytes)} lost to a full disk" if outcome.dropped_bytes else ""
    )
    kept = "" if outcome.is_whole else f", the whole of it on {outcome.host}"
    return f"{size_text(outcome.output_bytes)}{kept}{lost}"


def _times(record: JobRecord, now: float) -> str:
    named = (
        ("submitted", record.created_at),
        ("claimed", record.claimed_at),
        ("started", record.started_at),
        ("ended", record.finished_at),
    )
    parts = [f"{name} {instant(at)}" for name, at in named if at is not None]
    ran = run_time(record, now)
    verb = "running for" if record.state is JobState.RUNNING else "ran"
    return "\n".join(parts if ran == "-" else [*parts, f"{verb} {ran}"])


def _next(record: JobRecord) -> list[str]:
    if record.state.is_final:
        gets = ["get"] if record.spec is not None and record.spec.files_out else []
        return [*gets, *(["diff"] if record.spec and record.spec.git else []), "logs", "retry"]
    if record.question:
        return ["answer", "logs", "cancel"]
    if record.state is JobState.NEEDS_HUMAN:
        return ["review", "logs", "retry", "cancel"]
    if record.pause_at is not None:
        return ["resume", "wait", "cancel"]
    return ["logs -f", "wait", "cancel"] if record.attempt else ["wait", "cancel"]
