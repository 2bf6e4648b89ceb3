"""An analysis, scattered: the files of a directory become shards, and each shard an agent's job.

All jobs are queued at once, each lane of them one after the other: the fleet goes on with them
whether or not anybody looks (`relayq.harvesting` is who looks).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.agents import adapters
from relayq.config import install_id
from relayq.errors import BadSignature, NoSuchAnalysis, RelayqError
from relayq.model import findings, prompts, shards
from relayq.model.analyses import Part, Plan, Wishes, lanes
from relayq.model.importgraph import import_graph
from relayq.model.jobs import Spec, new_id
from relayq.sourcetree import Tree, list_tree, read_texts

if TYPE_CHECKING:
    from relayq.agents.adapters import Adapter
    from relayq.client import Relay

#: How many turns a session has, of agents that can be told so.
TURNS = 5
#: What a plan is stored under, for its signature.
_PLAN = "analysis:"
_FOUND = "analysed:"


def settle(relay: Relay, wishes: Wishes) -> Wishes:
    """Return what was asked, completed by what the agent can; raises for what it can't."""
    known = adapters.load(relay.config.adapters)
    adapter = adapters.known(wishes.agent, known)
    if adapter.is_http or "read_only" not in adapter.permission:
        why = "has no tools to read files with" if adapter.is_http else "can't be kept to reading"
        able = [n for n, one in known.items() if not one.is_http and "read_only" in one.permission]
        raise RelayqError(
            f"{wishes.agent} {why}, so it can't analyse any", hint=f"--agent {'|'.join(able)}"
        )
    if wishes.budget is not None and not adapter.budget:
        raise RelayqError(
            f"{wishes.agent} doesn't say what it costs, so no budget of a run can be held",
            hint="relayq analyze without --budget",
        )
    turns = wishes.max_turns
    if turns is None and _has_turns(adapter):
        turns = TURNS
    return replace(wishes, max_turns=turns, template=wishes.template or prompts.DEFAULT)


def _has_turns(adapter: Adapter) -> bool:
    return bool(adapter.max_turns) or adapter.is_counted


def plan(relay: Relay, directory: str, wishes: Wishes, *, is_fresh: bool = False) -> Plan:
    """Divide a directory into shards; nothing is queued.

    Files in whose content an earlier run with the same question has looked aren't looked into
    again, unless `is_fresh`.
    """
    wishes = settle(relay, wishes)
    tree = list_tree(directory, ext=wishes.ext)
    sha256s = {one.path: one.sha256 for one in tree.files}
    cached = {} if is_fresh else known(relay, wishes, sha256s)
    made = _divided(tree, [one for one in tree.files if one.path not in cached], wishes)
    after = lanes([shard.weight for shard in made], wishes.workers)
    parts = [Part(shard, new_id(), one) for shard, one in zip(made, after, strict=True)]
    id = new_id()
    return Plan(
        id=id,
        root=tree.root,
        install=install_id(relay.config.home),
        created_at=clock.now(),
        submitter=relay.submitter,
        wishes=wishes,
        parts=tuple(parts),
        cached={path: sha256s[path] for path in cached},
        left_out=dict(tree.left_out),
        commit=tree.commit,
        is_dirty=tree.is_dirty,
    )


def _divided(
    tree: Tree, files: Sequence[shards.SourceFile], wishes: Wishes
) -> Sequence[shards.Shard]:
    imports = import_graph(read_texts(tree)) if wishes.by == "imports" else None
    return shards.plan(
        files,
        by=wishes.by,
        smallest=wishes.smallest,
        largest=wishes.largest,
        first=wishes.first,
        imports=imports,
    )


def known(
    relay: Relay, wishes: Wishes, sha256s: Mapping[str, str]
) -> dict[str, list[findings.Issue]]:
    """Return what earlier runs found in these very contents, by path."""
    keys = {key_of(wishes, path, sha256): path for path, sha256 in sha256s.items()}
    session = relay.session()
    found = {}
    for key, signed in session.store.analyses.found(list(keys)).items():
        try:
            text = session.signer.check_note(signed, name=_FOUND + key)
            found[keys[key]] = [findings.Issue.from_dict(one) for one in json.loads(text)]
        except (BadSignature, ValueError, TypeError, KeyError):
            # Another fleet key's, or another version's: it is looked into again.
            continue
    return found


def key_of(wishes: Wishes, path: str, sha256: str) -> str:
    """Return the name under which what was found in a file is kept."""
    return findings.cache_key(
        path,
        sha256,
        template=wishes.template,
        schema=wishes.schema or findings.SCHEMA,
        agent=wishes.agent,
        model=wishes.model or "",
    )


def remember(
    relay: Relay,
    wishes: Wishes,
    found: Mapping[str, Sequence[findings.Issue]],
    sha256s: Mapping[str, str],
) -> None:
    """Keep what was found in files, for runs to come."""
    session = relay.session()
    kept = {}
    for path, issues in found.items():
        if sha256 := sha256s.get(path):
            key = key_of(wishes, path, sha256)
            text = json.dumps([one.as_dict() for one in issues]).encode()
            kept[key] = session.signer.sign_note(_FOUND + key, text)
    if kept:
        session.store.analyses.remember(kept)


def keep(relay: Relay, plan: Plan) -> None:
    """Keep a plan in Redis."""
    session = relay.session()
    text = json.dumps(plan.as_dict(), separators=(",", ":")).encode()
    signed = session.signer.sign_note(_PLAN + plan.id, text)
    session.store.analyses.keep(plan.id, signed, created_at=plan.created_at)


def kept(relay: Relay, id: str) -> Plan:
    """Return a plan that Redis has."""
    session = relay.session()
    signed = session.store.analyses.fetch(id)
    if signed is None:
        raise NoSuchAnalysis(f"no such run of an analysis: {id}", hint="relayq analyze ls")
    text = session.signer.check_note(signed, name=_PLAN + id)
    try:
        return Plan.from_dict(json.loads(text))
    except ValueError as error:
        raise BadSignature(f"the run {id} can't be read: {error}") from error


def submit(relay: Relay, plan: Plan) -> None:
    """Keep a plan and queue all of its jobs."""
    # First: of jobs that nobody knows the run of nothing would ever come.
    keep(relay, plan)
    try:
        queue(relay, plan, [(part.shard, part.job, _before(plan, part)) for part in plan.parts])
    except RelayqError:
        relay.session().store.analyses.forget(plan.id)
        raise


def _before(plan: Plan, part: Part) -> str | None:
    return None if part.after is None else plan.parts[part.after].job


def queue(relay: Relay, plan: Plan, wanted: Sequence[tuple[shards.Shard, str, str | None]]) -> None:
    """Queue the sessions of shards, each with its job's id and the job that it comes after."""
    if not wanted:
        return
    specs = [spec_of(relay, plan, shard, job, after) for shard, job, after in wanted]
    relay.job._submit(specs, wait_for_host=bool(plan.wishes.asked.get("wait_for_host")))


def asked_of(relay: Relay, plan: Plan, shard: shards.Shard) -> dict[str, Any]:
    """Return the keywords of `Job.submit` for the session of a shard."""
    wishes = plan.wishes
    adapter = adapters.known(wishes.agent, adapters.load(relay.config.adapters))
    schema = wishes.schema or findings.SCHEMA
    text = prompts.prompt(shard, template=wishes.template, schema=schema)
    files: dict[str, Any] = {"cwd": plan.root}
    if not wishes.in_place:
        files = {"files_in": [(os.path.join(plan.root, one), one) for one in shard.paths]}
    given = {
        "prompt": text,
        "model": wishes.model,
        "max_turns": wishes.max_turns,
        "budget": wishes.budget,
        "schema": schema if adapter.schema else None,
        "reads": list(shard.paths),
        "unattended": True,
        "timeout": wishes.shard_timeout,
        "retries": 1,
        "retry_on": "timeout",
        "backoff": "1s..5s",
        "group": plan.group,
        "meta": {"analysis": plan.id, "shard": shard.name},
        "grant": "none",
        **files,
        **wishes.asked,
    }
    given = {key: value for key, value in given.items() if value is not None}
    return relay.job.asked_of_agent(wishes.agent, permission="read_only", **given)


def spec_of(
    relay: Relay, plan: Plan, shard: shards.Shard, job: str, after: str | None = None
) -> Spec:
    """Return the spec of the session of a shard."""
    asked = {**asked_of(relay, plan, shard), "wait_for_host": True}
    # Where it may run is looked at once, when all of them are queued.
    spec = relay.job.plan("run_agent", **asked)
    return replace(spec, id=job, after_any=() if after is None else (after,))


def newest(relay: Relay, *, root: str | None = None, limit: int = 20) -> list[Plan]:
    """Return the plans of the last runs, the newest first: of one directory here, or all."""
    found = []
    here = install_id(relay.config.home)
    for id in relay.session().store.analyses.newest(limit):
        try:
            one = kept(relay, id)
        except (NoSuchAnalysis, BadSignature):
            continue
        if root is None or (one.root, one.install) == (root, here):
            found.append(one)
    return found
