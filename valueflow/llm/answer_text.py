"""The answer in a model's reply: without a leading block of thinking, a Markdown fence or the JSON object around it."""

import json
import re

_TAGS = r"(?:seed:)?(?:think|thinking|thought|reasoning)"
_OPENING = re.compile(rf"[<\[◁]{_TAGS}[>\]▷]", re.IGNORECASE)
_CLOSING = re.compile(rf"[<\[◁]/{_TAGS}[>\]▷]", re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*)```", re.DOTALL)


class InvalidReply(ValueError):
    """The reply holds no valid answer; the message is the reason."""


def answer_text(reply: str) -> str:
    """Return the answer in a reply; a reply that is neither thinking nor fenced nor JSON is returned as it is, stripped.

    Nothing inside the block of thinking counts. Its opening tag may be missing, since chat templates write it into the prompt.

    Raises:
        InvalidReply: the model was still thinking, or the JSON object has no answer or more than one.
    """
    text = without_thinking(reply.strip())
    if fence := _FENCE.fullmatch(text):
        text = fence[1].strip()
    return _unwrapped(text) if text.startswith("{") else text


def without_thinking(text: str) -> str:
    """Return a reply without the block of thinking at its beginning, whose opening tag may be missing.

    Raises:
        InvalidReply: the model was still thinking, or said nothing after it.
    """
    closing = _CLOSING.search(text)
    opening = _OPENING.match(text)
    if closing is None:
        if opening:
            raise InvalidReply(
                "the model was still thinking when its reply ended; allow more tokens (extra_tokens) or switch thinking off "
                "(chat_template_args)"
            )
        return text
    if _OPENING.search(text, opening.end() if opening else 0, closing.start()):
        return text  # the block is not at the beginning: there may be an answer before it
    answer = text[closing.end() :].strip()
    if not answer:
        raise InvalidReply("the reply ends with the model's thinking, without an answer")
    return answer


def _unwrapped(text: str) -> str:
    """The answer in a JSON object; a text that is not JSON is returned as it is."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return text
    answers = [value for name, value in pairs if name == "answer"]
    if len(answers) == 1 and isinstance(answers[0], str | int) and not isinstance(answers[0], bool):
        return encodable(str(answers[0])).strip()
    raise InvalidReply('the answer is JSON without a string "answer"')


def encodable(text: str) -> str:
    """Return a text that can be encoded: half a surrogate pair, which JSON can carry, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
