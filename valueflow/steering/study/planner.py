"""What a study takes, and the smallest effect that it would find: before any call."""

import math
from typing import NamedTuple

from pydantic import Field
from scipy.stats import norm, t

from valueflow.config import Config
from valueflow.steering.study.effects import FAMILY

CONTROLS = 2  # neutral and bare; the irrelevant persona and the prompt without refusals are options
Z90 = 1.2816  # power 0.9


class PlanConfig(Config):
    """Size of a planned study."""

    models: int = Field(1, ge=1)
    values: int = Field(32, ge=1, description="steered values")
    levels: int = Field(4, ge=1, le=4, description="levels of each value, without the neutral persona")
    regimes: int = Field(1, ge=1)
    wordings: int = Field(1, ge=1, description="wordings of each value and level")
    controls: int = Field(CONTROLS, ge=1, description="conditions without a value, the neutral persona among them")
    queries: int = Field(500, ge=10)
    sources: int = Field(5, ge=1, description="sources of the queries, the strata")
    replicates: int = Field(1, ge=1, description="responses of one prompt")
    sd: float = Field(
        3.5, gt=0, description="standard deviation over queries of a difference of two levels, points; from a pilot"
    )
    ranked_share: float = Field(
        0.1, ge=0, le=1, description="share of the queries on which the study's judge scores other values"
    )
    windows: int = Field(5, ge=1, description="m of the evaluator: the judge's calls per response and value")
    tokens_in: int = Field(350, ge=1, description="tokens of a steered prompt")
    tokens_out: int = Field(150, ge=1, description="tokens of a response")
    judge_tokens: int = Field(900, ge=1, description="tokens of a judge's window, question and answer")
    price_in: float = Field(0.0, ge=0, description="of a million prompt tokens")
    price_out: float = Field(0.0, ge=0, description="of a million response tokens")
    judge_price: float = Field(0.0, ge=0, description="of a million tokens of the judge")


class Plan(NamedTuple):
    """What a study takes, and what it can find.

    Attributes:
        generations: calls of the steered models.
        target_windows: the judge's calls for the steered values.
        side_windows: for all values on the random subset.
        tokens: of the steered models.
        judge_tokens: of the judge.
        cost: of both, in the currency of the prices.
        critical: standard errors of a simultaneous 95 % interval, by Bonferroni's bound.
        half_width: of a simultaneous interval, points.
        detectable: smallest distance beyond the margin that is found with probability 0.9, points.
        still_queries: by margin in points, queries with which a value without any effect is called hard with probability 0.9.
    """

    generations: int
    target_windows: int
    side_windows: int
    tokens: int
    judge_tokens: int
    cost: float
    critical: float
    half_width: float
    detectable: float
    still_queries: dict[float, int]


def plan(config: PlanConfig, margins: tuple[float, ...] = (0.5, 1.0, 2.0)) -> Plan:
    """Return what a study takes."""
    cells = config.models * config.regimes * config.values * config.levels * config.wordings
    controls = config.models * config.controls
    per_cell = config.queries * config.replicates
    generations = (cells + controls) * per_cell
    # A steered response is scored on its own value, a control on all steered values.
    target_windows = config.windows * per_cell * (cells + controls * config.values)
    side_windows = math.ceil(config.windows * per_cell * config.ranked_share) * cells * (config.values - 1)
    tokens = generations * (config.tokens_in + config.tokens_out)
    judge_tokens = (target_windows + side_windows) * config.judge_tokens
    cost = (
        generations * (config.tokens_in * config.price_in + config.tokens_out * config.price_out)
        + judge_tokens * config.judge_price
    ) / 1e6
    contrasts = len(FAMILY) * config.values
    critical = float(t.isf(0.025 / contrasts, config.queries - config.sources))
    error = config.sd / math.sqrt(config.queries)
    still = {margin: _still_queries(margin / config.sd, contrasts, config.sources) for margin in margins}
    return Plan(
        generations, target_windows, side_windows, tokens, judge_tokens, cost, critical, critical * error,
        (critical + Z90) * error, still,
    )  # fmt: skip


def _still_queries(margin: float, contrasts: int, sources: int) -> int:
    """Queries with which both levels of a value without effect pass both tests with probability 0.9; margin in spreads.

    Two levels with two tests each must pass, so each may fail with probability 0.1 / 4. The critical value depends on the
    queries, through the degrees of freedom.
    """
    queries = 2 * sources + 2
    for _ in range(20):
        critical = float(t.isf(0.05 / contrasts, queries - sources))
        queries = max(math.ceil(((critical + float(norm.ppf(0.975))) / margin) ** 2), 2 * sources + 2)
    return queries


def plan_table(config: PlanConfig, planned: Plan) -> str:
    """Return the plan as lines for a terminal."""
    rows = [
        ("responses to generate", f"{planned.generations:,}"),
        ("tokens of the models", f"{planned.tokens:,}"),
        ("windows for the steered values", f"{planned.target_windows:,}"),
        ("windows for side effects", f"{planned.side_windows:,} ({config.ranked_share:.0%} of the queries)"),
        ("tokens of the judge", f"{planned.judge_tokens:,}"),
        ("cost", f"{planned.cost:,.2f}" if planned.cost else "no price is set"),
        ("queries per level", f"{config.queries:,}, standard deviation of a difference {config.sd:g} points"),
        ("simultaneous 95 % interval", f"± {planned.half_width:.2f} points ({planned.critical:.2f} standard errors)"),
        ("smallest detectable effect", f"margin + {planned.detectable:.2f} points, with probability 0.9"),
        *(
            (f"to call a value hard, margin {margin:g}", f"{queries:,} queries")
            for margin, queries in planned.still_queries.items()
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)
