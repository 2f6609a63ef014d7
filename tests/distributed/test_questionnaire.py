"""A questionnaire put to a model behind an endpoint, under personas, on a real cluster."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from configs import job_config, job_yaml
from fakes import choice_server
from kills import run_and_kill

from jobs import questionnaire
from valueflow import store
from valueflow.errors import InputError
from valueflow.store import Build, ChoicesDetails

pytestmark = pytest.mark.ray


def steerable(before: str, options: list[str]) -> list[float]:
    """A model that agrees with everything, and more of the options' end under a persona that holds the value."""
    middle = len(options) - 2
    ranks = range(len(options)) if options[0].startswith("not like me at all") else range(len(options) - 1, -1, -1)
    weights = [2.0 ** -abs(rank - middle) for rank in ranks]
    return [weight / sum(weights) for weight in weights]


@pytest.fixture
def administered(cluster, tmp_path):
    def run(url: str, **settings: object):
        model = {"kind": "openai", "name": "stub", "model": "m", "url": url, "key_env": "", "structured": "none"}
        return questionnaire.main(job_config(questionnaire, tmp_path, name="tiny-llm", models=[model], cluster={}, **settings))

    return run


def test_who_agrees_with_everything_is_told_from_who_holds_a_value(administered, capsys):
    with choice_server.start(steerable) as server:
        result = administered(server.url)
        calls = server.calls
        assert administered(server.url).study_id == result.study_id
        assert server.calls == calls
    bare = [row for row in result.tables["checks"] if row["condition"] == "bare"]
    assert {row["reading"] for row in bare} == {"probabilities", "letter"}
    for row in bare:
        assert row["acquiescence"] > 0.5
        assert row["inconsistent"] == 0
    scales = {(r["reading"], r["scale"]): r for r in result.tables["scales"] if r["condition"] == "bare"}
    assert scales["letter", "benevolence"]["mean"] == pytest.approx(3.5, abs=0.01)  # both keys: what it affirms cancels
    assert {row["level"] for row in result.tables["effects"]} == {-2, 2}
    assert all(abs(row["effect"]) < 1e-9 for row in result.tables["effects"])
    assert "acquiescence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"options": ["yes", "yes"]}, "must differ"),
        ({"conditions": {"regimes": ["user_texts"]}}, "intensity_anchor"),
        ({"items": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_bad_settings_are_one_sentence(administered, settings, match):
    with pytest.raises(InputError, match=match):
        administered("http://127.0.0.1:1/v1", **settings)


def test_two_models_of_one_name_are_refused(tmp_path):
    model = {
        "kind": "openai",
        "name": "stub",
        "model": "m",
        "url": "http://127.0.0.1:1/v1",
        "key_env": "",
        "structured": "none",
    }
    with pytest.raises(InputError, match="names must differ"):
        job_config(questionnaire, tmp_path, name="tiny-llm", models=[model, model])


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1200)  # two engines
def test_smollm2_in_a_real_engine_that_is_killed_answers_every_question_once(tmp_path):
    pytest.importorskip("vllm")
    config = str(job_yaml("questionnaire", tmp_path, "tiny-llm", root=str(tmp_path)))
    command = [sys.executable, "-m", "jobs.questionnaire", config]

    def rows() -> dict[str, dict]:
        parts = [pq.read_table(path, partitioning=None) for path in (tmp_path / "choices").rglob("part-*.parquet")]
        return {row["choice_id"]: row for part in parts for row in part.to_pylist()}

    run_and_kill(command, lambda: len(list((tmp_path / "choices").rglob("part-*.parquet"))) >= 2, 600)
    before = rows()
    subprocess.run(command, check=True)
    after = rows()
    assert 0 < len(before) < len(after) == 4 * 4 * 10
    assert {i: after[i] for i in before} == before, "what was committed before the kill is there, bit for bit"
    assert {row["error"] for row in after.values()} == {None}
    assert all(len(row["shares"]) == 6 for row in after.values() if row["reading"] == "probabilities")
    (build,) = store.finished(str(tmp_path), "choices")
    details = store.details_of(Build(str(tmp_path), "choices", build), ChoicesDetails)
    assert (details.questions, details.errors) == (160, 0)
