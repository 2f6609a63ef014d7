"""What a steering job would take: calls, tokens, hours of engines and GPUs, and money, for each model; nothing is called."""

from collections.abc import Sequence
from typing import NamedTuple

from valueflow.distributed.steering.generate import plan_of, study
from valueflow.distributed.steering.generate_config import SteerConfig
from valueflow.llm.configs import VllmModel
from valueflow.llm.cost import CostEstimate, MeasuredSpeed, estimate
from valueflow.report.terminal import Column, text_table
from valueflow.steering.generation import Answers, AnyGenerator, generation_task
from valueflow.steering.plan import Plan
from valueflow.steering.wording import wording_hash

SAMPLE = 500  # rows, spread over the plan, whose prompts are measured


class SteerEstimate(NamedTuple):
    """The cost of one model; GPU-hours are None where no speed is set, and 0 without GPUs."""

    cost: CostEstimate
    gpu_hours: float | None


def dry_run(config: SteerConfig) -> list[SteerEstimate]:
    """Return the estimate of each model: every reply as long as `sampling.max_tokens` allows.

    Raises:
        InputError: what `study` refuses.
    """
    of = study(config)
    return [_estimate(config, model, plan_of(config, model, of)) for model in config.models]


def _estimate(config: SteerConfig, model: AnyGenerator, plan: Plan) -> SteerEstimate:
    task = generation_task(Answers(plan, wording_hash()))
    count = min(SAMPLE, plan.num_rows)
    numbers = [i * plan.num_rows // count for i in range(count)]
    sample = [{"generation_id": str(number), "number": number} for number in numbers]
    cost = estimate(model, task, sample, plan.num_rows)  # type: ignore[arg-type]
    speed = config.tokens_per_second.get(model.name)
    if not speed:
        return SteerEstimate(cost, None)
    engines = model.rented_engines or 1
    per_out = cost.tokens_out / cost.calls
    measured = MeasuredSpeed(speed * engines / per_out, cost.tokens_in / cost.calls, per_out, task.table)
    cost = estimate(model, task, sample, plan.num_rows, measured)  # type: ignore[arg-type]
    gpus = model.gpus_per_engine * engines if isinstance(model, VllmModel) else 0.0
    return SteerEstimate(cost, (cost.seconds or 0.0) / 3600 * gpus)


def estimate_table(estimates: Sequence[SteerEstimate]) -> str:
    """Return the estimates as a table with totals."""
    names = ("calls", "tokens in", "tokens out", "hours", "GPU-hours", "money")
    columns = [Column("model", numeric=False, max_width=32), *map(Column, names)]
    rows = [
        [
            e.cost.name, f"{e.cost.calls:,}", f"{e.cost.tokens_in:,}", f"{e.cost.tokens_out:,}",
            "unknown" if e.cost.seconds is None else f"{e.cost.seconds / 3600:,.1f}",
            "unknown" if e.gpu_hours is None else f"{e.gpu_hours:,.1f}",
            "unknown" if e.cost.money is None else f"{e.cost.money:,.2f} {e.cost.currency}",
        ]
        for e in estimates
    ]  # fmt: skip
    known = [e for e in estimates if e.gpu_hours is not None]
    currencies = sorted({e.cost.currency for e in estimates if e.cost.money is not None})
    money = [f"{sum(e.cost.money or 0.0 for e in estimates if e.cost.currency == c):,.2f} {c}" for c in currencies]
    totals = [sum(getattr(e.cost, name) for e in estimates) for name in ("calls", "tokens_in", "tokens_out")]
    hours = f"{sum(e.cost.seconds or 0.0 for e in known) / 3600:,.1f}" if known else "unknown"
    gpu_hours = f"{sum(e.gpu_hours or 0.0 for e in known):,.1f}" if known else "unknown"
    rows.append(["total", *(f"{n:,}" for n in totals), hours, gpu_hours, " + ".join(money) or "unknown"])
    notes = [
        "dry run: nothing was called; replies are counted as long as sampling.max_tokens allows, prompts without a prefix cache"
    ]
    if len(known) < len(estimates):
        notes.append("hours unknown: set tokens_per_second, generated tokens per second of one engine, by name of the model")
    return "\n".join([text_table(columns, rows), *notes])
