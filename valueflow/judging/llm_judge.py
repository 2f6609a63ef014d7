"""LLMs as judges: what their prompts say beside the texts, and the judge behind an endpoint in an event loop."""

import importlib.util

import pyarrow as pa

from valueflow.errors import InputError
from valueflow.judging.kind import JudgeKind, Relevance
from valueflow.judging.logprobs import llm_answers, neutral_texts
from valueflow.judging.tasks import RANK
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import AnyLlm, EndpointModel, VllmModel
from valueflow.llm.question import Question
from valueflow.llm.vllm import NEEDS_VLLM
from valueflow.models import locate
from valueflow.prompts.render import prompt_hash
from valueflow.records import digest
from valueflow.theories import operational, theories


class EndpointJudge:
    """Judge behind an endpoint; all windows of a table are put at once, and callers share the slots of the endpoint."""

    def __init__(self, config: EndpointModel, cache: str) -> None:
        from valueflow.llm.endpoint import Endpoint  # imports httpx

        self.config = config
        self.answers = llm_answers(config, RANK, self._ask)
        self.endpoint = Endpoint(config, CallCache(cache) if cache and config.cache else None, BudgetLedger())

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of the windows, in their order."""
        return await self.answers(windows)

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


def _check_vllm(config: VllmModel) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise InputError(NEEDS_VLLM)
    locate(config.model)


VLLM = JudgeKind(
    _ranking_knowledge, _voting_knowledge, relevance=_relevance, relevance_knowledge=_relevance_knowledge, check=_check_vllm
)
ENDPOINT = VLLM._replace(online=EndpointJudge, check=_check_endpoint)
