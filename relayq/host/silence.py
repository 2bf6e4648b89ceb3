"""Since when an agent's program only waits for its API, which it seldom says itself.

Of one that says nothing it is looked at what its connections carry. Standard library only.
"""

from __future__ import annotations

from typing import NamedTuple

from relayq.host.connections import Sight, Watch

#: After so long without a word it is looked at, and so often: where the network drops packets,
#: claude says nothing of it for 127 s, and codex for 90; of a request that was taken and never
#: answered gemini for 60 s, and the others not within two minutes.
_QUIET = 3.0
_LOOK = 2.0


class Waited(NamedTuple):
    """For how many seconds it has waited to get through to its API, or for a first answer."""

    access: float = 0.0
    answer: float = 0.0


class Silence:
    """One run's silence; all instants are on the clock of its program."""

    def __init__(self, session: int) -> None:
        self._watch = Watch(session)
        self._seen = Sight()
        self._alive_at = 0.0
        self._looked_at: float | None = None
        #: Since when it only waits, None while it lives.
        self._since: float | None = None

    def heard(self, at: float) -> None:
        """Note that it said something that isn't about waiting."""
        self._alive_at = at
        self._since = self._looked_at = None
        self._seen = Sight()

    def waited(self, at: float, *, is_retrying: bool, is_using_tools: bool) -> Waited:
        """Return what it has only waited for, and for how many seconds."""
        seen = self._look(at, is_retrying)
        if is_retrying or seen.is_knocking:
            # Counted from the request that is tried again, if that was seen to have no answer.
            self._since = at if self._since is None else self._since
            return Waited(access=at - self._since)
        if seen.arrived or seen.is_at_work or is_using_tools:
            self._alive_at, self._since = at, None
        elif seen.unanswered is not None:
            began = max(self._alive_at, at - seen.unanswered)
            self._since = began if self._since is None else self._since
            return Waited(answer=at - self._since)
        # One that has given up a request is about to say so, or to try it again.
        return Waited()

    @property
    def is_answered(self) -> bool:
        """Whether an answer is coming in at last, of which it hasn't said a word yet."""
        return self._seen.flows

    def _look(self, at: float, is_retrying: bool) -> Sight:
        """Return what is seen, for the first time only: what has arrived then is no news later."""
        if not is_retrying and at - self._alive_at < _QUIET:
            return Sight()
        if self._looked_at is None:
            self._watch.begin()
        elif at - self._looked_at < _LOOK:
            return self._seen
        self._looked_at = at
        self._seen = self._watch.look(at)
        return self._seen
