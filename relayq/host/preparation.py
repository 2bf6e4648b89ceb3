"""A claimed job becomes an attempt's directory on the disk: checked, planned, ready for a shim."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relayq.agentsections import refusal
from relayq.config import Config
from relayq.errors import BadSignature, BrokerUnavailable, RelayqError
from relayq.host import checkpoints, desk, givenback, outputs, secrets, tokens
from relayq.host.cargo import Cargo, Load
from relayq.host.delivery import Attempt
from relayq.host.engines import weights
from relayq.host.facts import job_environment
from relayq.host.fans import Fans
from relayq.host.feed import INPUT
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
    ) -> None:
        self._config = config
        self._host = host
        self._store = store
        self._signer = signer
        self._queues = queues
        self._permit = permit
        self._cargo = cargo
        self._steps = Steps(store, signer, Fans(store, signer, config))

    def prepare(self, attempt: Attempt, claim: Claim) -> Verdict | None:
        """Write the attempt's directory, or return the verdict on a spec that may not run."""
        try:
            spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
            if not self._queues.may_run(spec.queue):
                raise BadSignature(f"it was signed for {spec.queue}")
            if spec.accounts and claim.account not in spec.accounts:
                raise BadSignature(f"it was signed for {', '.join(spec.accounts)}")
            self._check_private(spec, claim.account)
            self._check_secrets(spec)
            if is_step(spec):
                worked_out = self._steps.work_out(spec, claim)
                if isinstance(worked_out, Verdict):
                    return worked_out
                spec = worked_out
            answer, left = self._answer(claim), self._left(attempt)
            declared = find(spec.kind)
            scratch = self._cargo.scratch(spec, attempt.directory)
            tree, payload = self._tree(spec)
            command = declared.kind.plan(
                declared.read_payload(givenback.left_of(self._store, spec, attempt.token, payload)),
                self._facts(claim, answer, scratch),
            )
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
        left = None if token.attempt == 1 else self._store.checkpoints.of(token.id)
        return None if left is None or len(left) > checkpoints.LARGEST else left

    def _check_secrets(self, spec: Spec) -> None:
        """Raise if this host hasn't every secret that a job asks for."""
        if not spec.secrets:
            return
        known = secrets.read(self._secrets(spec)["file"])
        if missing := [name for name in spec.secrets if name not in known]:
            raise RelayqError(
                f"{self._host} has no secret {', '.join(missing)}",
                hint=f"there: relayq secret set {missing[0]}",
            )

    def _secrets(self, spec: Spec) -> dict[str, Any]:
        """Return what the shim is told: the names, and the file that it reads the values from."""
        path = str(self._config.home / secrets.FILE)
        return {"file": path, "names": list(spec.secrets)}

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

    def _answer(self, claim: Claim) -> dict[str, Any] | None:
        """Return what a person answered, if that is what they signed."""
        if claim.answer is None:
            return None
        token = claim.token
        try:
            reply = self._signer.check_answer(
                claim.answer, id=token.id, attempt=token.attempt, outcome=claim.outcome
            )
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
                **({"secrets": self._secrets(spec)} if spec.secrets else {}),
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
