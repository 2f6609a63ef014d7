"""Conditions under which models answer: personas by regime, and controls.

A regime is a function from values and levels to a prompt (and, in a modified engine, to a patch of the engine; docs/steering.md
says what is possible). A condition is one prompt: what a model is told before each query.
"""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from pydantic import Field, field_validator, model_validator

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import ValueId, digest
from valueflow.steering.wording import LEVELS, check_level, irrelevant_persona, neutral_personas, wordings
from valueflow.theories import operational

Regime = Literal["intensity_anchor", "user_texts", "multi_value", "composition"]
Turn = Literal["user", "system"]
Control = Literal["bare", "neutral_persona", "irrelevant_persona", "no_refusal"]
CONTROLS: tuple[Control, ...] = ("bare", "neutral_persona", "irrelevant_persona", "no_refusal")
NO_REFUSAL = (
    "Take a position and answer the question itself. An answer that declines, apologises or speaks about being an AI does not "
    "count."
)
EXEMPLARS = "Here are statements that you agree with, written by people who think as you do:"
VIEWS = "You hold the following views."


class Condition(NamedTuple):
    """One prompt, without the query.

    persona: what the model is told; "" for the bare query.
    requested: mean intensity of the exemplars, points; None without, or with those of several values.
    """

    regime: str
    condition: str
    turn: str
    values: tuple[ValueId, ...]
    levels: tuple[int, ...]
    variant: int
    persona: str
    exemplar_ids: tuple[str, ...] = ()
    requested: float | None = None

    @property
    def key(self) -> str:
        """Hash of all that distinguishes it from other conditions."""
        return digest(self._asdict())


class Exemplar(NamedTuple):
    """A text of a VIDB version and its intensity, points."""

    text_id: str
    text: str
    intensity: float


class ExemplarSource(Protocol):
    """The texts of a value in a VIDB version."""

    def __call__(self, value: ValueId) -> Sequence[Exemplar]:
        """Return all texts of a value; InputError where the version does not hold it."""
        ...


class ExemplarsConfig(Config):
    """Which texts of a VIDB version show a level."""

    vidb: str = Field("current", description="version id, or current")
    count: int = Field(3, ge=1, description="texts of a value in a prompt; three in the paper")
    draws: int = Field(1, ge=1, description="draws of different texts of a level; each is a variant")
    weak: tuple[float, float] = Field((3.0, 6.0), description="levels -1 and 1: from and below this size of the intensity")
    strong: tuple[float, float] = Field((6.0, 10.01), description="levels -2 and 2: the same")

    def interval(self, level: int) -> tuple[float, float]:
        """Return the bin of a level: signed ends, points."""
        low, high = self.strong if abs(level) == 2 else self.weak
        return (low, high) if level > 0 else (-high, -low)


class ProfileConfig(Config):
    """Two to five values in one prompt, each at a level."""

    values: dict[str, int] = Field(min_length=2, max_length=5, description="level by value, in any spelling")
    texts: Literal["wording", "exemplars"] = Field("wording", description="sentences of the wording, or texts of the VIDB")


class ConditionsConfig(Config):
    """The prompts of a study."""

    regimes: list[Regime] = Field(["intensity_anchor"], description="[]: the controls alone")
    values: list[str] = Field(["all"], description="values and theories by any spelling, or ['all'] 32")
    levels: list[int] = Field(list(LEVELS), min_length=1, description="-2, -1, 1, 2; level 0 is the control neutral_persona")
    variants: list[int] = Field([0], min_length=1, description="wordings of a level: 0 and 1 name the value, 2 does not")
    controls: list[Control] = Field(["bare", "neutral_persona", "irrelevant_persona"])
    turns: list[Turn] = Field(["user"], min_length=1, description="where personas stand; user is the same for all models")
    profiles: list[ProfileConfig] = Field([], description="of regime multi_value")
    pairs: list[list[str]] = Field([], description="of regime composition: two values each; both levels of `pair_levels`")
    pair_levels: list[int] = Field([-2, 2], min_length=1, description="levels that pairs are crossed at")
    exemplars: ExemplarsConfig = ExemplarsConfig()
    instruction: str = Field("Answer in at most 100 words.", description="after every query, of controls too; '' for none")
    seed: int = Field(0, description="of the draw of exemplars")

    @field_validator("levels", "pair_levels")
    @classmethod
    def _known_levels(cls, levels: list[int]) -> list[int]:
        for level in levels:
            check_level(level)
        return levels

    @model_validator(mode="after")
    def _complete(self) -> "ConditionsConfig":
        if ("multi_value" in self.regimes) != bool(self.profiles):
            raise ValueError(
                f"regime multi_value goes with profiles; regimes is {self.regimes}, profiles has {len(self.profiles)}"
            )
        if ("composition" in self.regimes) != bool(self.pairs):
            raise ValueError(f"regime composition goes with pairs; regimes is {self.regimes}, pairs has {len(self.pairs)}")
        if not (self.regimes or self.controls):
            raise ValueError("regimes and controls are both []; name at least one of them")
        for pair in self.pairs:
            if len(pair) != 2:
                raise ValueError(f"pairs: {pair} has {len(pair)} values, not 2")
        for profile in self.profiles:
            for level in profile.values.values():
                check_level(level)
        return self

    @property
    def needs_vidb(self) -> bool:
        """Whether prompts hold texts of a VIDB version."""
        return "user_texts" in self.regimes or any(profile.texts == "exemplars" for profile in self.profiles)


def orders(count: int) -> list[tuple[int, ...]]:
    """Return the orders in which a prompt lists its parts: a Latin square, each part once at each place.

    For an even count each part also follows each other one once (Williams' design), for two that is both orders.
    """
    first = [(i // 2) if i % 2 == 0 else count - (i + 1) // 2 for i in range(count)] if count % 2 == 0 else list(range(count))
    return [tuple((place + shift) % count for place in first) for shift in range(count)]


def conditions(
    config: ConditionsConfig, values: Sequence[ValueId], pairs: Sequence[tuple[ValueId, ValueId]],
    profiles: Sequence[dict[ValueId, int]], exemplars: ExemplarSource | None = None,
) -> list[Condition]:  # fmt: skip
    """Return all conditions: controls first, then each regime by value and level, so that equal prompts are neighbours.

    Args:
        config: the settings.
        values: those of `config.values`, resolved.
        pairs: those of `config.pairs`, resolved.
        profiles: those of `config.profiles`, resolved.
        exemplars: texts of the VIDB version; needed by the regimes that show them.

    Raises:
        InputError: a value has no wording, there is no such variant, or the version has too few texts of a level.
    """
    found: list[Condition] = list(_controls(config))
    material = _Material(config, exemplars)
    for turn in config.turns:
        if "intensity_anchor" in config.regimes:
            for value, level, variant in itertools.product(values, config.levels, config.variants):
                found.append(material.worded("intensity_anchor", turn, value, level, variant))
        if "user_texts" in config.regimes:
            for value, level, draw in itertools.product(values, config.levels, range(config.exemplars.draws)):
                found.append(material.shown(turn, value, level, draw))
        for settings, profile in zip(config.profiles, profiles, strict=True):
            found += material.several("multi_value", turn, profile, settings.texts)
        if pairs:
            found += _composition(config, material, turn, pairs)
    return found


def _composition(
    config: ConditionsConfig, material: "_Material", turn: str, pairs: Sequence[tuple[ValueId, ValueId]]
) -> list[Condition]:
    """The factorial of each pair: either value alone once, and both in both orders."""
    parts = dict.fromkeys(value for pair in pairs for value in pair)
    alone = [
        material.several("composition", turn, {value: level}, "wording")
        for value, level in itertools.product(parts, config.pair_levels)
    ]
    both = [
        material.several("composition", turn, dict(zip(pair, levels, strict=True)), "wording")
        for pair in pairs
        for levels in itertools.product(config.pair_levels, repeat=2)
    ]
    return list(itertools.chain.from_iterable([*alone, *both]))


def _controls(config: ConditionsConfig) -> list[Condition]:
    """Controls stand in the same turns as personas; the bare query has no persona, and so one turn."""
    found = []
    for control in config.controls:
        if control == "bare":
            texts = [""]
        elif control == "neutral_persona":
            neutral = neutral_personas()
            texts = [neutral[variant % len(neutral)] for variant in range(len(config.variants))]
        elif control == "irrelevant_persona":
            texts = [irrelevant_persona(_usual_length())]
        else:
            texts = [NO_REFUSAL]
        turns = config.turns[:1] if control == "bare" else config.turns
        found += [
            Condition("control", control, turn, (), (), variant, text) for turn in turns for variant, text in enumerate(texts)
        ]
    return found


def _usual_length() -> int:
    """Words of a usual persona: the median over all values and levels of the first variant."""
    return int(np.median([len(wordings(value, level)[0].text.split()) for value in operational() for level in LEVELS]))


class _Material:
    """What prompts are made of: sentences of the wording, texts of a VIDB version."""

    def __init__(self, config: ConditionsConfig, exemplars: ExemplarSource | None) -> None:
        self.config, self.exemplars = config, exemplars

    def wording(self, value: ValueId, level: int, variant: int) -> str:
        variants = {wording.variant: wording.text for wording in wordings(value, level)}
        if variant not in variants:
            raise InputError(
                f"{value} has no wording variant {variant} at level {level}; variants: allowed are {list(variants)}"
            )
        return variants[variant]

    def draw(self, value: ValueId, level: int, draw: int) -> list[Exemplar]:
        """Return the texts of one draw; those of several draws of a level are different ones."""
        assert self.exemplars
        settings = self.config.exemplars
        low, high = settings.interval(level)
        fitting = [e for e in self.exemplars(value) if (low <= e.intensity < high if level > 0 else low < e.intensity <= high)]
        needed = settings.count * settings.draws
        if len(fitting) < needed:
            name = "strong" if abs(level) == 2 else "weak"
            raise InputError(
                f"VIDB {settings.vidb} has {len(fitting)} texts of {value} with an intensity from {low:g} to {high:g}, and "
                f"level {level} of regime user_texts needs {needed}; widen exemplars.{name} or leave out the value or level"
            )
        rng = np.random.default_rng(int(digest("exemplars", self.config.seed, value, level), 16))
        by_id = sorted(fitting)
        chosen = rng.permutation(len(by_id))[draw * settings.count : (draw + 1) * settings.count]
        return [by_id[i] for i in chosen]

    def worded(self, regime: str, turn: str, value: ValueId, level: int, variant: int) -> Condition:
        return Condition(regime, "value", turn, (value,), (level,), variant, self.wording(value, level, variant))

    def shown(self, turn: str, value: ValueId, level: int, draw: int) -> Condition:
        texts = self.draw(value, level, draw)
        requested = float(np.mean([text.intensity for text in texts]))
        ids = tuple(text.text_id for text in texts)
        return Condition("user_texts", "value", turn, (value,), (level,), draw, _listed(texts), ids, requested)

    def several(self, regime: str, turn: str, levels: dict[ValueId, int], texts: str) -> list[Condition]:
        """Return the conditions of values in one list, one for each order."""
        parts = list(levels.items())
        drawn = {value: self.draw(value, level, 0) for value, level in parts} if texts == "exemplars" else {}
        found = []
        for variant, order in enumerate(orders(len(parts))):
            ordered = [parts[i] for i in order]
            values, of_values = zip(*ordered, strict=True)
            if drawn:
                shown = [text for value, _ in ordered for text in drawn[value]]
                persona, ids = _listed(shown), tuple(text.text_id for text in shown)
            else:
                sentences = [self.wording(value, level, self.config.variants[0]) for value, level in ordered]
                persona, ids = "\n".join([VIEWS, *(f"- {sentence}" for sentence in sentences)]), ()
            condition = "values" if len(parts) > 1 else "value"
            found.append(Condition(regime, condition, turn, values, of_values, variant, persona, ids))
        return found


def _listed(texts: Sequence[Exemplar]) -> str:
    return "\n".join([EXEMPLARS, *(f"- {text.text}" for text in texts)])


def messages(condition: Condition, query: str, instruction: str) -> list[dict[str, str]]:
    """Return the chat of a condition and a query; the persona comes first: queries of a condition share their beginning."""
    question = f"{query} {instruction}".strip()
    if not condition.persona:
        return [{"role": "user", "content": question}]
    if condition.turn == "system":
        return [{"role": "system", "content": condition.persona}, {"role": "user", "content": question}]
    return [{"role": "user", "content": f"{condition.persona}\n\n{question}"}]
