"""Texts longer than an encoder reads at once: overlapping pieces of its length, whose vectors are averaged.

The first piece is the beginning of the text, as the encoder truncates it, so a text that fits has the vector of the encoder
alone, and long texts beside it do not change it.
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from valueflow.callers import pause
from valueflow.models import settings_in

OVERLAP = 0.25  # share of a piece, at least, that the next one repeats, so that no sentence is read in halves only
# Pieces that are embedded together, in a fraction of a second; then short texts of other callers go first.
CPU_BATCH, GPU_BATCH = 2, 32
DEFAULT_LENGTH = 256  # tokens that an encoder reads at once, unless its files say otherwise
WORD_TOKENS = 16  # a piece begins and ends between words, if a border is within so many tokens

# A word with the white space before it, or a part of a long one.
PART = re.compile(r"\s*\S{1,16}")


class Pieces(NamedTuple):
    """The pieces of a text, and the tokens of each."""

    texts: list[str]
    weights: list[int]


def pieces(tokenizer: Any, prompt: str, text: str, max_length: int) -> Pieces:
    """Return the overlapping pieces of a text; the text alone if it fits into `max_length` tokens with the prompt."""
    offsets, words = _tokens(tokenizer, text)
    num_tokens = len(offsets)
    prompt_tokens = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0
    room = max_length - tokenizer.num_special_tokens_to_add() - prompt_tokens
    if num_tokens <= room or room < 1:
        return Pieces([text], [num_tokens])
    step = max(1, room - int(room * OVERLAP))
    starts = np.linspace(0, num_tokens - room, 1 + -(-(num_tokens - room) // step)).round().astype(int).tolist()
    slack = min(WORD_TOKENS, int(room * OVERLAP) // 2)
    spans = []
    for start in starts:
        end = start + room
        begins = (i for i in range(start, start + slack) if start and words[i] != words[i - 1])
        ends = (i for i in range(end, end - slack, -1) if end < num_tokens and words[i] != words[i - 1])
        spans.append((next(begins, start), next(ends, end)))
    return Pieces([text[offsets[a][0] : offsets[b - 1][1]] for a, b in spans], [b - a for a, b in spans])


def _tokens(tokenizer: Any, text: str) -> tuple[list[tuple[int, int]], list[int | None]]:
    """Return where in a text its tokens stand, and the number of the word of each."""
    if tokenizer.is_fast:
        tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
        return tokens["offset_mapping"], tokens.word_ids()
    # Other tokenizers do not tell: tokens of each short part of a text share it evenly, which the overlap makes up for.
    offsets: list[tuple[int, int]] = []
    words: list[int | None] = []
    for number, part in enumerate(PART.finditer(text)):
        (start, end), count = part.span(), len(tokenizer(part[0], add_special_tokens=False, verbose=False)["input_ids"])
        borders = np.linspace(start, end, count + 1).round().astype(int).tolist()
        offsets += itertools.pairwise(borders)
        words += [number] * count
    return offsets, words


def mean_over_pieces(
    z_BD: np.ndarray,
    texts: list[str],
    num_tokens_B: np.ndarray,
    tokenizer: Any,
    prompt: str,
    max_length: int,
    embed: Callable[[list[str]], np.ndarray],
    device: str,
) -> np.ndarray:
    """Return the vectors of texts, those of long ones averaged over their pieces, weighted by tokens.

    Args:
        z_BD: vectors of the texts, long ones truncated.
        texts: without the prompt.
        num_tokens_B: tokens that were read of each.
        tokenizer: that of the encoder.
        prompt: prefix of every text.
        max_length: tokens that the encoder reads at once.
        embed: vectors of pieces, without the prompt, none longer than the encoder reads.
        device: on which it does so.
    """
    size = CPU_BATCH if device == "cpu" else GPU_BATCH
    for i in np.flatnonzero(num_tokens_B >= max_length):
        cut = pieces(tokenizer, prompt, texts[i], max_length)
        if len(cut.texts) > 1:
            parts = [z_BD[i : i + 1]]
            for start in range(1, len(cut.texts), size):
                pause()
                parts.append(embed(cut.texts[start : start + size]))
            z_PD = np.concatenate(parts)
            z_BD[i] = np.average(z_PD, axis=0, weights=cut.weights)
    return z_BD


def own_max_length(model: Any, tokenizer: Any, where: str, revision: str = "") -> int:
    """Return the tokens that an encoder (folder or hub name) reads at once, by its files, else `DEFAULT_LENGTH`."""
    from transformers.utils import cached_file
    from transformers.utils.hub import is_offline_mode

    # Of a hub model the file may be absent; offline, so may its copy.
    path = cached_file(
        where, "sentence_bert_config.json", revision=revision or None, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not is_offline_mode(),
    )  # fmt: skip
    named = settings_in(Path(path)).get("max_seq_length") if path else None
    default = named if isinstance(named, int) and named > 0 else DEFAULT_LENGTH
    limits = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    return min([default, *(limit for limit in limits if isinstance(limit, int) and limit > 0)])
