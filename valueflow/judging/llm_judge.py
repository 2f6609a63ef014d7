"""LLMs as judges: what their prompts say beside the texts, and the judge behind an endpoint in an event loop."""

import pyarrow as pa

from valueflow.judging.kind import JudgeKind, Relevance
from valueflow.judging.logprobs import LogprobJudge, neutral_texts
from valueflow.judging.tasks import RANK
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import AnyLlm, EndpointModel
from valueflow.llm.question import Question, ask_all
from valueflow.prompts.render import prompt_hash
from valueflow.records import digest
from valueflow.theories import operational, theories


class EndpointJudge:
    """Judge behind an endpoint; all windows of a table are put at once, and callers share the slots of the endpoint."""

    def __init__(self, config: EndpointModel, cache: str) -> None:
        from valueflow.llm.endpoint import Endpoint  # imports httpx

        self.config = config
        self.by_logprobs = LogprobJudge(config, self._ask) if config.answer != "letter" else None
        self.endpoint = Endpoint(config, CallCache(cache) if cache and config.cache else None, BudgetLedger())

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of the windows, in their order."""
        if self.by_logprobs:
            return await self.by_logprobs(windows)
        return await ask_all(windows, RANK, self.config, self._ask)

    async def check(self) -> None:
        """Return if a server answers at the URL."""
        await self.endpoint.check()

    async def _ask(self, question: Question, round_: int) -> Reply:
        reply = await self.endpoint.ask(question, round_)
        return reply or Reply("", f"the budget of judge {self.config.name!r} is spent; raise its budget", 0, 0)


def _ranking_knowledge(config: AnyLlm) -> str:
    """Hash of the prompt of a window without its texts: the template, the words about each value, and neutral texts."""
    nodes = [theories()[value.theory].node(value.node) for value in operational()]
    words = [[n.name, n.definition, n.supports, n.opposes] for n in nodes]
    if config.answer == "letter":
        return digest(prompt_hash("rank"), words)
    return digest(prompt_hash("scale" if config.answer == "rating" else "rank"), words, neutral_texts())


def _relevance(config: AnyLlm) -> Relevance:
    return "apart" if config.relevance else "none"


def _relevance_knowledge(_: object) -> str:
    """Hash of the prompt about relevance without its text; what it says about each value is part of `_ranking_knowledge`."""
    return prompt_hash("relevance")


def _voting_knowledge(_: object) -> str:
    """Hash of the prompts of ballots without their texts."""
    prompts = [prompt_hash(kind) for kind in ("child", "direction", "plausible", "rating")]
    return digest(prompts, [[n.id, n.name, n.definition] for t in theories().values() for n in t.nodes])


def _check_endpoint(config: EndpointModel) -> None:
    from valueflow.llm.endpoint import Endpoint

    Endpoint(config, None, BudgetLedger())


VLLM = JudgeKind(_ranking_knowledge, _voting_knowledge, relevance=_relevance, relevance_knowledge=_relevance_knowledge)
ENDPOINT = VLLM._replace(online=EndpointJudge, check=_check_endpoint)
