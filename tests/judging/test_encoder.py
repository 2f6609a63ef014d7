"""The encoder judge with its real weights: better than chance on published intensities it has never seen."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from valueflow.judging.encoder import EncoderRanker
from valueflow.judging.judges import EncoderJudge
from valueflow.records import text_id
from valueflow.theories import resolve


@pytest.fixture(scope="module")
def ranker():
    return EncoderRanker(EncoderJudge())


def test_the_score_of_a_text_does_not_depend_on_its_company(ranker):
    texts = ["She kept her promise to the child.", "He lied to his brother about the money.", "The bus leaves at nine."]
    together = ranker.scores(texts)
    alone = np.stack([EncoderRanker.scores(ranker, [text])[0] for text in texts])
    np.testing.assert_array_equal(together, alone)
    ranker._scores.clear()
    np.testing.assert_allclose(ranker.scores(texts[::-1])[::-1], together, atol=1e-4)


def test_windows_are_ordered_by_score(ranker):
    texts = ["I lied to him and sold the ring I had sworn to keep.", "I kept my promise to her although it cost me a lot."]
    window = {
        "window_id": ["w"], "theory": ["duty"], "value": ["fidelity"], "text_ids": [[text_id(t) for t in texts]],
        "round": pa.array([0], pa.int32()), "texts": [texts],
    }  # fmt: skip
    answered = ranker(pa.table(window)).to_pylist()[0]
    assert answered["order"] == [1, 0]
    assert answered["error"] is None


def test_published_intensities_are_told_apart(ranker, data):
    rows = [json.loads(line) for line in (data / "vidb_anchors/dev.jsonl").read_text().splitlines()]
    values = np.array([resolve(row["value"], row["theory"]) for row in rows])
    scores = ranker.scores([row["text"] for row in rows])
    mine = np.array([scores[i, ranker.columns[value]] for i, value in enumerate(values)])
    truth = np.array([row["intensity"] for row in rows])
    auc, correlation = [], []
    for value in np.unique(values):
        of_value = values == value
        supporting, opposing = mine[of_value & (truth > 0)], mine[of_value & (truth < 0)]
        auc.append((supporting[:, None] > opposing).mean())
        correlation.append(spearmanr(mine[of_value], truth[of_value]).statistic)
    assert len(auc) == 30
    assert np.mean(auc) >= 0.74
    assert np.mean(correlation) >= 0.42
