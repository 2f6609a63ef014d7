"""The inventory: everyday instances of values, duties and rights, each under the most specific node that fits."""

import functools
import re
from importlib import resources
from typing import NamedTuple

import yaml
from pydantic import TypeAdapter, ValidationError

from valueflow.errors import InputError, allowed
from valueflow.records import ValueId
from valueflow.theories.taxonomy import fold, theories

FILE = "valueflow/theories/inventory.yaml"
OPENING = {"svt": "valuing", "mft": "valuing", "duty": "the duty to", "right": "the right to"}


class Instance(NamedTuple):
    """A concrete case of a node (`value`, mostly a leaf), phrased so that it is understood without the theory."""

    id: str
    value: ValueId
    phrase: str


@functools.cache
def inventory() -> tuple[Instance, ...]:
    """Return the instances of the package, in the order of the file: duties, values, rights."""
    text = resources.files("valueflow.theories").joinpath("inventory.yaml").read_text("utf-8")
    return instances(yaml.safe_load(text))


def instances(mapping: object) -> tuple[Instance, ...]:
    """Return the instances of a mapping value id -> phrases.

    The id of an instance is its value id and the phrase without its opening, `duty:fidelity/turn-up-on-time`.

    Raises:
        InputError: the mapping has another type, a node is unknown, a phrase lacks its theory's opening, or two are equal.
    """
    try:
        phrases = TypeAdapter(dict[str, list[str]]).validate_python(mapping)
    except ValidationError as error:
        raise InputError(f"{FILE}: {error}") from error
    nodes = [ValueId.of(theory.id, node.id) for theory in theories().values() for node in theory.nodes]
    result: list[Instance] = []
    owner: dict[str, ValueId] = {}
    for name, phrases_of_value in phrases.items():
        if name not in nodes:
            raise InputError(f"{FILE}: unknown value {name!r}; {allowed(name, nodes)}")
        value = ValueId(name)
        opening = OPENING[value.theory]
        for phrase in phrases_of_value:
            slug = fold(re.sub(r"[^\w\s-]", "", phrase))
            if not slug.startswith(f"{fold(opening)}-"):
                raise InputError(f"{FILE}: {value} has the phrase {phrase!r}; it must start with {opening!r}")
            if slug in owner:
                raise InputError(f"{FILE}: {value} repeats the phrase {phrase!r} of {owner[slug]}; delete one of them")
            owner[slug] = value
            result.append(Instance(f"{value}/{slug.removeprefix(f'{fold(opening)}-')}", value, phrase))
    return tuple(result)
