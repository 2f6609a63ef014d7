"""The inventory: everyday instances of values, duties and rights, each under the most specific node it belongs to."""

import functools
import re
from importlib import resources
from typing import NamedTuple

import yaml
from pydantic import TypeAdapter, ValidationError

from valueflow.errors import InputError, allowed
from valueflow.theories.taxonomy import fold, theories

FILE = "valueflow/theories/inventory.yaml"
OPENING = {"svt": "valuing", "mft": "valuing", "duty": "the duty to", "right": "the right to"}


class Instance(NamedTuple):
    """A concrete case of a node of a theory (`value`, mostly a leaf), in words understood without the theory."""

    id: str
    value: str
    phrase: str


@functools.cache
def inventory() -> tuple[Instance, ...]:
    """Return the instances that ship, in the order of the file: duties, values, rights."""
    text = resources.files("valueflow.theories").joinpath("inventory.yaml").read_text("utf-8")
    return instances(yaml.safe_load(text))


def instances(listed: object) -> tuple[Instance, ...]:
    """Return the instances of a mapping `theory:node` -> phrases; an id is its node and the words after the opening.

    Raises:
        InputError: it is no such mapping, a node is unknown, a phrase opens otherwise than its theory's, or two are the same.
    """
    try:
        phrases = TypeAdapter(dict[str, list[str]]).validate_python(listed)
    except ValidationError as error:
        raise InputError(f"{FILE}: {error}") from error
    known = [f"{theory.id}:{node.id}" for theory in theories().values() for node in theory.nodes]
    found: list[Instance] = []
    owner: dict[str, str] = {}
    for value, of_value in phrases.items():
        if value not in known:
            raise InputError(f"{FILE}: unknown value {value!r}; {allowed(value, known)}")
        opening = OPENING[value.partition(":")[0]]
        for phrase in of_value:
            slug = fold(re.sub(r"[^\w\s-]", "", phrase))
            if not slug.startswith(f"{fold(opening)}-"):
                raise InputError(f"{FILE}: {value} has the phrase {phrase!r}; it must start with {opening!r}")
            if slug in owner:
                raise InputError(f"{FILE}: {value} repeats the phrase {phrase!r} of {owner[slug]}; delete one of them")
            owner[slug] = value
            found.append(Instance(f"{value}/{slug.removeprefix(f'{fold(opening)}-')}", value, phrase))
    return tuple(found)
