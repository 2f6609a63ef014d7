"""What a model makes of a prompt before any query is put: its chat template, its system role, the fields its server takes."""

import asyncio
import json
import logging
import re
from collections.abc import Sequence

from valueflow.errors import InputError
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.chat import chat_text, has_system_role
from valueflow.llm.configs import EndpointModel, Sampling, VllmModel
from valueflow.llm.question import Question
from valueflow.steering.conditions import Condition
from valueflow.steering.generation import AnyGenerator
from valueflow.steering.plan import Plan

log = logging.getLogger(__name__)
PROBE_TOKENS = 16
PROBE_SYSTEM = "You are someone who answers in one word."
PROBE = "Name a colour."
# Fields whose default is the server's own where they are not sent.
DEFAULTED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_SENTENCE = re.compile(r"(?:[A-Za-z'’]+[ ,.:]+){4,}[A-Za-z'’]+")


def check_system_role(model: AnyGenerator, conditions: Sequence[Condition]) -> None:
    """Check that a model whose chat template is here has a system role, if conditions need one.

    Raises:
        InputError: it has none: a system persona would become the beginning of the user turn.
    """
    needs = any(condition.turn == "system" for condition in conditions)
    if isinstance(model, VllmModel) and needs and not has_system_role(*_template(model), model.chat_template_args):
        raise InputError(_no_system(model.name))


def check_engine(model: AnyGenerator) -> None:
    """Check that an engine can sample with a seed for each call.

    Raises:
        InputError: vLLM on CPUs ends at such a call whose prompt it reads in pieces (0.29: a generator of a CPU has no offset).
    """
    if isinstance(model, VllmModel) and not model.gpus_per_engine and model.engine.get("enable_chunked_prefill", True):
        raise InputError(
            f"model {model.name!r} runs on CPUs, where vLLM cannot read prompts in pieces and sample with a seed a call; "
            "set engine.enable_chunked_prefill to false, and engine.max_num_batched_tokens to at least engine.max_model_len"
        )


def _no_system(name: str) -> str:
    return (
        f"model {name!r} takes no system turn, so its conditions with turn system would be those of turn user; name it in "
        "user_turn_only, or leave system out of conditions.turns"
    )


def _template(model: VllmModel) -> tuple[str, str, bool]:
    return model.model, model.revision, bool(model.engine.get("trust_remote_code"))


def rendered(model: AnyGenerator, plan: Plan) -> dict[str, str]:
    """Return a prompt of each kind of condition as the model reads it; of an endpoint, the messages that it is sent."""
    prompts: dict[str, str] = {}
    step = plan.replicates * len(plan.queries)
    for index, condition in enumerate(plan.conditions):
        name = f"{condition.regime}/{condition.condition}/{condition.turn}"
        if name in prompts:
            continue
        messages = plan.messages(index * step)
        if isinstance(model, VllmModel):
            path, revision, trusted = _template(model)
            prompts[name] = chat_text(path, revision, messages, trusted, model.chat_template_args)
        else:
            prompts[name] = json.dumps(messages, ensure_ascii=False)
    return prompts


def added_text(prompt: str, query: str) -> str:
    """Return a sentence that a chat template puts into a prompt beside the query, "" if there is none."""
    sentence = _SENTENCE.search(prompt.replace(query, " "))
    return sentence[0] if sentence else ""


def warn_of_added_text(model: AnyGenerator, prompts: dict[str, str]) -> None:
    """Log a warning where the template of a model adds a system message of its own to every prompt."""
    if not isinstance(model, VllmModel):
        return
    path, revision, trusted = _template(model)
    messages = [{"role": "user", "content": PROBE}]
    if added := added_text(chat_text(path, revision, messages, trusted, model.chat_template_args), PROBE):
        log.warning(
            "steer, %s: its chat template adds text to prompts without a system turn: %r. Every such condition has it, also "
            "the bare query; manifests hold the prompts (%d kinds)", model.name, added, len(prompts),
        )  # fmt: skip


def refused_fields(model: EndpointModel, sampling: Sampling, cache: str, system: bool) -> dict[str, str]:
    """Return the sampling fields that a server does not take, and what it said; one short call with all others succeeds.

    A field that is not sent would be filled with the server's own default, so each of them is a warning.

    Raises:
        InputError: the server refuses the call for another reason, or takes no system turn though `system` conditions need one.
    """
    refused: dict[str, str] = {}
    while True:
        trial = model.model_copy(update={"refused_fields": sorted({*model.refused_fields, *refused})})
        reply = asyncio.run(_probe(trial, sampling, cache, system))
        if not reply.error.startswith(("HTTP 400", "HTTP 422")):
            break
        fields = [name for name in Sampling.model_fields if re.search(rf"\b{name}\b", reply.error) and name != "max_tokens"]
        new = [name for name in fields if name not in trial.refused_fields]
        if not new:
            if system and "system" in reply.error.lower():
                raise InputError(f"{_no_system(model.name)} (the server says: {reply.error})")
            raise InputError(f"model {model.name!r} refuses every call: {reply.error}; change its settings")
        refused |= dict.fromkeys(new, reply.error)
    for name in sorted(set(refused) & set(DEFAULTED)):
        log.warning(
            "steer, %s: the server does not take %s (%s), so it samples with a default of its own; the manifest says so",
            model.name, name, refused[name],
        )  # fmt: skip
    return refused


async def _probe(model: EndpointModel, sampling: Sampling, cache: str, system: bool) -> Reply:
    from valueflow.llm.endpoint import Endpoint

    messages = [{"role": "system", "content": PROBE_SYSTEM}] if system else []
    fields = {name: value for name, value in sampling.model_dump().items() if value != []}
    question = Question([*messages, {"role": "user", "content": PROBE}], None, PROBE_TOKENS, sampling=fields)
    endpoint = Endpoint(model, CallCache(cache) if model.cache else None, BudgetLedger())
    try:
        return await endpoint.ask(question, 0) or Reply("", "", 0, 0)
    finally:
        await endpoint.close()
