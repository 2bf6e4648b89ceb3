"""A claimed job becomes an attempt's directory on the disk: checked, planned, ready for a shim."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from relayq.agentsections import refusal
from relayq.config import Config
from relayq.errors import BadSignature, BrokerUnavailable, RelayqError
from relayq.host import checkpoints, desk, givenback, outputs, tokens
from relayq.host.admission import Admission, Unauthorised
from relayq.host.cargo import Cargo, Load
from relayq.host.delivery import Attempt
from relayq.host.engines import weights
from relayq.host.facts import job_environment
from relayq.host.fans import Fans
from relayq.host.feed import INPUT
from relayq.host.given import Given
from relayq.host.process import make_attempt_directory
from relayq.host.queues import Queues
from relayq.host.reports import REPORT
from relayq.host.steps import Steps, is_step
from relayq.host.worktrees import Tree, wanted
from relayq.kinds import Command, HostFacts, Verdict, find
from relayq.kinds.command import expand
from relayq.kinds.transcribe import is_hubs
from relayq.model.accounts import Quota
from relayq.model.jobs import JobState, Reason, Spec
from relayq.model.placement import constraints_of, is_fit_elsewhere, queue_of
from relayq.passage import SOCKET, TOKEN
from relayq.signing import Signer, UnknownKey
from relayq.store import Store
from relayq.store.leases import Claim

#: How long pipes may stay open after the command's own end (as `> >(tee)` needs).
_LINGER = 2.0


def no_room(error: OSError) -> Verdict:
    """Return the verdict on an attempt for which its host can't write a file."""
    said = f"its host can't write its files: {error.strerror or error}"
    return Verdict(JobState.FAILED, Reason.HOST, error=said)


class Preparation:
    """Prepares the attempts of one worker."""

    def __init__(
        self,
        config: Config,
        host: str,
        store: Store,
        signer: Signer,
        queues: Queues,
        permit: Path,
        cargo: Cargo,
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._config = config
        self._host = host
        self._store = store
        self._signer = signer
        self._queues = queues
        self._permit = permit
        self._cargo = cargo
        self._secrets = Given(config.home, host)
        self._steps = Steps(store, signer, Fans(store, signer, config))

    def prepare(self, attempt: Attempt, claim: Claim) -> Verdict | None:
        """Write the attempt's directory, or return the verdict on a spec that may not run."""
        try:
            spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
            attempt.about = {"kind": spec.kind, "who": spec.submitter}
            if not self._queues.may_run(spec.queue):
                raise BadSignature(f"it was signed for {spec.queue}")
            if spec.accounts and claim.account not in spec.accounts:
                raise BadSignature(f"it was signed for {', '.join(spec.accounts)}")
            answer = self._answer(claim, spec)
            admitted = self._admission.admit(spec, attempt.note.signed, claim.answer)
            attempt.good_until = admitted.good_until
            attempt.about |= admitted.about
            self._check_private(spec, claim.account)
            attempt.secrets = self._secrets.of(spec.secrets)
            if is_step(spec):
                worked_out = self._steps.work_out(spec, claim)
                if isinstance(worked_out, Verdict):
                    return worked_out
                spec = worked_out
            left = self._left(attempt)
            declared = find(spec.kind)
            scratch = self._cargo.scratch(spec, attempt.directory)
            tree, payload = self._tree(spec)
            command = declared.kind.plan(
                declared.read_payload(givenback.left_of(self._store, spec, attempt.token, payload)),
                self._facts(claim, answer, scratch),
            )
            self._admission.check_start(admitted, spec, command)
            if command.feed and self._store.inputs.taken(spec.id):
                raise RelayqError("its standard input went to an attempt before this one")
            load = (
                self._cargo.load(spec, attempt.token, attempt.directory, command.cwd, tree)
                if scratch or tree
                else None
            )
        except BrokerUnavailable:
            raise
        except UnknownKey as error:
            return Verdict(JobState.SCHEDULED, Reason.AUTH, error=str(error))
        except _Forged as error:
            question = (
                "the answer to this job isn't what a person of this fleet said: answer again?"
            )
            return Verdict(
                JobState.NEEDS_HUMAN, Reason.REFUSED, error=str(error), question=question
            )
        except Unauthorised as error:
            return self._unauthorised(attempt, claim, error)
        except RelayqError as error:
            hint = f" ({error.hint})" if error.hint else ""
            return Verdict(JobState.FAILED, Reason.REFUSED, error=f"{error}{hint}")
        attempt.is_fed = command.feed
        attempt.has_files = load is not None
        try:
            self._write(attempt, spec, command, load)
            if left is not None:
                checkpoints.write(os.path.join(attempt.directory, checkpoints.CHECKPOINT), left)
        except OSError as error:
            # A full disk, for instance: nothing was started, and that is known now.
            return no_room(error)
        return None

    def _left(self, attempt: Attempt) -> bytes | None:
        """Return what earlier attempts left for this one."""
        token = attempt.token
        if token.attempt == 1:
            return None
        return checkpoints.Checkpoints(self._store, self._signer).left(token.id)

    def _tree(self, spec: Spec) -> tuple[Tree | None, Mapping[str, Any]]:
        """Return the worktree that a job is to have, and its payload with that as directory."""
        cwd = expand(spec.payload.get("cwd"), os.path.expanduser("~"))
        tree = wanted(spec, self._config.home, cwd)
        return tree, spec.payload if tree is None else {**spec.payload, "cwd": tree.cwd}

    def _check_private(self, spec: Spec, account: str) -> None:
        """Raise if what this host's own configuration keeps private may not run here."""
        said = refusal(
            self._config.privacy, spec.labels, account=account, is_here=self._queues.is_one_of
        )
        if said:
            raise RelayqError(said, hint="relayq config show, there and where it was submitted")

    def _unauthorised(self, attempt: Attempt, claim: Claim, error: Unauthorised) -> Verdict:
        """Return the verdict on a job that somebody may not run here: others may let them."""
        spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
        hint = f" ({error.hint})" if error.hint else ""
        told = f"{self._host} refused it: {error.message}{hint}"
        own = spec.constraints
        refused = {*own.excluded, *constraints_of(claim.queue or "any").excluded, self._host}
        wanted = replace(own, excluded=tuple(sorted(refused)))
        hosts = self._store.hosts.list(online_within=self._config.lease.length)
        is_bound = bool(spec.host or spec.with_job)
        if is_bound or not is_fit_elsewhere(wanted, hosts, but=self._host):
            # A person's retry, when they have the right, begins anew.
            return Verdict(JobState.FAILED, Reason.REFUSED, error=told, queue=spec.queue)
        return Verdict(
            JobState.SCHEDULED, Reason.REFUSED, error=told, delay=0.0, queue=queue_of(wanted)
        )

    def _answer(self, claim: Claim, spec: Spec) -> dict[str, Any] | None:
        """Return what a person answered, if that is what they signed."""
        if claim.answer is None:
            return None
        token = claim.token
        try:
            reply = self._signer.check_answer(
                claim.answer, id=token.id, attempt=token.attempt, outcome=claim.outcome
            )
            self._admission.check_reply(claim.answer, spec)
        except UnknownKey:
            raise
        except BadSignature as error:
            raise _Forged(str(error)) from error
        return {"text": reply.text, "allow": list(reply.allow)}

    def _facts(self, claim: Claim, answer: dict[str, Any] | None, scratch: str) -> HostFacts:
        return HostFacts(
            name=self._host,
            home=os.path.expanduser("~"),
            state_dir=str(self._config.home / "agents"),
            is_root=os.geteuid() == 0,
            agents=self._config.agents,
            account=claim.account,
            answer=answer,
            scratch=scratch,
            models=weights.directory(os.environ, str(self._config.home)),
            hub={name: text for name, text in os.environ.items() if is_hubs(name)},
        )

    def _write(self, attempt: Attempt, spec: Spec, command: Command, load: Load | None) -> None:
        token, directory, config = attempt.token, attempt.directory, self._config
        data = b"" if command.feed else command.stdin
        stdin = None if data is None else str(directory / INPUT)
        environment = job_environment(os.environ, command.env, id=token.id, attempt=token.attempt)
        environment["RELAYQ_REPORT"] = str(directory / REPORT)
        environment["RELAYQ_DESK"] = str(directory / desk.DESK)
        environment[checkpoints.VARIABLE] = str(directory / checkpoints.CHECKPOINT)
        environment |= outputs.variables(directory)
        environment |= {SOCKET: tokens.address(config.home), TOKEN: tokens.fresh()}
        make_attempt_directory(
            config.spool,
            directory.name,
            {
                "argv": list(command.argv),
                "env": environment,
                "cwd": command.cwd,
                "stdin": stdin,
                "feed": command.feed,
                "tty": command.tty,
                "timeout": config.defaults.timeout if spec.timeout is None else spec.timeout,
                "grace": config.defaults.grace,
                "linger": _LINGER,
                **_limits(spec),
                "permit": str(self._permit),
                "check": config.lease.check,
                "umask": 0o022,
                "job": token.id,
                "claim": attempt.note.as_dict(),
                **({"stage": load.argv} if load else {}),
                **({"secrets": self._secrets.told(spec)} if spec.secrets else {}),
            },
        )
        if load is not None:
            load.write(directory)
        if data is not None:
            (directory / INPUT).write_bytes(data)


def quotas_of(agents: Mapping[str, Mapping[str, Any]]) -> dict[str, Quota]:
    """Return what the fleet may use of the accounts that the configuration names."""
    quotas = {}
    for agent, entry in agents.items():
        for name, account in entry.get("accounts", {}).items():
            asked: dict[str, Any] = {}
            if "limit" in account:
                asked["limit"] = int(account["limit"])
            if account.get("budget") is not None:
                asked["budget_usd"] = float(account["budget"])
            if "stagger" in account:
                asked["stagger"] = float(account["stagger"])
            quotas[f"{agent}/{name}"] = Quota(**asked)
    return quotas


class _Forged(RelayqError):
    """A reply isn't what a person signed for this attempt."""


def _limits(spec: Spec) -> dict[str, Any]:
    """Return what a shim is told of a job's limits: nothing of one without."""
    by_kernel = {"memory": spec.memory, "processes": spec.processes}
    limits = {name: value for name, value in by_kernel.items() if value is not None}
    told = {"limits": limits or None, "max_output": spec.max_output}
    return {name: value for name, value in told.items() if value is not None}
