"""Cost of calls to an LLM: estimated before a job starts, and summarized after it."""

from typing import NamedTuple

from valueflow.llm.configs import AnyLlm, Budget, LlmModel, Price
from valueflow.llm.question import Task

# Rough number of characters per token of English text; a measured number of tokens replaces the guess where there is one.
CHARACTERS = 4
OVERHEAD = 12  # tokens that a chat template adds


class MeasuredSpeed(NamedTuple):
    """Speed and size of earlier calls: questions per second, tokens per question, and the answer table of those questions."""

    per_second: float
    tokens_in: float
    tokens_out: float
    table: str = "rankings"


class CostEstimate(NamedTuple):
    """Estimated cost of some questions to one LLM or judge; seconds is None where no speed was measured."""

    name: str
    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float | None
    money: float | None
    currency: str


class Spent(NamedTuple):
    """What the answers of a build have taken so far, all runs together."""

    tokens_in: int = 0
    tokens_out: int = 0
    engine_hours: float = 0.0
    gpu_hours: float = 0.0


def exceeds(budget: Budget, price: Price, spent: Spent) -> bool:
    """Return whether one of the limits of a budget is reached."""
    money = price.of(spent.tokens_in, spent.tokens_out, spent.engine_hours)
    return bool(
        (budget.tokens and spent.tokens_in + spent.tokens_out >= budget.tokens)
        or (budget.money and money >= budget.money)
        or (budget.gpu_hours and spent.gpu_hours >= budget.gpu_hours)
    )


def cost_summary(calls: int, tokens_in: int, tokens_out: int, seconds: float, model: LlmModel | None) -> str:
    """Return a line about the cost of answers: all their tokens, their price, and the time of this run.

    Args:
        calls: number of answers.
        tokens_in: prompt tokens, those of earlier runs included.
        tokens_out: generated tokens, those of earlier runs included.
        seconds: of this run.
        model: the LLM; None for a judge without tokens.
    """
    summary = f"{calls:,} calls, {tokens_in:,} tokens in, {tokens_out:,} out"
    if model and (money := _money(model, tokens_in, tokens_out, seconds)) is not None:
        summary += f", {f'{money:,.4f}'.rstrip('0').rstrip('.')} {model.price.currency}"
    return f"{summary}; {duration(seconds)} in this run"


def estimate(model: AnyLlm, task: Task, sample: list[dict], calls: int, measured: MeasuredSpeed | None = None) -> CostEstimate:
    """Return the estimated cost of `calls` questions like the sample's (rows of a plan with their texts), without retries.

    Tokens are the measured ones if the same type of question was measured, else guessed from the length of the prompts; the
    time follows from the measured tokens per second.
    """
    same = measured is not None and measured.table == task.table
    per_in, per_out = (measured.tokens_in, measured.tokens_out) if measured and same else _guess(model, task, sample)
    tokens_in, tokens_out = round(calls * per_in), round(calls * per_out)
    seconds = None
    if measured and measured.tokens_in + measured.tokens_out:
        seconds = (tokens_in + tokens_out) / measured.per_second / (measured.tokens_in + measured.tokens_out)
    money = _money(model, tokens_in, tokens_out, seconds)
    return CostEstimate(model.name, calls, tokens_in, tokens_out, seconds, money, model.price.currency)


def duration(seconds: float) -> str:
    """Return a duration as seconds, minutes or hours."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:,.0f} s" if seconds < 90 else f"{minutes:,.0f} min" if minutes < 90 else f"{hours:,.1f} h"


def _money(model: LlmModel, tokens_in: int, tokens_out: int, seconds: float | None) -> float | None:
    """None if no price is set, or if the price is by the hour and no speed was measured."""
    price, engines = model.price, model.rented_engines
    if not (price.tokens_in or price.tokens_out or price.hour) or (price.hour and engines and seconds is None):
        return None
    return price.of(tokens_in, tokens_out) + price.hour * engines * (seconds or 0.0) / 3600


def _guess(model: AnyLlm, task: Task, sample: list[dict]) -> tuple[float, float]:
    """Mean prompt and generated tokens of a question."""
    questions = [task.question(row, model) for row in sample]
    characters = sum(len(message["content"]) for question in questions for message in question.messages)
    generated = sum(question.max_tokens + model.hidden_tokens for question in questions)
    count = max(len(sample), 1)
    return characters / CHARACTERS / count + OVERHEAD, generated / count
