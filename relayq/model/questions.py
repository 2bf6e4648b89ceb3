"""What a job asks a person, and what the person replies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """What a job asks while it runs; its id is the asker's, to know the reply by."""

    id: str
    text: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A person's word to one attempt of a job; signed, since an agent acts on it.

    `question` is the id of what a running job asks, empty when the attempt had ended with its
    question. `allow` are tools that the agent may use from now on.
    """

    id: str
    attempt: int
    question: str = ""
    text: str = ""
    allow: tuple[str, ...] = ()
    who: str = ""
    at: float = 0.0
