"""Says once more how a job ended that this host has brought to an end a while ago.

A broker that was rolled back, or whose replica took over, has forgotten that end and gives the job
away again. So has one that somebody plays back an old record to. In each case nothing runs twice.
"""

from __future__ import annotations

from dataclasses import replace

from relayq.dispatch import TEMPLATE
from relayq.host import attempts
from relayq.host.delivery import Attempt
from relayq.model.jobs import FINAL, Outcome
from relayq.signing import Signer
from relayq.store import Store


def can_be_told(outcome: Outcome) -> bool:
    """Whether an outcome says all that is to be known: no question, file, or output elsewhere."""
    return outcome.state in FINAL and outcome.is_whole and not outcome.files and not outcome.git


def tell(store: Store, signer: Signer, attempt: Attempt, before: Outcome) -> None:
    """End an attempt that never began as the one ended that did."""
    token = attempt.token
    outcome = replace(before, attempt=token.attempt, uid=token.uid)
    store.leases.finish(
        token,
        outcome.state,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        outcome=signer.sign_outcome(outcome),
        template=TEMPLATE,
    )
    attempts.mark_delivered(attempt.directory, keep=False)
    attempt.settled.set()
