"""A job's spec, made of what a submitter asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relayq import clock
from relayq.agentsections import PRIVATE
from relayq.config import KEYS, Config
from relayq.errors import NoSuchHost, RelayqError
from relayq.gitjobs import asked_ref
from relayq.model.grants import read_grant
from relayq.model.jobs import ON_LOST, Spec, new_id, priority_number
from relayq.model.placement import MEMORY, Constraints, constrain
from relayq.model.retries import policy_fields
from relayq.model.secrets import check_secrets, name_of, need_of
from relayq.model.selectors import check_group, check_labels, check_meta, check_name, check_text
from relayq.model.strategies import strategy_of
from relayq.parsing import duration, fits, is_host_name

#: What may be asked of a job beside its payload.
OPTIONS = (
    "host timeout memory processes max_output priority on_lost retries backoff retry_on name "
    "labels meta group unique note after due_at delay expires on needs excluded resources prefer "
    "overflow strategy with_job private files_in files_out overwrite git secrets grant after_any"
).split()
#: The names of what may be asked of a host, beside `host`.
_ASKED = ("on", "needs", "excluded", "resources", "prefer", "overflow")


def make_spec(
    config: Config,
    kind: str,
    payload: Mapping[str, Any],
    *,
    submitter: str,
    host: str | None = None,
    timeout: float | str | None = None,
    priority: int | str = "normal",
    on_lost: str = "retry",
    memory: int | str | None = None,
    processes: int | None = None,
    max_output: int | str | None = None,
    retries: int | None = None,
    backoff: str | Iterable[float] | None = None,
    retry_on: str | Iterable[str] | None = None,
    name: str | None = None,
    labels: Iterable[str] = (),
    meta: Mapping[str, str] | None = None,
    group: str | None = None,
    unique: str | None = None,
    note: str | None = None,
    after: tuple[str, ...] = (),
    after_any: tuple[str, ...] = (),
    due_at: float | None = None,
    delay: float = 0.0,
    expires: float | str | None = None,
    with_job: str | None = None,
    strategy: str | None = None,
    private: str | None = None,
    files_in: tuple[Mapping[str, Any], ...] = (),
    files_out: tuple[Mapping[str, Any], ...] = (),
    secrets: Iterable[str] | str = (),
    git: str | bool | None = None,
    grant: Mapping[str, Any] | Iterable[str] | str | None = None,
    **asked: Any,
) -> Spec:
    """Check what is asked of a job, and return its spec; `asked` is for `where`."""
    # What only looks at jobs needs none of them.
    from relayq import kinds

    read = kinds.find(kind).read_payload(payload)
    # What an agent may use of the fleet's accounts; no other kind has any.
    accounts: tuple[str, ...] = getattr(read, "accounts", ())
    hidden = _secrets(secrets, payload)
    ref = asked_ref(git, payload)
    asked["needs"] = (
        *getattr(read, "needs", ()),
        *map(need_of, hidden),
        *(() if ref is None else ("git",)),
        *texts_in(asked.get("needs")),
    )
    if private is not None:
        host, asked = _kept_private(config, private, accounts, host, asked)
        if with_job is not None:
            raise RelayqError("a private job can't be with another one, which may be anywhere")
        labels = (*([labels] if isinstance(labels, str) else labels), f"{PRIVATE}{private}")
    if on_lost not in ON_LOST:
        raise RelayqError(f"on_lost is one of {', '.join(ON_LOST)}, not {on_lost!r}")
    if due_at is not None and delay > 0:
        raise RelayqError("a job has a due_at or a delay, not both")
    if with_job is not None and asked.get("prefer"):
        raise RelayqError("a job has a with_job or a prefer, not both")
    limit = _limit(config, "memory", memory)
    if memory is not None:
        # What may be used up to its limit is no longer there for others.
        asked["resources"] = {**(asked.get("resources") or {}), MEMORY: limit}
    fields = where(kind, host, asked, config)
    if with_job is not None and fields["host"] is not None:
        raise RelayqError("a job has a with_job or a host, not both")
    return Spec(
        id=new_id(),
        kind=kind,
        payload=payload,
        timeout=config.defaults.timeout if timeout is None else seconds_of("a timeout", timeout),
        memory=limit,
        processes=_limit(config, "processes", processes),
        max_output=_limit(config, "max_output", max_output),
        priority=priority_number(priority),
        on_lost=on_lost,
        **policy_fields(config, retries=retries, backoff=backoff, retry_on=retry_on),
        **fields,
        with_job=with_job,
        strategy=None if strategy is None else str(strategy_of(strategy)),
        expires=None if expires is None else seconds_of("expires", expires),
        due_at=clock.now() + delay if delay > 0 else due_at,
        after=after,
        after_any=after_any,
        name=None if name is None else check_name(name),
        labels=check_labels(labels),
        meta=check_meta(meta),
        group=None if group is None else check_group(group),
        unique=None if unique is None else check_text("a unique key", unique),
        note=note,
        submitter=submitter,
        accounts=accounts,
        files_in=files_in,
        files_out=files_out,
        grant=read_grant(grant),
        signed_at=int(clock.now()),
        secrets=hidden,
        git=ref,
    )


def _secrets(asked: Iterable[str] | str, payload: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of secrets, none of which is a variable that is given openly."""
    names = check_secrets(asked or ())
    if twice := sorted({*map(name_of, names)} & set(payload.get("env") or ())):
        raise RelayqError(f"{twice[0]} can't be both a variable (env) and a secret of the host")
    return names


def _kept_private(
    config: Config,
    label: str,
    accounts: Sequence[str],
    host: str | None,
    asked: Mapping[str, Any],
) -> tuple[str | None, dict[str, Any]]:
    """Return where a private job runs, or raise why what was asked isn't private."""
    kept = config.privacy.get(label)
    if kept is None:
        known = ", ".join(sorted(config.privacy)) or "none"
        raise RelayqError(
            f"no such private label: {label!r}; there is {known}", hint="relayq config edit"
        )
    if kept.agents:
        for account in accounts:
            agent = account.partition("/")[0]
            if agent not in kept.agents:
                raise RelayqError(
                    f"a job that is private as {label!r} is for {', '.join(kept.agents)} only, "
                    f"not for {agent}",
                    hint="relayq config show",
                )
    if not kept.hosts:
        if not accounts:
            raise RelayqError(
                f"privacy.{label} names no hosts, so it can keep only agents' jobs",
                hint="relayq config edit",
            )
        return host, dict(asked)
    on = asked.get("on") or ()
    words = ",".join([on] if isinstance(on, str) else on).split(",")
    named = [config.host_called(host)] if host else [word.strip() for word in words if word.strip()]
    for one in named:
        if not any(one == own or (is_host_name(one) and fits(own, one)) for own in kept.hosts):
            raise RelayqError(
                f"a job that is private as {label!r} is for {', '.join(kept.hosts)} only, "
                f"not for {one}",
                hint="relayq config show",
            )
    return host, dict(asked) if named else {**asked, "on": kept.hosts}


def texts_in(given: Iterable[str] | str | None) -> tuple[str, ...]:
    """Return the texts of what may be one, several or nothing."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def where(
    kind: str, host: str | None, asked: Mapping[str, Any], config: Config | None = None
) -> dict[str, Any]:
    """Return the fields of a spec that say where a job of this kind runs.

    `host` is one host's name; `asked` has `on`, `needs`, `excluded`, `resources`, `prefer` and
    `overflow` as a submitter gives them.
    """
    if unknown := sorted(set(asked) - set(_ASKED)):
        raise TypeError(f"submit doesn't know {', '.join(unknown)}")
    given = {name: value for name, value in asked.items() if value not in (None, (), "", [])}
    if host is not None and not is_host_name(host):
        raise NoSuchHost(
            f"no such host: {host} (names have lower-case letters, digits, '-', '_' and '.')",
            hint="relayq status",
        )
    if host is not None and "on" in given:
        raise RelayqError("a job has a host or an on, not both")
    if "overflow" in given:
        given["overflow"] = seconds_of("overflow", given["overflow"])
    if config is not None and host is None and "prefer" not in given:
        preferring = (name for name, entry in config.hosts.items() if kind in entry.prefer_for)
        if (preferred := next(preferring, None)) is not None:
            given["prefer"] = preferred
    found = constrain(**given)
    on = found.on
    if len(on) == 1 and is_host_name(on[0]):
        host, on = on[0], ()
    if host is not None and config is not None:
        host = config.host_called(host)
    if "all" in (host, *on):
        raise RelayqError("a job runs on one host; for one on each: job.broadcast(...)")
    return {
        "host": host,
        "on": on,
        "needs": found.needs,
        "excluded": found.excluded,
        "resources": dict(found.resources),
        "prefer": found.prefer,
        "overflow": found.overflow,
    }


def constraints_for(config: Config, kind: str, asked: Mapping[str, Any]) -> Constraints:
    """Return what a job of this kind would ask of its host: `asked` of `where`, and `memory`."""
    from relayq import kinds

    kinds.find(kind)
    asked = dict(asked)
    if (memory := asked.pop("memory", None)) is not None:
        asked["resources"] = {**(asked.get("resources") or {}), MEMORY: memory}
    return Spec(id="", kind=kind, payload={}, **where(kind, None, asked, config)).constraints


def seconds_of(what: str, given: float | str) -> float:
    """Return a length of time in seconds, more than none; it may be a text such as `5h`."""
    try:
        seconds = duration(given) if isinstance(given, str) else float(given)
    except ValueError as error:
        raise RelayqError(f"{what}: {error}, got {given!r}") from error
    if seconds <= 0:
        raise RelayqError(f"{what} must be longer than 0 s")
    return seconds


def _limit(config: Config, name: str, asked: int | str | None) -> int | None:
    """Return a limit that was asked for, else the configured one; read as that is."""
    if asked is None:
        configured: int | None = getattr(config.defaults, name)
        return configured
    try:
        limit: int = KEYS[f"defaults.{name}"].metadata["parse"](str(asked))
    except ValueError as error:
        raise RelayqError(f"{name}: {error}, got {asked!r}") from error
    return limit
