"""What a job will cost before it starts, and what it did cost."""

from typing import NamedTuple

from valueflow.judging.configs import AnyJudge
from valueflow.judging.tasks import RANK
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.llm.question import Task

# Characters in a token of English text, roughly; a measured count replaces the guess where there is one.
CHARACTERS = 4
OVERHEAD = 12  # tokens that a chat template adds


class MeasuredSpeed(NamedTuple):
    """What an audit measured of a judge: windows per second, tokens per window."""

    per_second: float
    tokens_in: float
    tokens_out: float


class CostEstimate(NamedTuple):
    """What some questions to one judge will take; seconds is None where nothing was measured."""

    judge: str
    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float | None
    money: float | None
    currency: str


def total(judge: AnyJudge, calls: int, tokens_in: int, tokens_out: int, seconds: float) -> str:
    """Return in words what answers cost: all tokens behind them, and the time of this run."""
    said = f"{calls:,} calls, {tokens_in:,} tokens in, {tokens_out:,} out"
    if isinstance(judge, VllmModel | EndpointModel) and (money := _money(judge, tokens_in, tokens_out, seconds)) is not None:
        said += f", {f'{money:,.4f}'.rstrip('0').rstrip('.')} {judge.price.currency}"
    return f"{said}; {duration(seconds)} in this run"


def duration(seconds: float) -> str:
    """Return a duration as seconds, minutes or hours."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:,.0f} s" if seconds < 90 else f"{minutes:,.0f} min" if minutes < 90 else f"{hours:,.1f} h"


def estimate(
    judge: AnyJudge, task: Task, sample: list[dict], calls: int, measured: MeasuredSpeed | None = None
) -> CostEstimate:
    """Return what `calls` questions like those of the sample (rows of a plan with their texts) will cost, without retries.

    Tokens are those that the audit measured where the questions are windows, else guessed from the prompts' lengths; the time
    follows from the measured tokens per second, or questions per second for a judge without tokens.
    """
    if not isinstance(judge, VllmModel | EndpointModel):
        return CostEstimate(judge.name, calls, 0, 0, calls / measured.per_second if measured else None, 0.0, "")
    per_in, per_out = (measured.tokens_in, measured.tokens_out) if measured and task is RANK else _guess(judge, task, sample)
    tokens_in, tokens_out = round(calls * per_in), round(calls * per_out)
    seconds = None
    if measured and measured.tokens_in + measured.tokens_out:
        seconds = (tokens_in + tokens_out) / measured.per_second / (measured.tokens_in + measured.tokens_out)
    money = _money(judge, tokens_in, tokens_out, seconds)
    return CostEstimate(judge.name, calls, tokens_in, tokens_out, seconds, money, judge.price.currency)


def _money(judge: VllmModel | EndpointModel, tokens_in: int, tokens_out: int, seconds: float | None) -> float | None:
    """None where no price is set, or one by the hour but no speed was measured."""
    price, engines = judge.price, judge.num_engines if isinstance(judge, VllmModel) else 0
    if not (price.tokens_in or price.tokens_out or price.hour) or (price.hour and engines and seconds is None):
        return None
    return price.of(tokens_in, tokens_out) + price.hour * engines * (seconds or 0.0) / 3600


def _guess(judge: VllmModel | EndpointModel, task: Task, sample: list[dict]) -> tuple[float, float]:
    questions = [task.question(row, judge) for row in sample]
    characters = sum(len(message["content"]) for question in questions for message in question.messages)
    thinking = judge.extra_tokens if isinstance(judge, EndpointModel) else 0
    generated = sum(question.max_tokens + thinking for question in questions)
    count = max(len(sample), 1)
    return characters / CHARACTERS / count + OVERHEAD, generated / count
