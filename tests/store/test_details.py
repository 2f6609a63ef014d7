"""Details of manifests: round trip in the keys of finished builds; inputs distinguish builds from files."""

import json

import pytest

from valueflow import store
from valueflow.errors import InputError
from valueflow.store import Build, Input, Manifest

EFFECTS = {
    "name": "sim", "sharpness": 1.0, "sharpness_error": 0.1, "places": [0.0, 0.1], "places_error": [0.1, 0.1],
    "uninformative": False,
}  # fmt: skip
FIT = {
    "value": "svt:power", "iterations": 7, "gradient_norm": 1e-9, "tolerance": 1e-9, "num_components": 1, "prior_sd": 2.0,
    "log_likelihood": -1.5, "num_windows": 12, "num_shards": 1, "judges": [EFFECTS], "checks": {"bins": [1]},
}  # fmt: skip
TOTALS = {"questions": 9, "errors": 1, "tokens_in": 20, "tokens_out": 3}
WINDOWS = {"windows": 9, "errors": 1, "tokens_in": 20, "tokens_out": 3}
JUDGE = {"kind": "simulated", "name": "sim", "seed": 0}

# config and counts as manifests of finished builds hold them
SAVED = [
    (store.IngestDetails, {"corpora": [{"path": "a.csv"}]}, {"texts": 2, "duplicates": 1, "rejected": 1, "rejected: empty": 1}),
    (store.CandidatesDetails, {"values": ["all"], "seed": 0}, {"svt:power": 54}),
    (store.WindowsDetails, {"mode": "adaptive", "k": 2}, {"windows": 8, "progress": {"svt:power": [[2.0, 0.5, 1.0]]}}),
    (store.RankingsDetails, JUDGE | {"fingerprint": "77aa", "audit": "not audited"}, WINDOWS),
    (
        store.RankingsDetails,
        JUDGE
        | {"audit": "x", "vidb_version": "v-1", "responses": "r", "values": ["svt:power"], "chunk": 5, "evaluator": {"k": 6}},
        WINDOWS,
    ),
    (store.UtilitiesDetails, {"tolerance": 1e-9, "extends": "v-1"}, {"svt:power": FIT}),
    (
        store.VidbDetails,
        {"resolved": {"k": 2}, "judges": {"77aa": {"name": "sim", "sharpness": {"svt:power": 1.0}}}, "builds": {}},
        {"licenses": {"MIT": 3}, "flagged": 0, "rated by humans": 1, "filtered release": 2},
    ),
    (store.VidbDetails, {"imported": ["a.csv"], "calibrations": {}}, {"texts": 3, "duplicates": 0, "empty": 0}),
    (store.ResponsesDetails, {"path": "r.csv"}, {"responses": 3, "unreadable": 0}),
    (store.EvaluationsDetails, {"resolved": {}, "sharpness": {"svt:power": 1.0}, "vidb_version": "v-1"}, WINDOWS),
    (store.UnitTextsDetails, {"path": "u.csv"}, {"texts": 36, "units": 3, "unreadable": 0}),
    (
        store.ProfilesDetails,
        {"basis": "b", "scale": {"svt:power": 3.0}},
        {"units": 3, "reused": 1, "reliability": {"svt:power": None}},
    ),
    (store.BallotsDetails, {"descent": {}, "step": 1}, {}),
    (store.VotesDetails, JUDGE | {"fingerprint": "77aa", "audit": "passed"}, TOTALS),
    (store.LabelsDetails, {"resolved": {}, "votes": {"sim": "a1"}}, {"ballots": 4, "queued": 1, "accepted": 2, "lead": 1}),
    (store.QueueDetails, {}, {"texts": 1}),
    (
        store.GenerationsDetails,
        {"resolved": {}, "plan": "p", "models": {"m": {"kind": "vllm"}}, "sampling": {"top_p": 1}, "refused": {"top_k": "no"}},
        {"generations": 3, "errors": 1, "truncated": 0, "outcomes": {"answer": 2}, "cost": 0.5},
    ),
    (store.EmbeddingsDetails, {"model": "m", "prompt": None}, {"texts": 3, "dimension": 8}),
    (
        store.AnchorsDetails,
        {"target": 274, "named": {"kind": "vllm"}},
        {"texts": 9, "anchors": 2, "anchored": 5, "dropped": {"small": 1}, "balance": {"levels": []}},
    ),
    (store.IndividualsDetails, {"min_similarity": 0.4}, {"instances": 463}),
    (store.NamesDetails, {"kind": "openai", "name": "n"}, TOTALS),
    (store.ExtractedDetails, {"k": 20, "root": "r"}, {"texts": 3, "labelled texts": 9}),
    (store.HivesDetails, {"resolved": {}, "data_id": "d", "start": ""}, {"texts": 3, "rows": 9}),
    (store.RegressionDetails, {"model": "m", "probe": "p", "agreement": [{"value": "svt:power"}]}, {"values": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("record", "config", "counts"), SAVED, ids=lambda part: getattr(part, "__name__", ""))
def test_what_a_manifest_holds_is_read_as_a_record_and_saved_in_the_same_keys(record, config, counts):
    details = record.read(config, counts)
    assert details.saved() == (config, counts)
    assert record.read(*details.saved()) == details


def test_fields_of_a_record_are_named_after_what_they_hold():
    rankings = store.RankingsDetails.read(JUDGE | {"fingerprint": "77aa"}, WINDOWS)
    assert (rankings.judge, rankings.fingerprint, rankings.windows) == (JUDGE, "77aa", 9)
    fits = store.UtilitiesDetails.read({}, {"svt:power": FIT}).fits
    assert fits["svt:power"].judges[0].sharpness == 1.0


def manifest(inputs: list) -> Manifest:
    fields = {"table": "labels", "build_id": "l1", "created": "", "code_version": "", "git_commit": "", "attempt": ""}
    return Manifest.model_validate_json(json.dumps(fields | {"config": {}, "counts": {}, "files": [], "inputs": inputs}))


def test_inputs_of_manifests_of_earlier_code_are_builds_where_the_url_says_so():
    old = manifest(["s3://b/root/texts/t1", "runs/demo/hives/h1/", "data/corpus.csv", "s3://bucket/my texts/x"])
    assert [source.build for source in old.inputs] == [
        Build("s3://b/root", "texts", "t1"), Build("runs/demo", "hives", "h1"), None, None,
    ]  # fmt: skip
    assert old.inputs_from("texts") == [Build("s3://b/root", "texts", "t1")]


def test_inputs_are_builds_and_files():
    build = Build("root/", "texts", "t1")
    again = manifest([json.loads(Input.of(source).model_dump_json()) for source in (build, "root/texts/t1.csv")])
    assert [source.url for source in again.inputs] == ["root/texts/t1", "root/texts/t1.csv"]
    assert [source.build for source in again.inputs] == [Build("root", "texts", "t1"), None]


def test_a_manifest_of_another_shape_is_named(tmp_path):
    build = Build(str(tmp_path), "vidb", "v-1")
    store.commit(build, store.BallotsDetails(settings={"calibrations": "all"}))
    with pytest.raises(InputError, match=r"vidb/v-1: calibrations"):
        store.details_of(build, store.VidbDetails)
