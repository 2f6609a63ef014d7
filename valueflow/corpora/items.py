"""The result of parsing a corpus row: one text with its labels, or an InputError with the reason to reject the row."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from valueflow import theories
from valueflow.errors import InputError
from valueflow.records import ValueId


class Label(NamedTuple):
    """A value that the source assigns to a text; direction None where the source gives none."""

    value: ValueId
    direction: int | None
    annotators: int | None = None


class Item(NamedTuple):
    """One text; items of equal `group` must stay in one split ("": the text is a group of its own)."""

    text: str
    labels: list[Label]
    group: str = ""
    language: str = ""
    license: str = ""


class Adapter(NamedTuple):
    """How to read one format.

    Attributes:
        item: turns the fields of a row into an item; raises InputError to reject the row.
        required: columns that every file must have.
        optional: columns that are read where they exist.
        source_id: the column of the source's row ids; "" where it has none.
        quoted: whether `"` quotes fields of CSV and TSV.
    """

    item: Callable[[dict[str, Any]], Item]
    required: list[str]
    optional: tuple[str, ...] = ()
    source_id: str = ""
    quoted: bool = True


def value(name: str, theory: str | None = None) -> ValueId:
    """Return the value id for a name in a corpus.

    Raises:
        InputError: the name is unknown or ambiguous.
    """
    resolved = _resolve(name, theory)
    if isinstance(resolved, ValueId):
        return resolved
    raise InputError(resolved)


def direction(number: str) -> int | None:
    """Return -1, 0 or 1, None for an empty field.

    Raises:
        InputError: the field holds anything else.
    """
    directions = {"": None, "-1": -1, "0": 0, "1": 1, "+1": 1}
    sign = number.strip().removesuffix(".0")
    if sign not in directions:
        raise InputError(f"direction {number.strip()!r} is not one of -1, 0, 1")
    return directions[sign]


@functools.lru_cache(10_000)
def _resolve(name: str, theory: str | None) -> ValueId | str:
    """The value id, or the error message; failures are cached too, since suggesting a spelling is slow."""
    try:
        return theories.resolve(name, theory)
    except InputError as error:
        return str(error)
