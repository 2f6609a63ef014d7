"""The wire format of OpenAI-compatible chat completions: the body of a request, and the reply in a response."""

import json

import httpx

from valueflow.llm.admission import Tokens
from valueflow.llm.cache import Reply
from valueflow.llm.configs import EndpointModel
from valueflow.llm.question import Question, first_option_probability

CHARS_PER_TOKEN = 4
# Tokens of {"answer": "..."} without the answer, white space included.
JSON_TOKENS = 16
MESSAGE_CHARS = 300
JSON_NOTE = '\n\nGive this answer as JSON, in the form {"answer": "..."}.'
# Alternatives requested for each token; some servers refuse a larger number.
TOP_LOGPROBS = 5


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
    if config.temperature is not None:
        body["temperature"] = config.temperature
    if question.logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
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


def read_reply(response: httpx.Response, question: Question, config: EndpointModel, estimate: Tokens) -> Reply:
    """Return the reply in a successful response; anything that it lacks is the error of a call that was paid for.

    `estimate`: tokens to assume where the server counted none.
    """
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return Reply("", f"the response body is not JSON: {encodable(response.text)[:MESSAGE_CHARS]!r}", *estimate)
    choice = lookup(body, "choices", 0)
    message, refusal = lookup(choice, "message", "content"), lookup(choice, "message", "refusal")
    answer = encodable(message) if isinstance(message, str) else ""
    used = _usage(body, Tokens(estimate.prompt, -(-len(answer) // CHARS_PER_TOKEN)))
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return Reply("", f"the response has no choices: {encodable(response.text)[:MESSAGE_CHARS]!r}", *used)
    if refusal:
        return Reply(answer, f"the model refused: {encodable(str(refusal))[:MESSAGE_CHARS]}", *used)
    if choice.get("finish_reason") == "content_filter":
        return Reply(answer, "the answer was withheld by the server's content filter", *used)
    if choice.get("finish_reason") == "length":
        return Reply(answer, "the answer was cut at max_tokens; raise extra_tokens for a model that thinks first", *used)
    if not answer.strip():
        return Reply(answer, "empty answer", *used)
    if _is_json(question, config):
        unwrapped = _unwrap(answer)
        if unwrapped is None:
            return Reply(answer, 'the answer is JSON without a string "answer"', *used)
        answer = unwrapped
    return Reply(answer, "", *used, _first_probability(choice, question.options))


def lookup(tree: object, *path: str | int) -> object:
    """Return the element at a path of nested objects and lists; None if there is none."""
    for step in path:
        if isinstance(step, str) and isinstance(tree, dict):
            tree = tree.get(step)
        elif isinstance(step, int) and isinstance(tree, list) and step < len(tree):
            tree = tree[step]
        else:
            return None
    return tree


def encodable(text: str) -> str:
    """Return a text that can be encoded: half a surrogate pair, which JSON can carry, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _is_json(question: Question, config: EndpointModel) -> bool:
    return question.constraint is not None and config.structured == "json_schema"


def _answer_schema(constraint: dict) -> dict:
    """Strict schema of an object with one field, the answer."""
    # A pattern of JSON Schema matches anywhere in the text, vLLM's regex matches all of it.
    allowed = {"enum": constraint["choice"]} if "choice" in constraint else {"pattern": f"^({constraint['regex']})$"}
    answer = {"type": "object", "properties": {"answer": {"type": "string"} | allowed}, "required": ["answer"]}
    return {"name": "answer", "strict": True, "schema": answer | {"additionalProperties": False}}


def _usage(body: object, estimate: Tokens) -> Tokens:
    """Tokens that the server counted; the estimate where it counted none, so that the budget holds."""
    counts = (lookup(body, "usage", "prompt_tokens"), lookup(body, "usage", "completion_tokens"))
    return Tokens(*(c if isinstance(c, int) and c >= 0 else e for c, e in zip(counts, estimate, strict=True)))


def _unwrap(text: str) -> str | None:
    """The answer in a JSON text, None if it has none; a text that is not JSON is left to the strict parser."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return text
    answer = lookup(tree, "answer")
    return encodable(answer) if isinstance(answer, str) else None


def _first_probability(choice: dict, options: list[str]) -> float | None:
    top = lookup(choice, "logprobs", "content", 0, "top_logprobs")
    pairs = ((lookup(entry, "token"), lookup(entry, "logprob")) for entry in (top if isinstance(top, list) else []))
    logprobs = [(token, logprob) for token, logprob in pairs if isinstance(token, str) and isinstance(logprob, int | float)]
    return first_option_probability(logprobs, options)
