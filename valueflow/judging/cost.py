"""What a job will cost before it starts, and what it did cost."""

from typing import NamedTuple

from valueflow.judging.judges import AnyJudge, OpenaiJudge, VllmJudge
from valueflow.judging.tasks import Task

# Characters in a token of English text, roughly; a measured count replaces the guess where there is one.
CHARACTERS = 4
OVERHEAD = 12  # tokens that a chat template adds


class Measured(NamedTuple):
    """What an audit measured of a judge, per question."""

    per_second: float
    tokens_in: float
    tokens_out: float


class Estimate(NamedTuple):
    """What some questions to one judge will take; seconds is None where nothing was measured."""

    judge: str
    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float | None
    money: float | None
    currency: str

    def __str__(self) -> str:
        time = "time unknown (audit the judge to measure it)" if self.seconds is None else f"about {self.seconds:,.0f} s"
        money = "no price set" if self.money is None else f"{self.money:,.2f} {self.currency}"
        tokens = f"about {self.tokens_in:,} tokens in and {self.tokens_out:,} out"
        return f"{self.judge}: {self.calls:,} calls, {tokens}, {time}, {money}"


def estimate(judge: AnyJudge, task: Task, sample: list[dict], calls: int, measured: Measured | None = None) -> Estimate:
    """Return what `calls` questions like those of the sample (rows of a plan with their texts) will cost, without retries."""
    seconds = calls / measured.per_second if measured and measured.per_second else None
    if not isinstance(judge, VllmJudge | OpenaiJudge):
        return Estimate(judge.name, calls, 0, 0, seconds, 0.0, "")
    per_in, per_out = (measured.tokens_in, measured.tokens_out) if measured else _guess(judge, task, sample)
    tokens_in, tokens_out = round(calls * per_in), round(calls * per_out)
    money = _money(judge, tokens_in, tokens_out, seconds)
    return Estimate(judge.name, calls, tokens_in, tokens_out, seconds, money, judge.price.currency)


def _money(judge: VllmJudge | OpenaiJudge, tokens_in: int, tokens_out: int, seconds: float | None) -> float | None:
    """None where no price is set, or one by the hour but no speed was measured."""
    price, engines = judge.price, judge.num_engines if isinstance(judge, VllmJudge) else 0
    if not (price.tokens_in or price.tokens_out or price.hour) or (price.hour and engines and seconds is None):
        return None
    return price.of(tokens_in, tokens_out) + price.hour * engines * (seconds or 0.0) / 3600


def _guess(judge: VllmJudge | OpenaiJudge, task: Task, sample: list[dict]) -> tuple[float, float]:
    questions = [task.question(row, judge) for row in sample]
    characters = sum(len(message["content"]) for question in questions for message in question.messages)
    generated = sum(question.max_tokens for question in questions)
    count = max(len(sample), 1)
    return characters / CHARACTERS / count + OVERHEAD, generated / count
