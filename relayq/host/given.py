"""The secrets that a job gets: of this host's file, or sealed by who submitted it.

They go to the shim with its order, in memory: the only file with a value is the host's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relayq.errors import BadSignature, RelayqError
from relayq.host import secrets
from relayq.model.jobs import Spec
from relayq.model.secrets import name_of, sealed_of
from relayq.privileges import as_owner
from relayq.sealedsecrets import Locker


class Given:
    """What this host can give to jobs."""

    def __init__(self, home: Path, host: str) -> None:
        self._home = home
        self._file = str(home / secrets.FILE)
        self._host = host
        self._locker = Locker(home)

    def of(self, asked: Sequence[str]) -> dict[str, str]:
        """Return the secrets that a job asks for, by name; raises if one can't be had here."""
        if not asked:
            return {}
        kept = self._kept()
        if missing := [one for one in asked if sealed_of(one) is None and one not in kept]:
            raise RelayqError(
                f"{self._host} has no secret {', '.join(missing)}",
                hint=f"there: relayq secret set {missing[0]}",
            )
        return {name_of(one): self._value(one, kept) for one in asked}

    def known(self, asked: Sequence[str]) -> dict[str, str]:
        """Return those that can still be had, to hide them."""
        kept = self._kept()
        had = [one for one in asked if sealed_of(one) is not None or one in kept]
        return {name_of(one): self._value(one, kept) for one in had}

    def told(self, spec: Spec) -> dict[str, Any]:
        """Return what the attempt's command says of them; no value."""
        names = [name_of(one) for one in spec.secrets]
        return {"names": names, "asked": list(spec.secrets), "home": str(self._home)}

    def _kept(self) -> Mapping[str, str]:
        with as_owner():
            return secrets.read(self._file)

    def _value(self, one: str, kept: Mapping[str, str]) -> str:
        name, sealed = name_of(one), sealed_of(one)
        if sealed is None:
            return kept[name]
        try:
            with as_owner():
                value = self._locker.unseal(name, sealed)
        except BadSignature as error:
            raise RelayqError(
                f"{self._host} can't open the sealed secret {name}: {error.message}",
                hint=f"relayq secret seal {name} --on {self._host}",
            ) from error
        return secrets.check_value(name, value)


def known(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets of an attempt by what its command says of them."""
    return Given(Path(told["home"]), "this host").known(told["asked"])
