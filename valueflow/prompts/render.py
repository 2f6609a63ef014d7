"""Turn what a judge is asked into chat messages; a text can neither forge another item nor leave its quotes."""

import functools
import json
from importlib import resources
from typing import Any

import jinja2

from valueflow.records import clean, digest
from valueflow.theories import Theory, theories
from valueflow.voting.descend import NEUTRAL

LABELS = "ABCDEFGHIJ"


@functools.cache
def _template(name: str) -> tuple[str, jinja2.Template]:
    source = resources.files("valueflow.prompts").joinpath(f"{name}.txt").read_text("utf-8")
    return source, jinja2.Template(source, undefined=jinja2.StrictUndefined, keep_trailing_newline=False)


def prompt_hash(name: str) -> str:
    """Return the hash of a template; it is part of every build that used it."""
    return digest(_template(name)[0])


def rank_messages(theory: str, value: str, texts: list[str], max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message that ask for the order of `texts`; each text is one JSON string on one line."""
    node = theories()[theory].node(value)
    quoted = [json.dumps(_shorten(clean(text), max_chars), ensure_ascii=False) for text in texts]
    system, user = (
        _template("rank")[1]
        .render(
            name=node.name, theory=theories()[theory].name, definition=node.definition.strip(), supports=node.supports.strip(),
            opposes=node.opposes.strip(), texts=quoted, labels=LABELS, example=" > ".join(LABELS[1 : len(texts)] + LABELS[0]),
        )
        .split("===", 1)
    )  # fmt: skip
    return [{"role": "system", "content": system.strip()}, {"role": "user", "content": user.strip()}]


def vote_messages(ballot: dict[str, Any], text: str, max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message of a ballot (a row of `ballots`, its options in the order shown)."""
    theory = theories()[ballot["theory"]]
    node = theory.node(ballot["node"]) if ballot["node"] else None
    options = [{"id": option, "meaning": _meaning(theory, option)} for option in ballot["options"]]
    system, user = (
        _template(ballot["kind"])[1]
        .render(
            theory=theory.name, name=node.name if node else "", meaning=node.definition.strip() if node else "",
            options=options, detail=ballot["detail"], text=json.dumps(_shorten(clean(text), max_chars), ensure_ascii=False),
        )
        .split("===", 1)
    )  # fmt: skip
    return [{"role": "system", "content": system.strip()}, {"role": "user", "content": user.strip()}]


def name_messages(texts: list[str], max_chars: int) -> list[dict[str, str]]:
    """Return the system and user message that ask for the name of what texts share; each is one JSON string on one line."""
    quoted = [json.dumps(_shorten(clean(text), max_chars), ensure_ascii=False) for text in texts]
    system, user = _template("name")[1].render(texts=quoted).split("===", 1)
    return [{"role": "system", "content": system.strip()}, {"role": "user", "content": user.strip()}]


def _meaning(theory: Theory, option: str) -> str:
    if option == NEUTRAL:
        return "none of them; the text does not concern any of these"
    return theory.node(option).definition.strip() if option in theory else option


def _shorten(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
