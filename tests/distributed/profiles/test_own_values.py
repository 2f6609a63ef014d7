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
from valueflow.distributed.profiles.own_values import replies
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, text_id
from valueflow.store import Build, GenerationsDetails

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
