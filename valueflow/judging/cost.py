"""Estimated cost of a judge's answers."""

from valueflow.judging.configs import AnyJudge
from valueflow.llm import cost
from valueflow.llm.configs import LlmModel
from valueflow.llm.cost import CostEstimate, MeasuredSpeed
from valueflow.llm.question import Task


def estimate(
    judge: AnyJudge, task: Task, sample: list[dict], calls: int, measured: MeasuredSpeed | None = None
) -> CostEstimate:
    """Return the estimated cost of `calls` questions to a judge; see `llm.cost.estimate`.

    A judge that is no LLM has no tokens, and takes the time that its audit measured.
    """
    if isinstance(judge, LlmModel):
        return cost.estimate(judge, task, sample, calls, measured)
    return CostEstimate(judge.name, calls, 0, 0, calls / measured.per_second if measured else None, 0.0, "")
