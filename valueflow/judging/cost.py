"""Estimated cost of a judge's answers."""

from valueflow.judging.configs import AnyJudge
from valueflow.judging.logprobs import NUM_NEUTRAL, calls_of, reads_logprobs
from valueflow.llm import cost
from valueflow.llm.configs import LlmModel
from valueflow.llm.cost import CostEstimate, MeasuredSpeed
from valueflow.llm.question import Task


def estimate(
    judge: AnyJudge,
    task: Task,
    sample: list[dict],
    calls: int,
    measured: MeasuredSpeed | None = None,
    texts: int | None = None,
    values: int = 1,
) -> CostEstimate:
    """Return the estimated cost of `calls` questions to a judge; see `llm.cost.estimate`.

    A judge that is no LLM has no tokens, and takes the time that its audit measured. One that reads log-probabilities takes two
    calls for a pair, or one for a text, and some for each value; its time is not known.

    Args:
        judge: judge or voter.
        task: type of question.
        sample: rows of the plan with their texts.
        calls: number of questions.
        measured: by the audit.
        texts: pairs of a text and a value in the questions; None if unknown, each question then has others.
        values: in the questions.
    """
    if not isinstance(judge, LlmModel):
        return CostEstimate(judge.name, calls, 0, 0, calls / measured.per_second if measured else None, 0.0, "")
    if not reads_logprobs(judge, task):
        return cost.estimate(judge, task, sample, calls, measured)
    per_question = len(sample[0]["texts"]) if sample else 0
    own = texts if judge.answer == "rating" and texts is not None else calls * per_question
    single = task._replace(question=lambda row, model: calls_of(row, model)[0].question)
    return cost.estimate(judge, single, sample, own + NUM_NEUTRAL * values)
