"""An error in a config names the key, the value and the allowed values; every YAML in conf/ loads."""

import contextlib
import importlib
import sys
from pathlib import Path

import pytest
from pydantic import Field, ValidationError, model_validator

from valueflow.config import Config, load, run_job
from valueflow.errors import InputError, allowed
from valueflow.judging.configs import JudgeConfig

CONF = Path(__file__).parents[1] / "conf"
SHIPPED = sorted(CONF.glob("*/*.yaml"))


class Windows(Config):
    num_windows: int = Field(8, ge=1, le=100)
    low: int = 0
    high: int = 10

    @model_validator(mode="after")
    def _ordered(self) -> "Windows":
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class Source(Config):
    path: str
    language: str = "en"


class Job(Config):
    root: str
    windows: Windows = Windows()
    sources: list[Source] = []
    judge: JudgeConfig | None = None
    panel: list[JudgeConfig] = []
    engine: dict = {}


def loaded(folder: Path, text: str | bytes, *overrides: str) -> Job:
    path = folder / "job.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(Job, str(path), list(overrides))


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(InputError) as refused:
        loaded(folder, text, *overrides)
    assert str(refused.value).startswith(str(folder / "job.yaml"))
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rooot: x", "rooot: unknown key; did you mean 'root'?"),
        ("windows: {num_window: 3}", "windows.num_window: unknown key; did you mean 'num_windows'?"),
        ("sources: [{path: a}, {path: b, langage: no}]", "sources.1.langage: unknown key; did you mean 'language'?"),
        ("judge: {kind: simulated, sharpnes: 2}", "judge.simulated.sharpnes: unknown key; did you mean 'sharpness'?"),
        ("panel: [{kind: encoder, modell: m}]", "panel.0.encoder.modell: unknown key; did you mean 'model'?"),
    ],
)
def test_a_misspelt_key_gets_a_near_spelling(tmp_path, text, message):
    assert message in refusal(tmp_path, f"root: r\n{text}")


def test_a_key_of_another_judge_is_not_suggested(tmp_path):
    message = refusal(tmp_path, "root: r\njudge: {kind: simulated, gpus_per_engine: 1}")
    assert "judge.simulated.gpus_per_engine: unknown key" in message
    assert "did you mean 'gpus_per_engine'" not in message


def test_a_key_like_no_other_gets_the_list(tmp_path):
    message = refusal(tmp_path, "root: r\nwindows: {zzz: 1}")
    assert "windows.zzz: unknown key; allowed: high, low, num_windows" in message


def test_a_value_out_of_range_is_named_with_its_key_and_bound(tmp_path):
    message = refusal(tmp_path, "root: r", "windows.num_windows=101")
    assert "windows.num_windows: " in message
    assert "less than or equal to 100 (got 101)" in message
    assert "override key.path=value" in message


def test_all_errors_are_reported_at_once(tmp_path):
    message = refusal(tmp_path, "windows: {num_windows: many}\nsources: [{}]")
    for expected in ("root: required", "windows.num_windows: ", "(got 'many')", "sources.0.path: required"):
        assert expected in message


def test_a_rule_across_two_fields_keeps_its_message(tmp_path):
    message = refusal(tmp_path, "root: r\nwindows: {low: 5, high: 2}")
    assert "windows: low (5) must not exceed high (2)." in message
    assert "Value error" not in message


def test_an_unknown_kind_of_judge_lists_the_kinds(tmp_path):
    message = refusal(tmp_path, "root: r\njudge: {kind: oracle}")
    assert "'oracle'" in message
    for kind in ("encoder", "simulated", "vllm"):
        assert kind in message


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"config file 'conf/no/such.yaml' does not exist; see conf/"):
        load(Job, "conf/no/such.yaml", [])


@pytest.mark.parametrize(
    "text",
    [
        "root: [unclosed",
        "root: ${nowhere}",
        "just a word",
        "- a\n- b",
        "3",
        b"root: \xff",
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused_by_name(tmp_path, text):
    refusal(tmp_path, text)


def test_an_override_of_one_item_of_a_list_works_or_is_refused(tmp_path):
    with contextlib.suppress(InputError):
        job = loaded(tmp_path, "root: r\nsources: [{path: a}, {path: b}]", "sources.1.path=c")
        assert [source.path for source in job.sources] == ["a", "c"]


def test_an_override_needs_an_equals_sign(tmp_path):
    (tmp_path / "job.yaml").write_text("root: r")
    with pytest.raises(InputError, match=r"override 'windows.low' is not of the form key.path=value"):
        load(Job, str(tmp_path / "job.yaml"), ["windows.low"])


def test_overrides_win_and_may_hold_lists_mappings_and_references(tmp_path):
    job = loaded(
        tmp_path, "root: r\nwindows: {low: 1}", "windows.low=2", "sources=[{path: '${root}/a=b.csv'}]", "engine.dtype=float16",
        "judge={kind: encoder, name: x}",
    )  # fmt: skip
    assert job.windows.low == 2
    assert job.sources == [Source(path="r/a=b.csv")]
    assert job.engine == {"dtype": "float16"}
    assert job.judge.name == "x"


def test_a_config_does_not_change_after_loading(tmp_path):
    job = loaded(tmp_path, "root: r")
    with pytest.raises(ValidationError, match="frozen"):
        job.windows.low = 3


def test_suggestions_ignore_case_and_return_the_real_spelling():
    assert allowed("benevolense", ["Benevolence", "power"]) == "did you mean 'Benevolence'?"
    assert allowed("qqq", ["a", "b"]) == "allowed: a, b"


def test_a_user_error_is_one_line_on_stderr_and_exit_code_2(tmp_path, capsys, monkeypatch):
    path = tmp_path / "job.yaml"
    path.write_text("root: r")
    for arguments in ([], [str(path), "windows.lo=1"]):
        monkeypatch.setattr(sys, "argv", ["job", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run_job(Job, print)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_other_exceptions_are_raised(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_text("root: r")
    monkeypatch.setattr(sys, "argv", ["job", str(tmp_path / "job.yaml")])

    def main(config):
        raise KeyError(config.root)

    with pytest.raises(KeyError):
        run_job(Job, main)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_yaml_in_conf_loads(path):
    job = importlib.import_module(f"jobs.{path.parent.name}")
    assert isinstance(load(job.SCHEMA, str(path), []), job.SCHEMA)


def test_every_job_ships_a_config():
    jobs = {path.stem for path in (CONF.parent / "jobs").glob("*.py")} - {"__init__"}
    assert {path.parent.name for path in SHIPPED} == jobs
