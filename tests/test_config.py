"""An error in a config names the key, the value and the allowed values; every YAML in conf/ loads."""

import contextlib
import importlib
import sys
from pathlib import Path

import pytest
from mutations import within
from pydantic import Field, ValidationError, model_validator

from serve.settings import HttpConfig
from valueflow.cli.backend import read_judge
from valueflow.config import Config, load
from valueflow.errors import InputError, StorageError, allowed
from valueflow.job import run_job
from valueflow.judging.configs import JudgeConfig
from valueflow.judging.fingerprint import fingerprint

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


@pytest.mark.parametrize(
    "text",
    [
        "a: 2020-99-99\n",
        f"a: {'9' * 5_000}\n",
        "[" * 3_000,
        "a: &a [*a]\n",
        "a: \x00\n",
        "a: 1\na: 2\n",
        "? [a]\n: b\n",
        "a: [\n",
    ],
)
def test_what_is_no_yaml_is_one_line_for_every_reader(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    for read in (
        lambda: load(Job, str(path), []),
        lambda: read_judge(str(path)),
        lambda: HttpConfig(keys_file=str(path)).all_keys(),
    ):
        with pytest.raises(InputError, match=r"a\.yaml") as refused:
            read()
        assert "\n" not in str(refused.value)


def test_aliases_do_not_multiply_a_file(tmp_path):
    path = tmp_path / "a.yaml"
    levels = [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    path.write_text("\n".join(["a0: &a0 [x, x]", *levels]))
    for read in (read_judge, lambda path: HttpConfig(keys_file=path).all_keys()):
        with pytest.raises(InputError), within(5):
            read(str(path))


def test_a_message_is_one_line_and_leaves_the_middle_of_a_long_one_out():
    assert str(InputError("a:\n  b\r\nc")) == "a: b c"
    assert str(StorageError("a\nb")) == "a b"
    message = str(InputError(f"'{'x' * 10_000}' is no number; change it"))
    assert len(message) <= 2_000
    assert message.startswith("'xxx")
    assert message.endswith("xx' is no number; change it")


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
    monkeypatch.chdir(tmp_path)  # the root gets a lease
    path = tmp_path / "job.yaml"
    path.write_text("root: r")
    for arguments in ([], [str(path), "windows.lo=1"]):
        monkeypatch.setattr(sys, "argv", ["job", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run_job(Job, print)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_other_exceptions_are_raised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text("root: r")
    monkeypatch.setattr(sys, "argv", ["job", str(tmp_path / "job.yaml")])

    def main(config):
        raise KeyError(config.root)

    with pytest.raises(KeyError):
        run_job(Job, main)


SECRET = "planted-7f3a"


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (f"root: http://user:{SECRET}@host/root", []),
        (f"root: https://{SECRET}@host/root", []),
        ("root: r", [f"judge={{kind: openai, name: j, model: m, url: 'http://u:{SECRET}@host:8000/v1'}}"]),
        ("root: r", [f"engine.tracking_uri=http://u:{SECRET}@host"]),
        ("root: ${oc.env:ROOT_WITH_PASSWORD}", []),
        (f"root: r\nsources: [{{path: 's3://key:{SECRET}/x@bucket/a.csv'}}]", []),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_shown(tmp_path, monkeypatch, text, overrides):
    monkeypatch.setenv("ROOT_WITH_PASSWORD", f"simplecache::http://user:{SECRET}@host/root")
    message = refusal(tmp_path, text, *overrides)
    assert "user name or a password" in message
    assert SECRET not in message


@pytest.mark.parametrize("url", ["abfss://container@account/x", "http://[::1]:8000/@x", "sftp://user@host/x", "s3://b/a@b:c"])
def test_a_url_without_a_password_is_taken(tmp_path, url):
    assert loaded(tmp_path, f"root: '{url}'").root == url


def test_what_is_saved_is_the_text_with_resolvers_and_what_is_used_is_its_value(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("LOW", "3")
    job = loaded(
        tmp_path,
        "root: ${oc.env:SECRET}/r\nengine: {a: ['${oc.env:SECRET}', 1], b: 2}\nwindows: {low: '${oc.env:LOW}'}\n"
        "sources: [{path: '${root}/x'}, {path: plain, language: '${sources.1.path}'}]\n"
        "judge: {kind: openai, name: j, model: '${oc.env:SECRET}', key_env: ''}",
        "judge.revision=x${oc.env:SECRET}", "judge.extra.user=${oc.decode:${oc.env:SECRET}}",
    )  # fmt: skip
    assert (job.root, job.engine["a"], job.sources[0].path) == (f"{SECRET}/r", [SECRET, 1], f"{SECRET}/r/x")
    assert (job.judge.model, job.judge.revision, job.judge.extra["user"]) == (SECRET, f"x{SECRET}", SECRET)
    saved = job.public()
    assert SECRET not in str(saved) + str(job.judge.public())
    assert saved["root"] == "${oc.env:SECRET}/r"
    assert saved["engine"] == {"a": ["${oc.env:SECRET}", 1], "b": 2}
    assert saved["windows"]["low"] == 3  # numbers and choices are read back from manifests
    assert saved["sources"] == [{"path": "${oc.env:SECRET}/r/x", "language": "en"}, {"path": "plain", "language": "plain"}]
    assert saved["judge"] == job.judge.public()
    assert (saved["judge"]["model"], saved["judge"]["revision"]) == ("${oc.env:SECRET}", "x${oc.env:SECRET}")
    assert saved["judge"]["extra"] == {"user": "${oc.decode:${oc.env:SECRET}}"}


def test_a_judge_that_a_resolver_makes_is_saved_as_its_text(tmp_path):
    made = f"${{oc.create:{{kind: openai, name: j, model: {SECRET}, extra: {{user: {SECRET}}}}}}}"
    job = loaded(tmp_path, f"root: r\njudge: '{made}'")
    assert job.judge.model == SECRET
    assert job.judge.public()["extra"] == made
    assert job.judge.secrets() == {SECRET}


def test_a_copy_with_another_value_is_saved_with_that(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    job = loaded(tmp_path, "root: ${oc.env:SECRET}")
    assert job.model_copy(update={"engine": {"a": 1}}).public()["root"] == "${oc.env:SECRET}"
    assert job.model_copy(update={"root": "other"}).public()["root"] == "other"


def test_a_value_behind_a_resolver_is_part_of_the_fingerprint(tmp_path, monkeypatch):
    """Another model behind one YAML is another judge; the id of a config without resolvers does not rest on how it is saved."""
    text = "root: r\njudge: {kind: openai, name: j, model: '${oc.env:MODEL}', key_env: ''}"
    fingerprints = []
    for model in ("small", "large", "small"):
        monkeypatch.setenv("MODEL", model)
        fingerprints.append(fingerprint(loaded(tmp_path, text).judge))
    plain = loaded(tmp_path, "root: r\njudge: {kind: openai, name: j, model: small, key_env: ''}").judge
    assert fingerprints[0] == fingerprints[2] == fingerprint(plain) != fingerprints[1]


def test_settings_of_secret_names_are_saved_without_values(tmp_path):
    job = loaded(
        tmp_path,
        f"root: 'http://host/r?sig={SECRET}&x=1'\nengine: {{hf_token: {SECRET}, max_tokens: 4, env: {{A: {SECRET}}}, "
        f"x: [{{apiKey: {SECRET}}}], headers: {{A: {SECRET}}}, password: 12345, stop_token_ids: [1], tokenizer: t}}",
    )
    saved = job.public()
    assert SECRET not in str(saved)
    assert saved["root"] == "http://host/r?sig=***&x=1"
    expected = {"hf_token": "***", "env": ["A"], "x": [{"apiKey": "***"}], "headers": ["A"], "password": "***"}
    assert saved["engine"] == expected | {"max_tokens": 4, "stop_token_ids": [1], "tokenizer": "t"}


@pytest.mark.parametrize(
    "override",
    [
        f"windows.api_key={SECRET}", f"windows={{token: {SECRET}}}", f"engine.env.A={SECRET}",
        f"engine={{api_key: {SECRET}, x: [}}",
        f"judge={{kind: openai, name: j, model: m, extra: {{password: {SECRET}}}, url: 'ftp://h?key=1&token={SECRET}'}}",
        f"judge={{kind: vllm, name: j, model: m, env: [{SECRET}]}}",
    ],
)  # fmt: skip
def test_no_message_or_log_shows_a_secret(tmp_path, monkeypatch, capfd, override):
    monkeypatch.chdir(tmp_path)  # the root gets a lease
    path = tmp_path / "job.yaml"
    path.write_text("root: r")
    monkeypatch.setattr(sys, "argv", ["job", str(path), override])
    with contextlib.suppress(SystemExit):
        run_job(Job, print)
    out, err = capfd.readouterr()
    assert out + err
    assert SECRET not in err


def test_a_yaml_that_cannot_be_read_does_not_show_its_lines(tmp_path):
    assert SECRET not in refusal(tmp_path, f"root: r\nengine: {{api_key: {SECRET}")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_yaml_in_conf_loads(path):
    job = importlib.import_module(f"jobs.{path.parent.name}")
    assert isinstance(load(job.SCHEMA, str(path), []), job.SCHEMA)


def test_every_job_ships_a_config():
    jobs = {path.stem for path in (CONF.parent / "jobs").glob("*.py")} - {"__init__"}
    assert {path.parent.name for path in SHIPPED} == jobs
