"""What a format makes of a row: one text with its labels, or an InputError that says why not."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from valueflow import theories
from valueflow.errors import InputError


class Label(NamedTuple):
    """A value that the source says a text bears on; direction None where the source does not tell it."""

    value: str
    direction: int | None
    annotators: int | None = None


class Item(NamedTuple):
    """One text; rows of equal `group` must stay in one split ("": the text is its own group)."""

    text: str
    labels: list[Label]
    group: str = ""
    language: str = ""
    license: str = ""


class Adapter(NamedTuple):
    """How to read one format: the columns it needs, those it can do without, and what it makes of a row."""

    item: Callable[[dict[str, Any]], Item]
    required: list[str]
    optional: tuple[str, ...] = ()
    source_id: str = ""
    quoted: bool = True


def value(name: str, theory: str | None = None) -> str:
    """Return `theory:node` for a name in a corpus; InputError where nothing or several things have that name."""
    found, reason = _resolve(name, theory)
    if reason:
        raise InputError(reason)
    return found


def direction(number: str) -> int | None:
    """Return -1, 0 or 1, None for an empty field; InputError for anything else."""
    known = {"": None, "-1": -1, "0": 0, "1": 1, "+1": 1}
    sign = number.strip().removesuffix(".0")
    if sign not in known:
        raise InputError(f"direction {number.strip()!r} is not one of -1, 0, 1")
    return known[sign]


@functools.lru_cache(10_000)
def _resolve(name: str, theory: str | None) -> tuple[str, str]:
    """The value, or why there is none; failures are remembered too, since suggesting a spelling is slow."""
    try:
        return theories.resolve(name, theory), ""
    except InputError as error:
        return "", str(error)
