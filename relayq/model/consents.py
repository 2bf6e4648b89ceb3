"""A person's word that what has ended may run once more: signed, and good once a host and job.

Without it a host doesn't start again what it has brought to an end itself, whatever the records
say.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import inf

from relayq.model.jobs import Spec

#: How long after it was signed a spec, or a consent, is good; a job that may wait longer for a host
#: (`expires`) as long as that.
LASTS = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Consent:
    """That this job, or the jobs of this run of a workflow, may run again.

    `at` is when it was said, in Unix seconds; `nonce` makes each another one.
    """

    id: str
    flow: str
    at: float
    nonce: str

    def covers(self, spec: Spec) -> bool:
        """Whether it is about this job."""
        return spec.id == self.id or (bool(self.flow) and spec.flow == self.flow)


def new_consent(id: str, *, flow: str = "", at: float) -> Consent:
    """Return a consent that nobody has used."""
    return Consent(id, flow, at, os.urandom(12).hex())


def good_until(spec: Spec, said_at: float = 0.0) -> float:
    """Return the instant from which on a spec is too old to start; a later consent renews it.

    One that doesn't say when it was signed never is.
    """
    if not spec.signed_at:
        return inf
    begins = max(float(spec.signed_at), spec.due_at or 0.0, said_at)
    return begins + max(LASTS, spec.expires or 0.0)
