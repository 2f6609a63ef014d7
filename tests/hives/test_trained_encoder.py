"""One text, one vector: in a batch, in training, in inference, in the saved folder, and in sentence-transformers."""

import importlib.util
import re

import numpy as np
import pytest
import torch
import yaml
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertModel, Qwen3Config, Qwen3Model

from valueflow.errors import InputError
from valueflow.hives.encoder import Encoder, LoraConfig
from valueflow.hives.metrics import EmbeddingMetric
from valueflow.hives.pieces import pieces
from valueflow.models import MINILM, locate
from valueflow.report.model_card import Corpus, model_card

pytestmark = pytest.mark.component

TEXTS = [
    "She kept her promise to the child.",
    "no",
    "He lied to his brother about the money, and then he lied again. " * 20,
    "Überall gelten Regeln.  ",
]
FITTING = [0, 1, 3]  # TEXTS that no encoder here truncates
CARD = "---\nlicense: mit\n---\n\n# Card\n"


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return Encoder.load(MINILM)


@pytest.fixture
def trained(minilm) -> Encoder:
    """MiniLM with other weights, as after training."""
    encoder = Encoder.load(MINILM, max_length=40, prompt="A value is expressed: ")
    with torch.no_grad():
        for i, weight in enumerate(encoder.parameters()):
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
    return encoder


@pytest.fixture(params=["decoder", "encoder"])
def tiny(request, tmp_path) -> str:
    """A folder with a small random transformer, left to right or in both directions."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    vocabulary = {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    if request.param == "decoder":
        model = Qwen3Model(Qwen3Config(**size, **vocabulary, num_key_value_heads=2, head_dim=8))
        tokenizer.padding_side = "left"  # as that of Qwen3-Embedding
    else:
        model = BertModel(BertConfig(**size, **vocabulary))
    model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def check_same_vectors(theirs: SentenceTransformer, encoder: Encoder, atol: float = 1e-5) -> None:
    """The vectors of an encoder are those of sentence-transformers; of a longer text, the mean over its pieces."""
    expected = []
    for text in TEXTS:
        cut = pieces(encoder.tokenizer, encoder.prompt, text, encoder.max_length)
        mean = np.average(theirs.encode(cut.texts), axis=0, weights=cut.weights)
        expected.append(mean / np.linalg.norm(mean) if len(cut.texts) > 1 else mean)
    assert len(cut.texts) == 1
    np.testing.assert_allclose(encoder.embed(TEXTS), expected, atol=atol)


def test_it_is_the_published_encoder(minilm):
    z = minilm.embed(TEXTS)
    assert (z.dtype, z.shape) == (np.float32, (4, 384))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    check_same_vectors(SentenceTransformer(locate(MINILM), device="cpu"), minilm)


def test_vectors_in_bfloat16_are_nearly_the_same(minilm, monkeypatch):
    z = minilm.embed(TEXTS)
    monkeypatch.setattr(minilm, "in_bfloat16", True)
    half = minilm.embed(TEXTS)
    assert half.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-5)
    assert 0.999 < (z * half).sum(1).min() < 1 - 1e-7


def test_the_saved_folder_gives_the_same_vectors(trained, tmp_path):
    z = trained.embed(TEXTS)
    trained.save(tmp_path / "saved", CARD)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert [type(module).__name__ for module in theirs] == ["Transformer", "Pooling", "Normalize"]
    check_same_vectors(theirs, trained)
    np.testing.assert_allclose(Encoder.from_folder(str(tmp_path / "saved")).embed(TEXTS), z, atol=1e-5)
    assert (tmp_path / "saved" / "README.md").read_text() == CARD
    assert np.abs(z - Encoder.load(MINILM, max_length=40).embed(TEXTS)).max() > 0.05


@pytest.mark.parametrize("prompt", ["", "Value: "])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_both_poolings_of_both_kinds_of_model_are_saved(tiny, tmp_path, pooling, prompt):
    encoder = Encoder.load(tiny, max_length=20, pooling=pooling, prompt=prompt)
    z = encoder.embed(TEXTS)
    one_by_one = np.concatenate([encoder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(z, one_by_one, atol=1e-5)
    encoder.save(tmp_path / "saved", CARD)
    check_same_vectors(SentenceTransformer(str(tmp_path / "saved"), device="cpu"), encoder)
    again = Encoder.from_folder(str(tmp_path / "saved"))
    assert (again.pooling, again.prompt, again.max_length) == (pooling, prompt, 20)
    np.testing.assert_allclose(again.embed(TEXTS), z, atol=1e-5)


def test_a_last_layer_is_saved_with_the_rest(tiny, tmp_path):
    torch.manual_seed(0)
    encoder = Encoder.load(tiny, max_length=20, prompt="Value: ", dense=24)
    z = encoder.embed(TEXTS)
    assert z.shape == (4, 24) == (4, encoder.dimension)
    assert (z >= 0).all()
    encoder.save(tmp_path / "saved", CARD)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert [type(module).__name__ for module in theirs] == ["Transformer", "Pooling", "Dense", "Normalize"]
    check_same_vectors(theirs, encoder)
    np.testing.assert_allclose(Encoder.from_folder(str(tmp_path / "saved")).embed(TEXTS), z, atol=1e-5)
    # Stage 2 goes on from the layer; one of another width is new.
    np.testing.assert_allclose(
        Encoder.load(str(tmp_path / "saved"), max_length=20, prompt="Value: ", dense=24).embed(TEXTS), z, atol=1e-5
    )
    assert Encoder.load(str(tmp_path / "saved"), max_length=20, dense=12).embed(TEXTS).shape == (4, 12)
    config = tmp_path / "saved" / "2_Dense" / "config.json"
    config.write_text(config.read_text().replace("ReLU", "Tanh"))
    with pytest.raises(InputError, match="ends in Tanh; only ReLU is supported"):
        Encoder.from_folder(str(tmp_path / "saved"))


def test_a_last_layer_trained_in_half_precision_loads_too(tiny, tmp_path):
    encoder = Encoder.load(tiny, max_length=20, dense=24).to(torch.bfloat16)
    encoder.save(tmp_path / "saved", CARD)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    check_same_vectors(theirs, encoder, atol=0.02)
    check_same_vectors(theirs, Encoder.from_folder(str(tmp_path / "saved")))


def test_last_is_the_last_token_of_the_text(tiny):
    encoder = Encoder.load(tiny, max_length=20, pooling="last")
    for text in TEXTS:
        states = encoder.eval().model(**encoder.tokenize([text])).last_hidden_state[:, -1]
        expected = torch.nn.functional.normalize(states, dim=-1).detach()
        together = encoder(**encoder.tokenize([text, *TEXTS]))[:1].detach()
        np.testing.assert_allclose(together, expected, atol=1e-5)


@pytest.mark.parametrize("tiny", ["decoder"], indirect=True)
def test_the_side_of_padding_does_not_matter(tiny):
    encoder = Encoder.load(tiny, max_length=20, pooling="last")
    assert encoder.tokenize(TEXTS)["attention_mask"][1, 0] == 0
    left = encoder.embed(TEXTS)
    encoder.tokenizer.padding_side = "right"
    assert encoder.tokenize(TEXTS)["attention_mask"][1, 0] == 1
    np.testing.assert_allclose(encoder.embed(TEXTS), left, atol=1e-5)


def test_texts_are_cut_at_max_length(minilm):
    short = Encoder.load(MINILM, max_length=12)
    assert short.tokenize(TEXTS)["input_ids"].shape == (4, 12)
    assert minilm.tokenize(TEXTS)["input_ids"].shape == (4, 256)


def test_training_and_inference_see_the_same_text(trained):
    trained.train()
    before = [weight.clone() for weight in trained.parameters()]
    z = trained.embed(TEXTS)
    assert trained.training
    np.testing.assert_array_equal(z, trained.embed(TEXTS))
    trained.eval()
    out = trained(**trained.tokenize(TEXTS))
    np.testing.assert_allclose(out.detach()[FITTING], z[FITTING], atol=1e-5)
    assert np.abs(out.detach().numpy()[2] - z[2]).max() > 1e-3  # training truncates
    (out[0] @ out[1]).backward()
    moved = [name for name, weight in trained.named_parameters() if weight.grad is not None and weight.grad.abs().sum() > 0]
    assert len(moved) > 90
    for weight, old in zip(trained.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old)


def test_nothing_to_embed_is_no_error(minilm):
    assert minilm.embed([]).shape == (0, 384)


def test_lora_trains_little_and_is_saved_as_part_of_the_weights(tmp_path):
    pytest.importorskip("peft")
    encoder = Encoder.load(MINILM, lora=LoraConfig(rank=4))
    trainable = [weight for weight in encoder.parameters() if weight.requires_grad]
    assert 0 < sum(weight.numel() for weight in trainable) < 100_000
    with torch.no_grad():
        for weight in trainable:
            weight += 0.05
    z = encoder.embed(TEXTS)
    encoder.save(tmp_path / "saved", CARD)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS), z, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(TEXTS), z, atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("peft") is not None, reason="peft is installed")
def test_lora_without_peft_names_the_extra():
    with pytest.raises(InputError, match=re.escape("pip install 'valueflow[lora]'")):
        Encoder.load(MINILM, lora=LoraConfig())


@pytest.mark.parametrize("model", ["/no/such/folder", "package://no_such_package/model"])
def test_a_missing_base_model_is_named(model):
    with pytest.raises(InputError, match=model):
        Encoder.load(model)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        Encoder.load(str(tmp_path))
    with pytest.raises(InputError, match="is not a folder that an encoder was saved to"):
        Encoder.from_folder(str(tmp_path))
    with pytest.raises(InputError, match="is not a folder that an encoder was saved to"):
        Encoder.from_folder(MINILM)


def test_more_tokens_than_the_model_knows_are_refused():
    with pytest.raises(InputError, match=r"max_length \(513\) must be at most 512"):
        Encoder.load(MINILM, max_length=513)


def test_the_card_says_what_the_model_is():
    mine = {
        "pairwise": EmbeddingMetric(0.731, 0.7, 0.762, 0.5, 900),
        "pairwise/svt": EmbeddingMetric(0.7, 0.65, 0.75, 0.5, 400),
    }
    base = {"pairwise": EmbeddingMetric(0.57, 0.55, 0.59, 0.5, 900)}
    corpora = [Corpus("ValueEval | 23", "CC-BY-4.0", 5393, 18000), Corpus("MFRC", "CC-BY-4.0", 10, 20)]
    settings = {"max_length": 256, "pooling": "mean", "prompt": "", "seed": 0}
    card = model_card(
        "hives-mini", "all-MiniLM-L6-v2", "CC-BY-4.0", corpora, settings, {"hives-mini": mine, "base": base}, "test rows"
    )
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "sentence-transformers"
    assert front["pipeline_tag"] == "feature-extraction"
    assert (front["base_model"], front["license"]) == ("all-MiniLM-L6-v2", "cc-by-4.0")
    assert "| ValueEval \\| 23 | CC-BY-4.0 | 5,393 | 18,000 |" in card
    assert "| hierarchical ranking accuracy, pairs | mean | 0.731 [0.700, 0.762] | 0.570 [0.550, 0.590] | 0.500 | 900 |" in card
    assert "| hierarchical ranking accuracy, pairs | svt | 0.700 [0.650, 0.750] |  | 0.500 | 400 |" in card
    assert 'SentenceTransformer("hives-mini")' in card
    for title in ("Training data", "Metrics", "Intended use and limits", "How to load"):
        assert f"## {title}" in card
