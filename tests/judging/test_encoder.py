"""The encoder judge with its real weights: knows the value and the side of texts that it has not seen."""

import numpy as np
import pyarrow as pa
import pytest
from hives_folder import MAX_LENGTH, PROMPT, save_tiny

from benchmarks.train_encoder_head import aucs, dev, sample
from valueflow.hives.pieces import pieces
from valueflow.judging import value_head
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker, LayerEncoder
from valueflow.judging.fingerprint import fingerprint, voter_fingerprint
from valueflow.models import MINILM, locate
from valueflow.records import ValueId, text_id

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def ranker():
    return EncoderRanker(EncoderJudge())


def test_the_score_of_a_text_does_not_depend_on_its_company(ranker):
    texts = ["She kept her promise to the child.", "He lied to his brother about the money.", "The bus leaves at nine."]
    together = ranker.scores(texts)
    alone = np.stack([EncoderRanker.scores(ranker, [text])[0] for text in texts])
    np.testing.assert_array_equal(together, alone)
    ranker._judgements.clear()
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


NEUTRAL = ["The meeting is at three in room 204.", "It drizzled until eleven.", "The bus leaves from the other side at nine."]


def test_texts_that_say_nothing_about_a_value_are_tied_and_no_position_wins(ranker):
    scores = ranker.scores(NEUTRAL)
    assert np.abs(scores).mean() < 0.02
    pair, windows = NEUTRAL[1:], 400
    assert (scores[1:, ranker.columns[ValueId("duty:gratitude")]] == 0).all()
    table = {
        "window_id": [f"w{i}" for i in range(windows)],
        "theory": ["duty"] * windows, "value": ["gratitude"] * windows,
        "text_ids": [[text_id(t) for t in pair]] * windows,
        "round": pa.array([0] * windows, pa.int32()), "texts": [pair] * windows,
    }  # fmt: skip
    first = np.array([order[0] for order in ranker(pa.table(table))["order"].to_pylist()])
    assert 0.4 < first.mean() < 0.6
    assert ranker(pa.table(table))["order"].to_pylist() == ranker(pa.table(table))["order"].to_pylist()


@pytest.mark.xfail(reason="not reached: 0.56, since small relevance alone makes a zero, no mild direction", strict=True)
def test_texts_that_say_nothing_about_values_have_no_support_for_most(ranker):
    assert (ranker.scores(NEUTRAL) == 0).mean() > 0.7


def test_relevance_says_whether_a_text_concerns_a_value(ranker):
    texts = ["She thanked her aunt for the money with a long letter.", "He never thanked his aunt for the money.", *NEUTRAL]
    relevance = ranker.relevance(texts, "duty:gratitude")
    assert ((relevance >= 0) & (relevance <= 1)).all()
    assert relevance[:2].min() > 0.5
    assert relevance[2:].max() < 0.1
    assert ranker.relevance(texts, "right:political-rights").max() < 0.2


def test_any_text_gets_a_finite_score(ranker):
    scores = ranker.scores(["", "🙂", "她对朋友信守诺言。", "Elle a tenu sa promesse.", "no end of words " * 300, "\u202eabc"])
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() <= 1


def test_the_weights_that_ship_are_for_the_default_encoder_and_the_theories_as_they_are(ranker):
    probe_D = ranker.encoder([value_head.PROBE])[0]
    assert value_head.shipped(probe_D) is not None
    assert value_head.shipped(probe_D[:-1]) is None
    assert value_head.shipped(np.roll(probe_D, 1)) is None


def test_a_change_of_the_weights_is_another_judge(monkeypatch):
    before = fingerprint(EncoderJudge()), voter_fingerprint(EncoderJudge())
    monkeypatch.setattr(value_head, "SHA256", "0" * 64)
    assert not {fingerprint(EncoderJudge()), voter_fingerprint(EncoderJudge())} & set(before)


def test_the_weights_of_another_encoder_are_no_part_of_the_default_judge(monkeypatch):
    of_hub = EncoderJudge(model="sentence-transformers/all-mpnet-base-v2")
    before = fingerprint(EncoderJudge()), fingerprint(of_hub)
    monkeypatch.setattr(value_head, "MPNET_SHA256", "0" * 64)
    assert fingerprint(EncoderJudge()) == before[0]
    assert fingerprint(of_hub) != before[1]


# Lower than the bounds of the judge before (AUC 0.74, Spearman 0.42), whose settings were chosen on these very texts and whose
# columns of other values ordered them as well as the own one did.
def test_published_intensities_are_discriminated(ranker, data):
    texts, column_N, intensity_N = dev(str(data))
    own, others = aucs(ranker.scores(texts), column_N, intensity_N)
    assert len(own) == 30
    assert own.mean() >= 0.70
    assert own.mean() > others.mean()


@pytest.mark.xfail(reason="not reached: 0.702 for the own value, 0.612 in the columns of other values", strict=True)
def test_published_intensities_are_discriminated_for_the_own_value_alone(ranker, data):
    texts, column_N, intensity_N = dev(str(data))
    own, others = aucs(ranker.scores(texts), column_N, intensity_N)
    assert own.mean() - others.mean() >= 0.10


def test_statements_of_the_samples_are_discriminated_for_the_own_value_alone(ranker):
    corpus = sample("corpus.csv")
    columns = [ranker.columns[ValueId.of(*pair)] for pair in zip(corpus["theory"], corpus["value"], strict=True)]
    own, others = aucs(ranker.scores(corpus["text"]), np.array(columns), np.array(corpus["direction"], float))
    assert len(own) == 32
    assert own.mean() >= 0.70
    assert own.mean() - others.mean() >= 0.10


def states(path: str, texts: list[str], max_length: int) -> np.ndarray:
    """Mean-pooled hidden states of all layers, text by text, with transformers only."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    rows = []
    for text in texts:
        batch = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            rows.append(torch.cat([h.mean(1) for h in model(**batch, output_hidden_states=True).hidden_states], 1)[0])
    return torch.stack(rows).numpy()


TEXTS = ["She kept her promise.", "He lied. " * 60]  # the second is longer than either limit


def test_a_model_without_encoder_settings_uses_the_defaults():
    encoder, expected = LayerEncoder(MINILM), states(locate(MINILM), TEXTS, 256)
    np.testing.assert_allclose(encoder(TEXTS), expected, atol=1e-4)
    encoder.in_bfloat16 = True
    half = encoder(TEXTS)
    assert half.dtype == np.float32
    assert 1e-4 < np.abs(half - expected).mean() < 0.02


def test_a_hives_folder_judges_with_the_prompt_and_length_it_was_trained_with(tmp_path, monkeypatch):
    monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path / "cache"))
    folder = str(save_tiny(tmp_path / "hives"))
    encoder = LayerEncoder(folder)
    cut = [pieces(encoder.tokenizer, PROMPT, text, MAX_LENGTH) for text in TEXTS]
    assert [len(text.texts) > 1 for text in cut] == [False, True]
    of_pieces = [states(folder, [PROMPT + piece for piece in text.texts], MAX_LENGTH) for text in cut]
    expected = [np.average(rows, axis=0, weights=text.weights) for rows, text in zip(of_pieces, cut, strict=True)]
    np.testing.assert_allclose(encoder(TEXTS), expected, atol=1e-5)
    few = value_head.exemplars()[::10]  # a fit to all of them takes ten seconds
    monkeypatch.setattr(value_head, "exemplars", lambda: few)
    ranker = EncoderRanker(EncoderJudge(model=folder))
    assert np.isfinite(ranker.scores(TEXTS)).all()


def test_a_hives_folder_behind_a_url_is_the_same_judge(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path / "cache"))
    folder = save_tiny(tmp_path / "hives")
    memory = fsspec.filesystem("memory")
    memory.put(f"{folder}/", "/models/one/", recursive=True)
    try:
        np.testing.assert_array_equal(LayerEncoder("memory://models/one")(TEXTS), LayerEncoder(str(folder))(TEXTS))
    finally:
        memory.rm("/models", recursive=True)


def test_a_window_of_one_text_is_answered_with_its_relevance(ranker):
    texts = ["I kept my promise to her although it cost me a lot.", "The bus leaves at nine."]
    table = pa.table(
        {
            "window_id": ["a", "b", "c"], "theory": ["duty"] * 3, "value": ["fidelity"] * 3,
            "text_ids": [[text_id(texts[0])], [text_id(texts[1])], [text_id(text) for text in texts]],
            "round": pa.array([0] * 3, pa.int32()), "texts": [texts[:1], texts[1:], texts],
        }
    )  # fmt: skip
    *said, none = ranker(table)["relevance"].to_pylist()
    np.testing.assert_allclose(said, ranker.relevance(texts, "duty:fidelity"), rtol=1e-6)
    assert said[0] > 5 * said[1]
    assert none is None
