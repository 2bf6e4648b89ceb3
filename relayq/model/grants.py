"""What a job may submit itself: which kinds, on which hosts, how deep and how many.

Decided by the worker of the job that asks; counted by the store, over all descendants of one root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from relayq.errors import RelayqError
from relayq.model.jobs import Spec
from relayq.parsing import fits, is_host_name

_SAID = "a grant is none, kinds=KIND,..., hosts=HOST,..., depth=N, at_once=N or most=N"
#: More would only hide an endless loop.
_DEEPEST = 10
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job may submit; without `kinds` any kind, without `hosts` any host.

    `depth` is how many jobs may come one of the other, below the root; `at_once` of a root's
    descendants may be unended at a time, and `most` may ever be made.
    """

    kinds: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    depth: int = 3
    at_once: int = 20
    most: int = 100

    def as_dict(self) -> dict[str, Any]:
        """Return what differs from the default, as a spec has it."""
        said = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default:
                said[f.name] = list(value) if isinstance(value, tuple) else value
        return said

    def check(self, parent: Spec, child: Spec) -> None:
        """Raise if this parent may not submit this child."""
        if self.depth == 0:
            raise RelayqError(f"{parent.id} may submit nothing: it was granted none")
        if len(parent.ancestors) >= self.depth:
            raise RelayqError(
                f"{parent.id} may submit nothing: it is {len(parent.ancestors)} jobs below "
                f"{parent.root} already, and its grant's depth is {self.depth}",
                hint="return what is to be done to the job that asked",
            )
        if self.kinds and child.kind not in self.kinds:
            raise RelayqError(
                f"{parent.id} may submit {', '.join(self.kinds)} only, not {child.kind}"
            )


def granted(spec: Spec) -> Grant:
    """Return the grant of a job."""
    return _checked(spec.grant)


def read_grant(said: Mapping[str, Any] | Iterable[str] | str | None) -> dict[str, Any]:
    """Return a grant as a spec has it: of texts (`hosts=mini,pi*`), or of its fields."""
    if said is None:
        return {}
    if isinstance(said, Mapping):
        return _checked(said).as_dict()
    read: dict[str, Any] = {}
    for text in [said] if isinstance(said, str) else said:
        name, equals, value = text.strip().partition("=")
        if not equals and name == "none":
            read["depth"] = 0
        elif equals and name in ("kinds", "hosts"):
            read[name] = [one.strip() for one in value.split(",") if one.strip()]
        elif equals and value.strip().isdecimal():
            read[name] = int(value)
        else:
            raise RelayqError(f"{_SAID}, not {text!r}")
    return _checked(read).as_dict()


def _checked(said: Mapping[str, Any]) -> Grant:
    known = asdict(Grant())
    limits = {"depth": _DEEPEST, "at_once": _MOST, "most": _MOST}
    for name, value in said.items():
        if name in limits:
            if isinstance(value, bool) or not isinstance(value, int):
                raise RelayqError(f"a grant's {name} is a number, not {value!r}")
            if not 0 <= value <= limits[name]:
                raise RelayqError(f"a grant's {name} is at most {limits[name]}, not {value}")
        elif name not in known:
            raise RelayqError(f"{_SAID}, not {name}")
        elif not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise RelayqError(f"a grant's {name} are texts, not {value!r}")
    read: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in said.items()}
    return Grant(**read)


def narrowed(spec: Spec, hosts: Iterable[str], why: str) -> dict[str, Any]:
    """Return the changes to a spec that keep it on these hosts; raises if it asks for others.

    `hosts` are names, patterns and labels, `why` says whose rule that is.
    """
    allowed = tuple(hosts)
    if not allowed:
        return {}
    if spec.with_job is not None:
        raise RelayqError(f"{why} {', '.join(allowed)} only: name a host instead of another job")
    named = [spec.host] if spec.host is not None else list(spec.on)
    for one in named:
        if not any(one == own or (is_host_name(one) and fits(own, one)) for own in allowed):
            raise RelayqError(f"{why} {', '.join(allowed)} only, not {one}")
    return {} if named else {"on": allowed}
