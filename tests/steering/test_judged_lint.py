"""Rules 3, 9 and 10: with judges whose answers are known, and with the encoder judge on the wordings that ship."""

import functools

import numpy as np
import pytest

from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.records import ValueId
from valueflow.steering.judged_lint import (
    clause_findings,
    is_ordered,
    nearest_findings,
    order_findings,
    own_levels,
    read,
    sentences,
    whole,
)
from valueflow.steering.wording import LEVELS, VARIANTS, wording_table
from valueflow.theories import operational

pytestmark = pytest.mark.component

VALUES = operational()


@functools.cache
def places() -> dict[str, tuple[int, int]]:
    """Index of the value and level of every sentence and whole text."""
    return {
        piece: (v, level)
        for v, value in enumerate(VALUES)
        for level in LEVELS
        for text in wording_table().values[value].texts[level]
        for piece in (text, *sentences(text))
    }


def perfect(texts: list[str]) -> np.ndarray:
    """A judge that knows the value and the level of every piece."""
    scores = np.zeros((len(texts), len(VALUES)))
    for n, text in enumerate(texts):
        if text in places():
            v, level = places()[text]
            scores[n, v] = level / 2
    return scores


@pytest.mark.parametrize("split", [sentences, whole])
def test_a_judge_that_knows_the_levels_finds_nothing(split):
    readings = read(wording_table(), perfect, split)
    assert readings.level_VLKW.shape == (len(VALUES), len(LEVELS) + 1, VARIANTS, len(VALUES))
    assert own_levels(readings) == pytest.approx(np.tile([-1, -0.5, 0, 0.5, 1], (len(VALUES), 1)))
    assert order_findings(readings) == clause_findings(readings) == []
    # The column of another value knows nothing of these levels.
    assert not is_ordered(readings.level_VLKW[0, :, :, 1].mean(1))


def test_levels_out_of_order_and_sentences_of_the_other_sign_are_found():
    def confused(texts: list[str]) -> np.ndarray:
        scores = perfect(texts)
        scores[:, 3] = np.where(scores[:, 3] == 1, -0.2, scores[:, 3])  # level 2 of the fourth value
        return scores

    readings = read(wording_table(), confused)
    assert {(f.rule, f.value, f.level) for f in order_findings(readings)} == {(10, VALUES[3], 2)}
    wrong = clause_findings(readings)
    assert {(f.rule, f.value, f.level) for f in wrong} == {(3, VALUES[3], 2)}
    assert len(wrong) == sum(len(sentences(text)) for text in wording_table().values[VALUES[3]].texts[2])


def test_a_text_among_those_of_another_value_is_found():
    stray = wording_table().values[VALUES[5]].texts[-1][1]

    def embed(texts: list[str]) -> np.ndarray:
        rows = [9 if text == stray else places()[text][0] for text in texts]
        return np.eye(len(VALUES))[rows]

    found = nearest_findings(wording_table(), embed)
    assert [(f.rule, f.value, f.level, f.variant) for f in found] == [(9, VALUES[5], -1, 1)]
    assert VALUES[9] in found[0].reason


@pytest.fixture(scope="module")
def ranker() -> EncoderRanker:
    return EncoderRanker(EncoderJudge())


@pytest.mark.statistics
def test_the_encoder_judge_orders_the_levels(ranker):
    readings = read(wording_table(), ranker.scores)
    failures = {ValueId(f.value) for f in order_findings(readings)}
    assert len(VALUES) - len(failures) >= 26, failures
    # Every level is on its side of the neutral persona, also where degrees are confused.
    level_VL = own_levels(readings)
    assert (level_VL[:, :2] < level_VL[:, 2:3]).all()
    assert (level_VL[:, 2:3] < level_VL[:, 3:]).all()
    # Single sentences are often misread: 141 of 1,127.
    assert len(clause_findings(readings)) < 0.15 * len(readings.clauses)
    # The columns of other values know little of these levels.
    rows = np.arange(len(VALUES))
    others = readings.level_VLKW.mean(2)[rows, :, (rows + 7) % len(VALUES)]
    assert is_ordered(others).sum() < len(VALUES) / 3


@pytest.mark.statistics
def test_wordings_are_nearest_to_their_own_value(ranker):
    width = ranker.encoder.model.config.hidden_size
    found = nearest_findings(wording_table(), lambda texts: ranker.encoder(texts)[:, -width:])
    assert {f.variant for f in found} == {2}, "a text that names its value is nearest to it"
    assert len(found) <= 15, list(map(str, found))
