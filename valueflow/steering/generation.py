"""Replies of a model to the rows of a plan: the question of a row, and the rows of `generations` of a batch of replies."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
from pydantic import Field, SerializerFunctionWrapHandler, WrapSerializer

from valueflow import store
from valueflow.errors import InputError, allowed
from valueflow.llm.answer_text import InvalidReply, encodable, without_thinking
from valueflow.llm.cache import Reply
from valueflow.llm.configs import RESOURCES, EndpointModel, LlmModel, VllmModel
from valueflow.llm.question import Question, Task, replies_of
from valueflow.records import CONTROL, SCHEMAS, conform, digest, text_id
from valueflow.steering.outcomes import outcome_of
from valueflow.steering.plan import QUESTIONS, Plan
from valueflow.steering.simulated import SimulatedGenerator
from valueflow.store import Build, GenerationsDetails

LATEST = "latest"  # in place of ids: the builds of the newest plan

AnyGenerator = VllmModel | EndpointModel | SimulatedGenerator


def _without_temperature(model: AnyGenerator, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """What is saved of a model can be read again: its temperature, which `sampling` has for all models, would be refused."""
    return {name: value for name, value in handler(model).items() if name != "temperature"}


GeneratorConfig = Annotated[AnyGenerator, Field(discriminator="kind"), WrapSerializer(_without_temperature)]
# Settings of an LLM that concern judges alone.
OF_JUDGES = {"temperature", "logprobs", "answer", "max_chars", "structured", "relevance"}


class Answers(NamedTuple):
    """What a task needs to put the rows of a plan and to read the replies; small to send.

    wording: hash of the wording.
    """

    plan: Plan
    wording: str

    def question(self, row: dict[str, Any], _: LlmModel) -> Question:
        """Return the call of a row of `plan.QUESTIONS`."""
        sampling = self.plan.sampling_of(row["generation_id"])
        return Question(self.plan.messages(row["number"]), None, self.plan.sampling.max_tokens, sampling=sampling)

    def read(self, batch: pa.Table, model: LlmModel) -> pa.Table:
        """Return the rows of `generations` of a batch of replies, with their folder."""
        names = ("generation_id", "number")
        columns = zip(*(batch[name].to_pylist() for name in names), replies_of(batch), strict=True)
        rows = [self._planned(i, number, model) | self._replied(reply, number, model) for i, number, reply in columns]
        table = conform(pa.Table.from_pylist(rows, SCHEMAS["generations"]), "generations")
        return table.append_column("folder", batch["folder"])

    def _planned(self, generation_id: str, number: int, model: LlmModel) -> dict[str, Any]:
        condition, replicate, query = self.plan.row(number)
        return {
            "generation_id": generation_id, "model": model.name, "regime": condition.regime, "condition": condition.condition,
            "turn": condition.turn, "values": list(condition.values), "levels": list(condition.levels),
            "variant": condition.variant, "replicate": replicate, "query_id": query.query_id, "dataset": query.dataset,
            "query": query.text, "exemplar_ids": list(condition.exemplar_ids), "requested": condition.requested,
            "wording_hash": self.wording,
        }  # fmt: skip

    def _replied(self, reply: Reply, number: int, model: LlmModel) -> dict[str, Any]:
        cost = model.price.of(reply.tokens_in, reply.tokens_out)
        counts = {"tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out, "cost": cost, "prompt_hash": reply.prompt_hash}
        if reply.error:
            # An empty response is one that a rerun asks for again; one that was paid for is not.
            lost = "" if not reply.tokens_in + reply.tokens_out else None
            nothing = {"response": lost, "response_text_id": text_id(""), "finish_reason": "other", "reasoning_tokens": 0}
            return counts | nothing | {"error": reply.error, "outcome": None, "outcome_by": None}
        response, reasoning = answer_and_reasoning(reply)
        prompt = "\n".join(message["content"] for message in self.plan.messages(number))
        return counts | {
            "response": response, "response_text_id": text_id(response), "reasoning_tokens": reasoning, "error": None,
            "finish_reason": reply.finish_reason if reply.finish_reason in ("stop", "length") else "other",
            "outcome": outcome_of(response, prompt, reply.finish_reason), "outcome_by": "rules",
        }  # fmt: skip


def answer_and_reasoning(reply: Reply) -> tuple[str, int]:
    """Return a reply without its reasoning, and the tokens of that: as counted, else by its share of the characters."""
    text = CONTROL.sub("", encodable(reply.text)).strip()
    try:
        answer = without_thinking(text)
    except InvalidReply:  # it was still thinking, or said nothing after it
        answer = ""
    if reply.reasoning_tokens is not None:
        return answer, reply.reasoning_tokens
    return answer, round(reply.tokens_out * (1 - len(answer) / len(text))) if text else 0


def generation_task(answers: Answers) -> Task:
    """Return the type of question that a plan puts."""
    columns = tuple(name for name in QUESTIONS.names if name != "folder")
    return Task("generations", "generation_id", columns, answers.question, answers.read)


def generator_fingerprint(model: LlmModel) -> str:
    """Return the hash of all settings of a model that can change a free reply; sampling is the job's."""
    return digest(model.model_dump(exclude=RESOURCES | OF_JUDGES))


def finished_generations(root: str, builds: str | Sequence[str] = LATEST) -> list[Build]:
    """Return finished builds of `generations`: by their ids, or those of the newest plan, one for each model.

    Raises:
        InputError: there is none, or no such one.
    """
    finished = [Build(root, "generations", build_id) for build_id in store.finished(root, "generations")]
    if not finished:
        raise InputError(f"no generations are finished under {root}; run python -m jobs.steer first, with the control bare too")
    ids = [builds] if isinstance(builds, str) else builds
    if list(ids) != [LATEST]:
        known = [build.build_id for build in finished]
        for build_id in ids:
            if build_id not in known:
                raise InputError(f"generations: no finished build {build_id!r}; {allowed(build_id, known)}")
        return [Build(root, "generations", build_id) for build_id in ids]
    plan = store.details_of(finished[-1], GenerationsDetails).plan
    return [build for build in finished if store.details_of(build, GenerationsDetails).plan == plan]
