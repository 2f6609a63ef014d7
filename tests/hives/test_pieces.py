"""Texts longer than an encoder reads are read whole, and texts that fit keep their vectors to the last bit."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ByT5Tokenizer

from valueflow.hives.encoder import Encoder
from valueflow.hives.pieces import OVERLAP, pieces
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker, LayerEncoder
from valueflow.models import MINILM, locate

pytestmark = pytest.mark.component

CASE = Path(__file__).parents[3] / "shared" / "cases" / "28-truncation" / "long.csv"
FITTING = [f"I kept promise {i} that I made to my neighbour, although it {'really ' * i}cost me." for i in range(0, 40, 4)]
SENTENCES = [f"On day {i} the train left platform {i % 10} on time and I read a page." for i in range(30)]
ENDS = ("At last I gave my coat to a man who was freezing.", "At last I robbed a man who was freezing of his coat.")
LONG = [" ".join([*SENTENCES, end]) for end in ENDS]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINILM)


@pytest.fixture(scope="module")
def layers() -> LayerEncoder:
    return LayerEncoder(MINILM)


TEXTS = (
    LONG[0],
    "".join(chr(0x4E00 + i) for i in range(400)),
    " ".join(f"naïve façade {i}" for i in range(100)),
    "\n\n".join(f"a{i}" for i in range(400)),
    " ".join(f"{i:x}{i * 7919 % 10007:x}" for i in range(200)),
)


@pytest.mark.parametrize("text", TEXTS, ids=range(5))
def test_pieces_overlap_fit_and_cover_the_text(encoder, text):
    cut = pieces(encoder.tokenizer, "", text, 256)
    starts = []
    at = 0
    for piece in cut.texts:
        at = text.index(piece, at)
        starts.append(at)
        at += 1
    ends = [start + len(piece) for start, piece in zip(starts, cut.texts, strict=True)]
    assert (starts[0], text[ends[-1] :].strip()) == (0, "")
    assert all(start < end for start, end in zip(starts[1:], ends, strict=False))
    assert max(cut.weights) <= 254
    assert min(cut.weights) >= 254 * (1 - OVERLAP)
    lengths = [len(encoder.tokenizer(piece)["input_ids"]) for piece in cut.texts]
    assert max(lengths) <= 258


class Slow:
    """A tokenizer that does not tell where its tokens stand, as those written in Python."""

    is_fast = False

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, texts, **settings):
        assert "return_offsets_mapping" not in settings
        return {"input_ids": self.tokenizer(texts, **settings)["input_ids"]}

    def num_special_tokens_to_add(self) -> int:
        return self.tokenizer.num_special_tokens_to_add()


@pytest.mark.parametrize("text", TEXTS, ids=range(5))
def test_pieces_cover_the_text_where_a_tokenizer_does_not_tell_where_its_tokens_stand(encoder, text):
    for tokenizer in (Slow(encoder.tokenizer), ByT5Tokenizer()):
        cut = pieces(tokenizer, "", text, 256)
        at, ends = 0, [0]
        for piece in cut.texts:
            at = text.index(piece, at)
            assert at <= ends[-1]
            # What the model reads of the piece.
            read = len(tokenizer(piece, add_special_tokens=False)["input_ids"])
            ends.append(at + int(len(piece) * min(1, 256 / read)))
            at += 1
        assert len(text.rstrip()) - ends[-1] <= 2


def test_an_encoder_with_such_a_tokenizer_reads_long_texts_whole(encoder, monkeypatch):
    exact = encoder.embed([*LONG, *TEXTS])
    tokens = encoder.tokenizer.__call__

    def refuse(*args, **settings):
        assert not settings.pop("return_offsets_mapping", False)
        return tokens(*args, **settings)

    monkeypatch.setattr(type(encoder.tokenizer), "is_fast", False)
    monkeypatch.setattr(type(encoder.tokenizer), "__call__", lambda _, *args, **settings: refuse(*args, **settings))
    z_TD = encoder.embed([*LONG, *TEXTS])
    assert ((z_TD * exact).sum(1) > 0.99).all()
    assert z_TD[0] @ z_TD[1] < 0.9999


def test_texts_that_fit_have_the_same_bits_alone_and_beside_long_ones(encoder, layers):
    for embed in (encoder.embed, layers):
        mixed = embed([*FITTING, *LONG, "short"])
        # What truncation gave: the vectors that every text had before pieces.
        truncated = embed([*FITTING, *(" ".join(SENTENCES[:14]) for _ in LONG), "short"])
        rest = [*range(len(FITTING)), len(FITTING) + 2]
        np.testing.assert_array_equal(mixed[rest], truncated[rest])
    encoder.eval()
    with torch.inference_mode():
        plain = encoder(**encoder.tokenize(FITTING[:1])).numpy()
    np.testing.assert_array_equal(encoder.embed(FITTING[:1]), plain)


def test_the_end_of_a_long_text_counts(encoder, layers):
    z_TD = encoder.embed(LONG)
    np.testing.assert_allclose(np.linalg.norm(z_TD, axis=1), 1, atol=1e-5)
    assert z_TD[0] @ z_TD[1] < 0.9999
    # The vector of a text is the mean of the vectors of its pieces.
    cut = pieces(encoder.tokenizer, "", LONG[0], 256)
    mean_D = np.average(encoder.embed(cut.texts), axis=0, weights=cut.weights)
    assert z_TD[0] @ mean_D / np.linalg.norm(mean_D) > 0.9999
    assert not np.array_equal(*layers(LONG))


def test_a_prompt_stands_before_every_piece(encoder):
    prompted = Encoder(encoder.model, encoder.tokenizer, 256, "mean", "Which values does this text express? ")
    cut = pieces(prompted.tokenizer, prompted.prompt, LONG[0], 256)
    longest = max(len(prompted.tokenizer(prompted.prompt + piece, truncation=False)["input_ids"]) for piece in cut.texts)
    assert longest <= 258
    mean_D = np.average(prompted.embed(cut.texts), axis=0, weights=cut.weights)
    assert prompted.embed(LONG)[0] @ mean_D / np.linalg.norm(mean_D) > 0.9999


def test_an_encoder_reads_what_its_own_files_say_at_once(tmp_path):
    folder = tmp_path / "minilm"
    shutil.copytree(locate(MINILM), folder)
    named = folder / "sentence_bert_config.json"
    named.write_text(json.dumps({"max_seq_length": 96}))
    judged = LayerEncoder(str(folder))
    own = Encoder.load(str(folder))
    assert (own.max_length, judged.max_length) == (96, 96)
    assert Encoder.load(str(folder), max_length=20).max_length == 20  # what is set goes before
    named.write_text(json.dumps({"max_seq_length": 4096}))
    assert Encoder.load(str(folder)).max_length == 512  # the model's positions
    named.unlink()
    assert Encoder.load(str(folder)).max_length == 256


@pytest.mark.skipif(not CASE.exists(), reason="needs ../shared/cases")
def test_two_texts_that_differ_beyond_the_encoders_length_are_told_apart():
    with open(CASE, newline="", encoding="utf-8") as file:
        gift, robbery = (row["text"] for row in csv.DictReader(file))
    ranker = EncoderRanker(EncoderJudge())
    beginnings, _ = ranker.encoder._features([gift, robbery])
    np.testing.assert_allclose(*beginnings, atol=1e-4)
    assert np.abs(np.subtract(*ranker.encoder([gift, robbery]))).max() > 0.05
    # The side that the text takes follows its end; one sentence in thirty about a value is no text about that value.
    _, direction = ranker.judgements([gift, robbery]).mean(2).transpose(1, 0, 2)
    column = ranker.columns["svt:benevolence"]
    assert direction[0, column] > direction[1, column] + 0.02
