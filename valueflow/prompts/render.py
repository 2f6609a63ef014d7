"""Render questions as chat messages; a text is one JSON string on one line, so it cannot forge an item or end its quotes.

Nor can it forge a turn of the chat: special tokens of chat templates in it get a space after their first character.
"""

import functools
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2

from valueflow.records import ValueId, clean, digest
from valueflow.theories import Theory, theories
from valueflow.voting.descend import NEUTRAL

LETTERS = "ABCDEFGHIJ"  # options of a prompt, in the order of their positions
# Answers to whether a text concerns a value, the first one for no. Each is one token in the usual vocabularies.
RELEVANCE = ("none", "for", "against")
# Special tokens of the chat templates in use: <|im_start|> and its like, turns of Gemma, Llama 2, Mistral and Command, begin
# and end of a text, thinking, tools. An endpoint does not say which of them its model has.
_SPECIAL_TOKEN = re.compile(
    r"<[|｜](?=[^\s<>]{1,64}[|｜]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|think|thinking|thought|tool_call|tool_calls|tool_response|tools|image|audio|video"
    r"|start_of_turn|end_of_turn|start_of_image|end_of_image|fim_prefix|fim_middle|fim_suffix|endoftext|seed:think)>)"
    r"|<(?=</?SYS>>)|<(?=[A-Z]+(?:_[A-Z]+)*_TOKEN>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK|gMASK)\])"
    r"|◁(?=/?think▷)"
)


@functools.cache
def _template(name: str) -> tuple[str, jinja2.Template]:
    source = resources.files("valueflow.prompts").joinpath(f"{name}.txt").read_text("utf-8")
    return source, jinja2.Template(source, undefined=jinja2.StrictUndefined, keep_trailing_newline=False)


def prompt_hash(name: str) -> str:
    """Return the hash of a template; it goes into the fingerprint of every judge and voter that uses it."""
    return digest(_template(name)[0])


def rank_messages(value: ValueId, texts: list[str], max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message that ask for the order of `texts` on a value's scale.

    Args:
        value: the value.
        texts: the texts of the window, by position.
        max_chars: longer texts are truncated to this length, see `is_longer`.
    """
    example = " > ".join(LETTERS[1 : len(texts)] + LETTERS[0])
    return _messages("rank", **_poles(value), texts=_quoted(texts, max_chars), labels=LETTERS, example=example)


def scale_messages(value: ValueId, text: str, max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message that ask for one text's place on a value's scale, a number from 1 to 5."""
    return _messages("scale", **_poles(value), text=_quoted([text], max_chars)[0])


def _poles(value: ValueId) -> dict[str, str]:
    """What a prompt says about a value and both ends of its scale."""
    theory = theories()[value.theory]
    node = theory.node(value.node)
    words = {"definition": node.definition, "supports": node.supports, "opposes": node.opposes}
    return {"name": node.name, "theory": theory.name} | {name: text.strip() for name, text in words.items()}


def relevance_messages(value: ValueId, text: str, max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message that ask which of `RELEVANCE` a text is."""
    theory = theories()[value.theory]
    node = theory.node(value.node)
    return _messages(
        "relevance", name=node.name, theory=theory.name, definition=node.definition.strip(), supports=node.supports.strip(),
        opposes=node.opposes.strip(), options=RELEVANCE, text=_quoted([text], max_chars)[0],
    )  # fmt: skip


def vote_messages(ballot: dict[str, Any], text: str, max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message of a ballot: a row of `ballots` with its options in the order to show them."""
    theory = theories()[ballot["theory"]]
    node = theory.node(ballot["node"]) if ballot["node"] else None
    options = [{"id": option, "meaning": _meaning(theory, option)} for option in ballot["options"]]
    return _messages(
        ballot["kind"], theory=theory.name, name=node.name if node else "", meaning=node.definition.strip() if node else "",
        options=options, detail=ballot["detail"], text=_quoted([text], max_chars)[0],
    )  # fmt: skip


def outcome_messages(query: str, reply: str, options: Sequence[str], max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message that ask what became of a query; `options` are the outcomes."""
    quoted_query, quoted_reply = _quoted([query, reply], max_chars)
    return _messages("outcome", query=quoted_query, reply=quoted_reply, options=options)


def name_messages(texts: list[str], max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message that ask for a name of the concept anchor at which these texts lie."""
    return _messages("name", texts=_quoted(texts, max_chars))


def is_longer(text: str, max_chars: int) -> bool:
    """Return whether a prompt holds only the beginning of a text, in the form in which texts are judged."""
    # Normal form C has at most three characters for one; so few need no look.
    return 3 * len(text) > max_chars and len(clean(text)) > max_chars


def truncation(num: int, llm: str, max_chars: int | None) -> str:
    """Return the sentence about texts of which an LLM read the beginning."""
    which, their = ("1 text is", "its") if num == 1 else (f"{num:,} texts are", "their")
    limit = f"max_chars ({max_chars:,})" if max_chars else "max_chars"
    return f"{which} longer than {limit} of {llm!r}, which read {their} beginning only; raise max_chars, or split long texts"


def _messages(template: str, **variables: object) -> list[dict[str, str]]:
    system, user = _template(template)[1].render(**variables).split("===", 1)
    return [{"role": "system", "content": system.strip()}, {"role": "user", "content": user.strip()}]


def _quoted(texts: list[str], max_chars: int) -> list[str]:
    """Each text as one JSON string on one line, without special tokens."""
    return [json.dumps(_without_special_tokens(_shorten(clean(text), max_chars)), ensure_ascii=False) for text in texts]


def _without_special_tokens(text: str) -> str:
    return _SPECIAL_TOKEN.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def _meaning(theory: Theory, option: str) -> str:
    if option == NEUTRAL:
        return "none of them; the text does not concern any of these"
    return theory.node(option).definition.strip() if option in theory else option


def _shorten(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
