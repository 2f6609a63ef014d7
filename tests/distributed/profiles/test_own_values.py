"""Replies of models without a persona become texts of units; profiles and comparisons of models from them."""

import csv
import io

import pyarrow as pa
import pytest
from configs import job_config
from roots import with_version_of
from table_samples import row

from jobs import profile_model
from valueflow import store
from valueflow.config import load
from valueflow.distributed.profiles.own_values import replies
from valueflow.distributed.steering.generate import study
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, text_id
from valueflow.store import Build, GenerationsDetails, ProfilesDetails

KIND = "I sat with my neighbour until her fever was gone, number {}."
HARD = "I did not help the man who fell; it was none of my business, number {}."


def generated(root, replies_of: dict[str, list[tuple[str, str, str]]], plan: str = "p") -> list[Build]:
    """Builds of generations, one a model, of rows (condition, response, outcome)."""
    builds = []
    for number, (model, rows) in enumerate(replies_of.items()):
        build = Build(str(root), "generations", f"g{plan}{number}")
        table = []
        for i, (condition, response, outcome) in enumerate(rows):
            known = {"generation_id": f"{model}{i}", "model": model, "condition": condition, "query_id": f"q{i // 2}"}
            known |= {"response": response, "response_text_id": text_id(response), "outcome": outcome, "error": None}
            table.append(row(SCHEMAS["generations"], i) | known)
        part = store.write_part(build, pa.Table.from_pylist(table, SCHEMAS["generations"]), "0")
        store.commit(build, GenerationsDetails(plan=plan, generations=len(table)), [], [part])
        builds.append(build)
    return builds


def test_only_replies_without_a_persona_that_count_are_texts_of_the_model(tmp_path, caplog):
    rows = [("bare", "I would help.", "answer"), ("bare", "I cannot say.", "refusal"), ("value", "I hate it.", "answer")]
    builds = generated(tmp_path, {"m1": rows, "m2": [("bare", "Perhaps.", "hedge")]})
    found = store.read_table(replies(builds, ["answer", "hedge"], str(tmp_path))).to_pylist()
    kept = sorted((r["unit"], r["text"], r["thread"]) for r in found)
    assert kept == [("m1", "I would help.", "q0"), ("m2", "Perhaps.", "q0")]
    assert "m1: refusal 1" in caplog.text


def test_generations_without_a_bare_reply_are_refused(tmp_path):
    builds = generated(tmp_path, {"m": [("value", "I hate it.", "answer")]})
    with pytest.raises(InputError, match="bare"):
        replies(builds, ["answer"], str(tmp_path))


def config_of(*overrides: str) -> profile_model.SCHEMA:
    return load(profile_model.SCHEMA, "", ["root=nowhere", *overrides])


def test_models_are_asked_the_shipped_queries_without_a_persona_and_nothing_else():
    of = study(config_of("models=[{kind: simulated, name: a}]", "values=[svt]", "replicates=2").steering())
    (condition,) = of.plan.conditions
    assert (condition.condition, condition.persona, of.plan.replicates) == ("bare", "", 2)
    assert len(of.plan.queries) == 20
    assert {value.theory for value in of.values} == {"svt"}  # the export for a judge names them


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["models=[{kind: simulated, name: a}]", "generations=[x]"], "generations"),
        (["models=[{kind: simulated, name: a}, {kind: simulated, name: a}]"], "names must differ"),
        (["models=[{kind: vllm, name: a, model: m, temperature: 0.5}]"], "sampling.temperature"),
        (["models=[{kind: vllms, name: a}]"], "kind"),
        (["dry_run=true"], "dry_run"),
        (["queries=[]"], "queries"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_a_sentence(overrides, named):
    with pytest.raises(InputError, match=named) as refusal:
        config_of(*overrides)
    assert str(refusal.value).count("\n") == 0


def test_a_dry_run_counts_calls_and_asks_nothing(capsys):
    settings = "models=[{kind: openai, name: gpt, model: gpt, url: 'http://127.0.0.1:9/v1', key_env: ''}]"
    assert profile_model.main(config_of(settings, "dry_run=true", "max_queries=3")) is None
    assert "gpt" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.ray
def test_models_answer_first_and_are_not_asked_again(built, cluster, tmp_path, caplog):
    root = with_version_of(built.root, tmp_path)
    models = [{"kind": "simulated", "name": name, "seed": seed} for seed, name in enumerate("ab")]
    settings = {"models": models, "values": ["all"], "replicates": 3, "estimate": {"min_texts": 2, "min_relevance": 0.0}}
    build = profile_model.main(job_config(profile_model, root, **settings))
    page = (root / "reports" / f"profiles-{build.build_id}.html").read_text("utf-8")
    assert ">a</bdi>" in page
    assert ">b</bdi>" in page
    assert len(store.finished(str(root), "generations")) == 2
    assert profile_model.main(job_config(profile_model, root, **settings)) == build
    more = job_config(profile_model, root, **settings | {"models": [*models, {"kind": "simulated", "name": "c", "seed": 7}]})
    longer = profile_model.main(more)
    assert store.details_of(longer, ProfilesDetails).reused == 2
    assert len(store.finished(str(root), "generations")) == 3


@pytest.mark.ray
def test_two_models_side_by_side(built, cluster, tmp_path):
    root = with_version_of(built.root, tmp_path)
    generated(root, {"old": [("bare", "Old plan.", "answer")]}, "a")
    kind, hard = ([("bare", text.format(i), "answer") for i in range(40)] for text in (KIND, HARD))
    generated(root, {"kind": kind, "hard": hard}, "b")
    build = profile_model.main(job_config(profile_model, root, values=["svt:benevolence"]))
    with open(f"{build.url}/differences.csv", encoding="utf-8", newline="") as file:
        (difference,) = csv.DictReader(io.StringIO(file.read()))
    assert (difference["first"], difference["second"]) == ("hard", "kind")
    assert float(difference["difference"]) < 0
    assert float(difference["high"]) < 0
    assert "kind" in (root / "reports" / f"profiles-{build.build_id}.html").read_text("utf-8")
