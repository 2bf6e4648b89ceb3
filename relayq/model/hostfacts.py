"""The shapes of what hosts say of themselves: who reads a fact may rely on these."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

_Test = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    # Of a longer number Python makes no text.
    return value is None or (
        isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value)
    )


def _are(test: _Test) -> _Test:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _each(test: _Test) -> _Test:
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))


def _of(**tests: _Test) -> _Test:
    """Return what tests an object: those of these fields that it has."""
    return lambda value: (
        isinstance(value, dict)
        and all(name not in value or test(value[name]) for name, test in tests.items())
    )


def _is_word(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return value is not None and _is_number(value)


def _is_login(value: Any) -> bool:
    return value is None or isinstance(value, bool)


_agent = _of(version=_is_text, too_old=_is_text, logged_in=_is_login, refused=_each(_is_word))
_power, _wake = _of(percent=_is_count), _of(mac=_is_text, via=_are(_is_word))

_SHAPES: Mapping[str, _Test] = {
    **dict.fromkeys(
        "os arch release cpu_model model python hostname address sealing install audit".split(),
        _is_text,
    ),
    **dict.fromkeys("cpus memory_bytes disk_bytes pid weight clock".split(), _is_count),
    **dict.fromkeys("memory_free_bytes disk_free_bytes".split(), _is_number),
    **dict.fromkeys(
        "encoders modules capabilities labels aliases prefer_for paths".split(), _are(_is_word)
    ),
    **dict.fromkeys("resources limits".split(), _each(_is_count)),
    **dict.fromkeys("tools unfit".split(), _each(_is_word)),
    "models": _each(_are(_is_word)),
    "gpus": _are(_of(name=_is_text, sort=_is_text, memory_bytes=_is_number)),
    "agents": _each(_agent),
    "load": lambda value: _is_number(value) or _of(average=_is_number)(value),
    "cpu": lambda value: _is_number(value) or _of(own=_is_count, others=_is_count)(value),
    "power": lambda value: value is None or _power(value),
    "wake": lambda value: value is None or _wake(value),
    "courtesy": lambda value: value is None or isinstance(value, dict),
}


def misshapen(facts: Mapping[str, Any]) -> str | None:
    """Return the name of a fact that isn't what its readers expect, None if all are."""
    for name, value in facts.items():
        if (test := _SHAPES.get(name)) is not None and not test(value):
            return name
    return None
