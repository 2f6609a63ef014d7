"""A small LLM in this process."""

from collections import Counter
from collections.abc import Mapping

from fakes.logits import logprobs_of
from valueflow.llm.cache import Reply
from valueflow.llm.question import Question


class SmallLlm:
    """Answers questions; `worth` and `noise` as in `logits.logprobs_of`."""

    def __init__(self, worth: Mapping[str, float], noise: float = 0.3) -> None:
        self.worth, self.noise = worth, noise
        self.asked: Counter[str] = Counter()

    async def __call__(self, question: Question, round_: int) -> Reply:
        """Return the reply to a question of a window or of a rating."""
        prompt = question.messages[-1]["content"]
        self.asked[f"{round_} {prompt}"] += 1
        logprobs = logprobs_of(prompt, self.worth, self.noise)
        return Reply(max(logprobs, key=lambda option: logprobs[option]), "", 100, 1, None, list(logprobs.values()))
