"""Model weights: where they are located, and the settings of a HiVES folder."""

from pathlib import Path

import pytest

from valueflow.errors import InputError
from valueflow.models import content_hash, encoder_settings, fetch, locate


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
