"""The encoder judge with its real weights: better than chance on unseen published intensities."""

import numpy as np
import pyarrow as pa
import pytest
from hives_folder import MAX_LENGTH, PROMPT, save_tiny

from benchmarks.hives import judged
from valueflow.hives.pieces import pieces
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker, LayerEncoder
from valueflow.models import MINILM, locate
from valueflow.records import text_id


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


def test_published_intensities_are_discriminated(ranker, data):
    auc, correlation, num_values = judged(ranker, str(data))["all"]
    assert num_values == 30
    assert auc >= 0.74
    assert correlation >= 0.42


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
    np.testing.assert_allclose(LayerEncoder(MINILM)(TEXTS), states(locate(MINILM), TEXTS, 256), atol=1e-4)


def test_a_hives_folder_judges_with_the_prompt_and_length_it_was_trained_with(tmp_path, monkeypatch):
    monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path / "cache"))
    folder = str(save_tiny(tmp_path / "hives"))
    encoder = LayerEncoder(folder)
    cut = [pieces(encoder.tokenizer, PROMPT, text, MAX_LENGTH) for text in TEXTS]
    assert [len(text.texts) > 1 for text in cut] == [False, True]
    of_pieces = [states(folder, [PROMPT + piece for piece in text.texts], MAX_LENGTH) for text in cut]
    expected = [np.average(rows, axis=0, weights=text.weights) for rows, text in zip(of_pieces, cut, strict=True)]
    np.testing.assert_allclose(encoder(TEXTS), expected, atol=1e-5)
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
