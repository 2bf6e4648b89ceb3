"""A client's connection: its patience with a broker that goes away and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from relayq import clock
from relayq import config as configuration
from relayq.config import Config
from relayq.errors import BrokerUnavailable, WaitTimeout
from relayq.signing import Signer
from relayq.store import Store

if TYPE_CHECKING:
    from relayq.waiting import Bystander

if TYPE_CHECKING:
    from relayq.artifacts import Artifacts
    from relayq.transfer import Progress

_AGAIN = 0.5

T = TypeVar("T")
#: Shows how far a file is: called with what is done with it, its name and its size.
Shows = Callable[[str, str, int], "AbstractContextManager[Progress | None]"]


@contextmanager
def shown_nowhere(what: str, name: str, size: int) -> Iterator[Progress | None]:
    """Show nothing of a file on its way."""
    yield None


@dataclass
class Session:
    """A store, the key to check what it says, and where remarks go.

    Who waits ticks about every 4 times `tick` seconds. `shows` is told of files on their way.
    """

    store: Store
    signer: Signer
    say: Callable[[str], None]
    tick: float = 5.0
    is_cut_off: bool = field(default=False)
    shows: Shows = shown_nowhere
    config: Config = field(default_factory=configuration.load)

    @cached_property
    def _bystander(self) -> Bystander:
        # Imported only for a wait: logging and random take a tenth of what a short command does.
        from relayq.waiting import Bystander

        return Bystander(self.store, self.tick)

    @cached_property
    def artifacts(self) -> Artifacts:
        """Where the fleet's files are."""
        from relayq.artifacts import Artifacts

        return Artifacts(self.store, self.config, self.signer)

    def patiently(self, ask: Callable[[], T], deadline: float | None) -> T | None:
        """Ask, over an outage if need be; None when the broker didn't answer this time."""
        try:
            answer = ask()
        except BrokerUnavailable as error:
            if not self.is_cut_off:
                self.say(f"{error.message}; waiting for it")
                self.is_cut_off = True
            if deadline is not None and clock.boottime() >= deadline:
                raise WaitTimeout("the broker can't be reached", hint="relayq status") from error
            clock.sleep(_AGAIN)
            return None
        if self.is_cut_off:
            self.say("the broker answers again")
            self.is_cut_off = False
        self._bystander.look()
        return answer

    def surely(self, ask: Callable[[], T]) -> T:
        """Ask until the broker answers."""
        while (answer := self.patiently(lambda: (ask(),), None)) is None:
            continue
        return answer[0]
