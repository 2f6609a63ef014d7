"""The wire format of OpenAI-compatible chat completions: the body of a request, and the reply in a response."""

import json
import math

from valueflow.llm.admission import Tokens
from valueflow.llm.answer_text import InvalidReply, answer_text, encodable
from valueflow.llm.cache import Reply
from valueflow.llm.configs import EndpointModel
from valueflow.llm.question import NO_LOGPROBS, Question, SampledToken, option_logprobs, option_probability
from valueflow.llm.responses import Response, finish_reason, lookup, message_text
from valueflow.records import digest

CHARS_PER_TOKEN = 4
# Tokens of {"answer": "..."} without the answer, white space included.
JSON_TOKENS = 16
MESSAGE_CHARS = 300
JSON_NOTE = '\n\nGive this answer as JSON, in the form {"answer": "..."}.'
# Reasons for which an answer ended, of several servers, in lower case.
CUT = {"length", "max_tokens", "model_length"}
STOPPED = {"stop", "eos", "eos_token", "stop_sequence", "end_turn"}
FILTERED = {"content_filter", "safety", "recitation", "sensitive", "refusal", "prohibited_content", "blocklist"}


def request_body(question: Question, config: EndpointModel) -> dict:
    """Return the fields of a request; all but the model and the messages are the sampling.

    A question without a constraint has neither a structured-output field nor the note that asks for JSON.
    """
    messages, constraint = question.messages, question.constraint
    as_json = _is_json(question, config)
    if as_json:
        messages = [*messages[:-1], messages[-1] | {"content": messages[-1]["content"] + JSON_NOTE}]
    length = question.max_tokens + config.extra_tokens + (JSON_TOKENS if as_json else 0)
    body: dict = {"model": config.model, "messages": messages, config.max_tokens_field: length}
    if question.sampling is not None:
        fields = {name: value for name, value in question.sampling.items() if name not in config.refused_fields}
        body |= {name: value for name, value in fields.items() if name != "max_tokens"}
    elif config.temperature is not None:
        body["temperature"] = config.temperature
    if question.logprobs:
        body |= {"logprobs": True, "top_logprobs": question.alternatives}
    if constraint is not None and as_json:
        body["response_format"] = {"type": "json_schema", "json_schema": _answer_schema(constraint)}
    elif constraint is not None and config.structured == "choice":
        body["structured_outputs"] = constraint
    if config.chat_template_args:
        body["chat_template_kwargs"] = config.chat_template_args
    return body | config.extra


def estimated_tokens(messages: list[dict], max_tokens: int) -> Tokens:
    """Return the estimated prompt tokens of a chat, and the most that may be generated."""
    return Tokens(-(-sum(len(str(message["content"])) for message in messages) // CHARS_PER_TOKEN), max_tokens)


def read_reply(response: Response, question: Question, config: EndpointModel, estimate: Tokens) -> Reply:
    """Return the reply in a successful response; anything that it lacks is the error of a call that was paid for.

    `estimate`: tokens to assume where the server counted none; nothing is assumed for a body that cannot be an answer.
    """
    choice = lookup(response.body, "choices", 0)
    message = lookup(choice, "message")
    if not isinstance(choice, dict) or not isinstance(message, dict):
        error = f"the response body is not JSON: {encodable(response.reason)[:MESSAGE_CHARS]!r}"
        return Reply("", error, *(estimate if response.may_be_answer else (0, 0)))
    content, refusal, thought = message_text(message)
    generated = content + "".join(str(message.get(name) or "") for name in ("reasoning_content", "reasoning"))
    used = _used(response, Tokens(estimate.prompt, -(-len(generated) // CHARS_PER_TOKEN)))
    if question.sampling is not None:
        return _free_text(response, content or refusal, Tokens(*used), question, config)
    as_json, tokens = _is_json(question, config), _sampled_tokens(choice)
    logprobs = option_logprobs(tokens, content, question.options) if question.logprobs else None
    if question.needs_logprobs and logprobs:  # whatever the model goes on to say, its first word was read
        return Reply(content, "", *used, None, logprobs)
    if error := _unusable(content, refusal, thought, message, finish_reason(response.body), as_json):
        return Reply(content, error, *used)
    if question.constraint is None:
        return Reply(content, "", *used)
    try:
        answer = answer_text(content)
    except InvalidReply as invalid:  # of a judge without JSON, the parser of the task gives the reason
        return Reply(content, str(invalid) if as_json else "", *used)
    # The reply is kept whole, except for the JSON that was requested around the answer.
    text = answer if as_json and content.lstrip().startswith("{") else content
    if as_json:
        return Reply(text, "", *used)
    error = NO_LOGPROBS if question.needs_logprobs else ""
    return Reply(text, error, *used, option_probability(tokens, content, question.options), logprobs)


def _free_text(response: Response, text: str, used: Tokens, question: Question, config: EndpointModel) -> Reply:
    """A free text as it came: a refusal, an empty or a cut one is no error, its caller tells them apart."""
    finish = finish_reason(response.body)
    kind = "length" if finish in CUT else "filtered" if finish in FILTERED else "stop" if finish in STOPPED else "other"
    message = lookup(response.body, "choices", 0, "message")
    thought = "".join(str(lookup(message, name) or "") for name in ("reasoning_content", "reasoning"))
    counted = lookup(response.body, "usage", "completion_tokens_details", "reasoning_tokens")
    guess = -(-len(thought) // CHARS_PER_TOKEN) or None
    reasoning = counted if type(counted) is int and 0 <= counted <= used.generated else guess
    body = request_body(question, config)
    return Reply(text, "", *used, finish_reason=kind, prompt_hash=digest(body), reasoning_tokens=reasoning)


def _unusable(content: str, refusal: str, thought: bool, message: dict, finish: str, as_json: bool) -> str:
    """Why a complete answer is none, "" if it is one."""
    if refusal:
        return f"the model refused: {refusal[:MESSAGE_CHARS]}"
    if finish in FILTERED:
        return "the answer was withheld by the server's content filter"
    if finish in CUT and not (as_json and _is_complete(content)):
        return "the answer was cut at max_tokens; raise extra_tokens for a model that thinks first"
    if content.strip():
        return ""
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called a tool instead of answering"
    if thought:
        return (
            "empty answer: the model only thought; raise extra_tokens, or switch its thinking off (chat_template_args, extra)"
        )
    return "empty answer"


def _is_complete(content: str) -> bool:
    """Whether a text is a whole JSON object: some servers let white space follow it up to max_tokens."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _is_json(question: Question, config: EndpointModel) -> bool:
    return question.constraint is not None and config.structured == "json_schema"


def _answer_schema(constraint: dict) -> dict:
    """Strict schema of an object with one field, the answer."""
    # A pattern of JSON Schema matches anywhere in the text, vLLM's regex matches all of it.
    allowed = {"enum": constraint["choice"]} if "choice" in constraint else {"pattern": f"^({constraint['regex']})$"}
    answer = {"type": "object", "properties": {"answer": {"type": "string"} | allowed}, "required": ["answer"]}
    return {"name": "answer", "strict": True, "schema": answer | {"additionalProperties": False}}


def _used(response: Response, estimate: Tokens) -> Tokens:
    """Tokens that the server counted; the estimate where it counted none, so that the budget holds."""
    return Tokens(*(e if count is None else count for count, e in zip(response.counts, estimate, strict=True)))


def _sampled_tokens(choice: dict) -> list[SampledToken]:
    """The tokens of an answer with their alternatives, where the server sent log-probabilities."""
    places = lookup(choice, "logprobs", "content")
    tokens = []
    for place in places if isinstance(places, list) else []:
        top = lookup(place, "top_logprobs")
        pairs = ((lookup(entry, "token"), lookup(entry, "logprob")) for entry in (top if isinstance(top, list) else []))
        alternatives = [(token, _logprob(p)) for token, p in pairs if isinstance(token, str)]
        token = lookup(place, "token")
        if isinstance(token, str):
            tokens.append(SampledToken(token, _logprob(lookup(place, "logprob")), alternatives))
    return tokens


def _logprob(value: object) -> float:
    """A log-probability; nan for anything else, such as a whole number that no float can hold."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan
