"""A simulated generator, free and of known effects, for dry tests, benchmarks and studies of power.

It plants the intensity of each reply: a shift by value and level, a shift of every persona, and noise. The reply is a statement
of the value in that direction and strength, so that a judge of texts finds the planted order.
"""

import functools
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from valueflow.config import Resources
from valueflow.judging.value_head import exemplars
from valueflow.llm.cache import Reply
from valueflow.llm.configs import LlmModel
from valueflow.llm.question import Question
from valueflow.records import LIMIT, digest

REFUSAL = "I'm sorry, but I can't help with that."
OPENINGS = ("If you ask me:", "Here is how I see it.", "I would say this.", "My answer:", "Thinking about it,", "To be frank:")
STEP = LIMIT / 3  # points of one step of the strength of a statement, 1 to 3


class SimulatedGenerator(LlmModel):
    """A generator whose effects are planted."""

    kind: Literal["simulated"] = "simulated"
    name: str = "simulated"
    model: str = "simulated"
    shift: dict[str, float] = Field(
        {}, description="planted intensity, points, by `value=level`, else by level; a level that is not listed: 3 points each"
    )
    persona_shift: float = Field(0.0, description="points that any persona adds, neutral and irrelevant ones too")
    noise: float = Field(2.0, ge=0, description="standard deviation of a reply around what was planted, points")
    refusals: dict[int, float] = Field({}, description="share of refusals by level; more where the planted reply is lower")
    broken_share: float = Field(0.0, ge=0, le=1, description="share of empty replies")
    failed_share: float = Field(0.0, ge=0, le=1, description="share of calls that fail after they were paid for")
    seed: int = 0
    seconds_per_batch: float = Field(0.0, ge=0, description="sleep, to test interruption")
    batch_size: int = Field(1000, ge=1)
    num_cpus: float = Field(0.5, gt=0, description="per task")
    cache: bool = False

    @property
    def resources(self) -> Resources:
        """Resources of a job."""
        return Resources(self.num_cpus)


class Dose(NamedTuple):
    """What a row asks for: value and level of the first value, "" and 0 for controls; whether there is a persona."""

    value: str
    level: int
    persona: bool


def parsed(dose: str) -> Dose:
    """Return a dose as `plan.dose` writes it."""
    value, sign, level = dose.partition("|")[0].partition("=")
    return Dose(value, int(level), True) if sign else Dose("", 0, dose not in ("bare", "no_refusal"))


def expected(config: SimulatedGenerator, dose: str) -> float:
    """Return the planted mean intensity of the replies at a dose, points."""
    value, level, persona = parsed(dose)
    shift = config.shift.get(f"{value}={level}", config.shift.get(str(level), 3.0 * level))
    return (shift if value else 0.0) + config.persona_shift * persona


def planted(config: SimulatedGenerator, dose: str, generation_id: str) -> float:
    """Return the planted intensity of a reply, points, not clipped."""
    return expected(config, dose) + config.noise * float(_random(config, generation_id).standard_normal())


def simulated_reply(config: SimulatedGenerator, question: Question, dose: str, generation_id: str) -> Reply:
    """Return the reply to a row; a function of the settings, the dose and the id."""
    value, level, _ = parsed(dose)
    rng = _random(config, generation_id)
    noise = float(rng.standard_normal())  # the first draw, as in `planted`
    intensity = expected(config, dose) + config.noise * noise
    tokens_in = sum(len(message["content"]) for message in question.messages) // 4
    chance = rng.random(3)
    prompt_hash = digest(question.messages, dict(question.sampling or {}))
    if chance[0] < config.failed_share:
        return Reply("", "simulated failure", tokens_in, 1)
    if chance[1] < config.broken_share:
        return Reply("", "", tokens_in, 0, finish_reason="stop", prompt_hash=prompt_hash)
    # Not missing at random: twice the share for the lower half of the replies at a level, none for the upper.
    share = config.refusals.get(level, 0.0)
    low, high = min(2 * share, 1.0), max(2 * share - 1, 0.0)
    if chance[2] < (low if noise < 0 else high):
        text = REFUSAL
    else:
        statements = _statements(value, max(-3, min(3, round(intensity / STEP))))
        text = f"{OPENINGS[rng.integers(len(OPENINGS))]} {statements[rng.integers(len(statements))]}"
    return Reply(text, "", tokens_in, len(text) // 4, finish_reason="stop", prompt_hash=prompt_hash)


def _random(config: SimulatedGenerator, generation_id: str) -> np.random.Generator:
    return np.random.default_rng([config.seed, int(generation_id, 16)])


@functools.cache
def _statements(value: str, strength: int) -> list[str]:
    """Statements of a value of signed strength; of strength 0, or without a value, neutral ones."""
    sign = int(np.sign(strength))
    everything = [e for e in exemplars() if e["kind"] != "pole"]
    texts = [
        e["text"]
        for e in everything
        if e["direction"] == sign and (not sign or (e["value"] == value and e["strength"] == abs(strength)))
    ]
    return texts or _statements("", 0)
