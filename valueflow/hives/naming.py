"""Names of concept anchors by an LLM: the question about the texts nearest to an anchor, and reading its reply."""

import pyarrow as pa

from valueflow.llm.answer_text import InvalidReply, answer_text
from valueflow.llm.configs import RESOURCES, AnyLlm
from valueflow.llm.question import Question, Task
from valueflow.prompts.render import is_longer, name_messages, prompt_hash
from valueflow.records import conform, digest, text_id

NAME_WORDS, WORD_LENGTH = 6, 20  # maxima of a name


def namer_fingerprint(namer: AnyLlm) -> str:
    """Return the hash of all that can change the names that an LLM gives."""
    return digest(namer.model_dump(exclude=RESOURCES), prompt_hash("name"), NAME_WORDS, WORD_LENGTH)


def parse_name(reply: str) -> str:
    """Return the short phrase of a reply, without surrounding quotes and full stop.

    Raises:
        InvalidReply: empty, without letters, more than NAME_WORDS words, or a word longer than WORD_LENGTH.
    """
    text = answer_text(reply).strip("\"'.").strip()
    if not any(character.isalpha() for character in text):
        raise InvalidReply("empty reply" if not text else f"no name: {text[:80]!r}")
    words = text.split()
    if len(words) > NAME_WORDS or max(map(len, words)) > WORD_LENGTH:
        raise InvalidReply(f"longer than a name: {text[:80]!r}")
    return " ".join(words)


def _question(row: dict, namer: AnyLlm) -> Question:
    word = f"[A-Za-z'-]{{1,{WORD_LENGTH}}}"
    pattern = f"[A-Za-z]{word}( {word}){{1,{NAME_WORDS - 1}}}"
    return Question(name_messages(list(row["texts"]), namer.max_chars), {"regex": pattern}, 6 * NAME_WORDS)


def _read(batch: pa.Table, namer: AnyLlm) -> pa.Table:
    names: list[str | None] = []
    errors: list[str | None] = []
    for reply, failure in zip(batch["reply"].to_pylist(), batch["failure"].to_pylist(), strict=True):
        name, error = None, failure or None
        if not failure:
            try:
                name = parse_name(reply)
            except InvalidReply as invalid:
                error = str(invalid)
        names.append(name)
        errors.append(error)
    table = batch.append_column("judge", pa.array([namer.name] * len(names), pa.string()))
    table = table.append_column("name", pa.array(names, pa.string())).append_column("error", pa.array(errors, pa.string()))
    medoids = batch["texts"].to_pylist()
    truncated = [[text_id(text) for text in texts if is_longer(text, namer.max_chars)] for texts in medoids]
    table = table.append_column("truncated_ids", pa.array(truncated, pa.list_(pa.string())))
    return conform(table, "names").append_column("folder", batch["folder"])


NAME = Task("names", "anchor_id", ("anchor_id", "texts", "round"), _question, _read)
