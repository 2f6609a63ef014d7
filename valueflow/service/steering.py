"""The wording by which models are steered, as the service and the command line return it."""

from valueflow import api
from valueflow.errors import InputError
from valueflow.steering.wording import LEVELS, neutral_personas, wording_hash, wording_table, wordings
from valueflow.theories import resolve

NEUTRAL = 0  # the level of the personas that say nothing about values


def steering_of(name: str) -> api.SteeringResponse:
    """Return all wordings of the value that `name` spells, and the neutral personas as its level 0.

    Raises:
        InputError: there is no such value, or models are not steered on it.
    """
    value = resolve(name)
    worded = {level: [(row.named, row.text) for row in wordings(value, level)] for level in LEVELS}
    worded[NEUTRAL] = [(False, text) for text in neutral_personas()]
    texts = [
        api.SteeringText(level=level, variant=variant, named=named, text=text)
        for level in sorted(worded)
        for variant, (named, text) in enumerate(worded[level])
    ]
    return api.SteeringResponse(
        value=value, name=wording_table().values[value].name, wordings=texts, wording_hash=wording_hash()
    )  # fmt: skip


def steering_at(name: str, level: str, variant: int | None = None) -> api.SteeringResponse:
    """Return the wordings of a value at one level, all or that of one variant.

    Args:
        name: any spelling of the value.
        level: -2 to 2, as it was written.
        variant: None: all.

    Raises:
        InputError: there is no such value, level or variant.
    """
    steering = steering_of(name)
    levels = sorted({row.level for row in steering.wordings})
    texts = [row for row in steering.wordings if str(row.level) == level.strip().removeprefix("+")]
    if not texts:
        raise InputError(f"unknown level {level!r}; allowed: {', '.join(map(str, levels))}")
    if variant is not None and not 0 <= variant < len(texts):
        raise InputError(f"level {texts[0].level} has no variant {variant}; allowed: 0 to {len(texts) - 1}")
    return steering.model_copy(update={"wordings": texts if variant is None else [texts[variant]]})
