"""The last proof: a job that goes all the way to each host and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from relayq import clock
from relayq.client import JobResult, Relay
from relayq.doctor.findings import Finding, ok, problem, warning
from relayq.errors import JobError, RelayqError, WaitTimeout
from relayq.model.hosts import Host

_WORD = "relayq-doctor"


def examine_hosts_by_jobs(
    relay: Relay, hosts: Sequence[Host], here: str, *, timeout: float
) -> Iterator[Finding]:
    """Have each online host with a free slot echo a word, all at once; nothing is left of it."""
    online = [host for host in hosts if host.is_online]
    free = [host for host in online if host.active < host.slots]
    busy = [host.name for host in online if host not in free]
    if busy:
        yield ok("all", f"no echo job for {', '.join(busy)}: all slots busy")
    began = clock.boottime()
    sent: list[tuple[str, JobResult]] = []
    for host in free:
        try:
            job = relay.job.run(
                ["echo", _WORD],
                host=host.name,
                priority="urgent",
                timeout=timeout,
                on_lost="fail",
                name="relayq doctor",
            )
        except RelayqError as error:
            yield problem(here, f"can't submit a job: {error.message}", error.hint)
            return
        sent.append((host.name, job))
    if sent:
        took = (clock.boottime() - began) / len(sent)
        yield ok(here, f"a submit takes {took * 1000:.0f} ms")
    for name, job in sent:
        yield _echoed(name, job, began, timeout)


def _echoed(name: str, job: JobResult, began: float, timeout: float) -> Finding:
    try:
        said = job.get(timeout=max(0.1, began + timeout - clock.boottime()))
    except WaitTimeout:
        with suppress(RelayqError):
            job.cancel()
            job.wait(timeout=2.0)
        return problem(
            name,
            f"online, and yet an echo job didn't come back within {timeout:g} s",
            f"the worker's log on {name}; relayq worker stop and start there",
        )
    except JobError as error:
        return problem(name, f"an echo job failed: {error.message}", error.hint)
    finally:
        with suppress(RelayqError):
            job.forget()
    took = clock.boottime() - began
    if said != _WORD:
        return problem(name, f"an echo job gave {said!r}", f"relayq run --on {name} echo hello")
    if took > timeout / 2:
        return warning(name, f"echo job {took:.2f} s round trip", f"relayq status; load of {name}")
    return ok(name, f"echo job {took:.2f} s round trip")
