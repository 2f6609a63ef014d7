"""`valueflow profile-model`: its options are settings of the job; what is missing is one sentence."""

import pytest

from jobs import profile_model as job
from valueflow.cli.main import main
from valueflow.cli.profile_model import model_of
from valueflow.distributed.profiles.config import SAMPLE_QUERIES

URL = "http://127.0.0.1:9/v1"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command and returns its code, the config that the job got, and the lines on standard error."""
    monkeypatch.chdir(tmp_path)
    for name in ("VALUEFLOW_SERVER", "VALUEFLOW_ROOT"):
        monkeypatch.delenv(name, raising=False)
    configs = []
    monkeypatch.setattr(job, "main", configs.append)

    def command(*words: str):
        try:
            code = main(["profile-model", *words])
        except SystemExit as ended:
            code = ended.code
        return code, configs[-1] if configs else None, capsys.readouterr().err.splitlines()

    return command


@pytest.mark.parametrize(
    ("words", "key_env", "expected"),
    [
        (f"qwen3@{URL}", None, {"kind": "openai", "name": "qwen3", "model": "qwen3", "url": URL, "key_env": ""}),
        (f"qwen3@{URL}", "MY_KEY", {"kind": "openai", "name": "qwen3", "model": "qwen3", "url": URL, "key_env": "MY_KEY"}),
        ("Qwen/Qwen3-8B", None, {"kind": "vllm", "name": "Qwen3-8B", "model": "Qwen/Qwen3-8B"}),
    ],
)
def test_a_model_of_the_command_line(words, key_env, expected):
    assert model_of(words, key_env) == expected


def test_the_key_of_openai_goes_to_openai_alone():
    assert model_of("gpt@https://api.openai.com/v1", None)["key_env"] == "OPENAI_API_KEY"
    assert model_of("gpt@https://api.openai.com.example.org/v1", None)["key_env"] == ""


def test_options_are_settings_of_the_job(run):
    words = [
        "--model",
        f"a@{URL}",
        "--model",
        f"b@{URL}",
        "--value",
        "svt",
        "--root",
        "r",
        "replicates=3",
        "cluster.num_cpus=4",
    ]
    code, config, _ = run(*words)
    assert code == 0
    assert ([m.name for m in config.models], config.values, config.root) == (["a", "b"], ["svt"], "r")
    assert (config.replicates, config.cluster.num_cpus, config.queries) == (3, 4, [SAMPLE_QUERIES])


def test_a_config_has_settings_of_its_own_and_options_take_precedence(run, tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text("root: elsewhere\nmodels: [{kind: simulated, name: s}]\nqueries: [q.csv]\n")
    _, config, _ = run("--config", str(path))
    assert (config.root, config.queries, config.models[0].name) == ("elsewhere", ["q.csv"], "s")
    _, config, _ = run("--config", str(path), "--queries", "other.csv", "--root", "r")
    assert (config.root, config.queries) == ("r", ["other.csv"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--model"),
        (["--model", URL], f"write NAME@{URL}"),
        (["--model", f"a@{URL}", "--model", f"a@{URL}"], "names must differ"),
        (["--config", "none.yaml"], "'none.yaml' does not exist"),
        (["--model", f"a@{URL}", "replicate=3"], "replicate: unknown key"),
    ],
)
def test_bad_options_are_one_sentence(run, words, sentence):
    code, config, err = run(*words)
    assert (code, config) == (2, None)
    assert len(err) == 1
    assert sentence in err[0]
