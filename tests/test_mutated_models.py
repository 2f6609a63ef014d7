"""A model folder of which one file is mutated is loaded as a whole or refused in one sentence."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hives_folder import save_tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated, mutations, odd_json, reading

from valueflow.errors import InputError
from valueflow.hives.encoder import Encoder
from valueflow.judging import value_head
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker, LayerEncoder, _cached_head, _head
from valueflow.models import cache_folder

pytestmark = pytest.mark.component

FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "config_sentence_transformers.json",
    "sentence_bert_config.json", "1_Pooling/config.json", "model.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def header(content: bytes) -> tuple[bytes, bytes]:
    """The header of a safetensors file with its length, and the tensors."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return content[:end], content[end:]


def odd_file(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    if name == "model.safetensors":
        head, rest = header(content)
        return mutations.map(lambda operations: mutated(head, operations) + rest)
    tree = json.loads(content)
    if name == "tokenizer.json":  # the vocabulary alone has 30,000 places
        vocabulary = dict(list(tree["model"]["vocab"].items())[:5])
        tree = tree | {"model": tree["model"] | {"vocab": vocabulary}}
    return odd_json(tree) | mutations.map(lambda operations: mutated(content, operations))


def check_folder(tiny: Path, name: str, content: bytes) -> None:
    folder = tiny.with_name("changed")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny, folder, copy_function=lambda a, b: Path(b).hardlink_to(a))
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    reading(lambda: LayerEncoder(str(folder)))
    reading(lambda: Encoder.from_folder(str(folder)))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=3, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_a_model_folder_with_a_mutated_file_is_loaded_or_refused(tiny, name, data):
    if (tiny / name).exists():
        check_folder(tiny, name, data.draw(odd_file(name, (tiny / name).read_bytes())))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_many_model_folders_with_a_mutated_file_are_loaded_or_refused(tiny, name, data):
    if (tiny / name).exists():
        check_folder(tiny, name, data.draw(odd_file(name, (tiny / name).read_bytes())))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}'),
        ("config.json", b'{"model_type": "bert", "num_attention_heads": 0}'),
        ("config.json", b'{"model_type": "bert", "hidden_size": "wide"}'),
        ("config.json", b"[]"),
        ("sentence_bert_config.json", b"[1]"),
        ("sentence_bert_config.json", b"{"),
        ("1_Pooling/config.json", b'{"pooling_mode": {"a": 1}}'),
    ],
)
def test_an_error_of_any_type_about_a_folder_is_one_sentence(tmp_path, tiny, name, content):
    folder = tmp_path / "changed"
    shutil.copytree(tiny, folder)
    (folder / name).write_bytes(content)
    if name == "sentence_bert_config.json":  # a folder of another maker, which tells its length there
        (folder / "config_sentence_transformers.json").unlink()
    with pytest.raises(InputError) as caught:
        (Encoder.from_folder if "Pooling" in name else LayerEncoder)(str(folder))
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path, tiny):
    folder = tmp_path / "changed"
    shutil.copytree(tiny, folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content.replace(b"word_embeddings.weight", b"word_embeddings.veight", 1))
    for load in (LayerEncoder, Encoder.from_folder):
        with pytest.raises(InputError, match="word_embeddings"):
            load(str(folder))


def test_a_damaged_head_in_the_cache_is_set_aside_and_made_again(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path))
    few = value_head.exemplars()[::10]  # a fit to all of them takes ten seconds
    monkeypatch.setattr(value_head, "exemplars", lambda: few)
    encoder = EncoderRanker(EncoderJudge(name="e", model=str(tiny))).encoder
    [file] = cache_folder().glob("value-head-*")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = _head(encoder)
    assert file.read_bytes() == content
    assert [bad.name.endswith(".bad") for bad in cache_folder().glob("value-head-*")].count(True) == 1
    np.testing.assert_array_equal(again.direction.weights_HDV, _head(encoder).direction.weights_HDV)
    for damaged in (b"", content[:20], content[:-4], content + b"\0"):
        with pytest.raises(ValueError, match="hash"):
            _cached_head(damaged)
