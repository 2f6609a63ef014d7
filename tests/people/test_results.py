"""From a version or evaluations under a root to files of ratings, without a cluster."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import export_rating_tasks, import_ratings
from valueflow import store, vidb
from valueflow.errors import InputError
from valueflow.judging.audit.rated_texts import rated_texts
from valueflow.people.results import ImportRatingsConfig, RatingTasksConfig
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.store import Build, EvaluationsDetails
from valueflow.vidb.ratings import read_ratings

POWER, CARE = ValueId("svt:power"), ValueId("mft:care-harm")


@pytest.fixture
def root(tmp_path) -> str:
    """A root with a published version of two values and 40 texts."""
    lines = [
        {"theory": value.theory, "value": value.node, "text": f"{value} {n}", "intensity": n - 10}
        for value in (POWER, CARE)
        for n in range(20)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    build, _ = vidb.import_version([str(tmp_path / "x.jsonl")], "MIT", "here", str(tmp_path))
    store.publish(str(tmp_path), build.build_id, store.replaceable(str(tmp_path)))
    return str(tmp_path)


def fill(path: Path, rating: str) -> None:
    rows = list(csv.DictReader(path.open(newline="", encoding="utf-8")))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"rating": rating or str(float(row["text"].rpartition(" ")[2]) - 9)} for row in rows)


def test_ratings_of_a_version_are_read_by_builds_and_audits(root, capsys):
    export = RatingTasksConfig(root=root, name="first", texts=24, raters=["anna", "ben"])
    tasks = export_rating_tasks.main(export)
    assert {value: sum(task.value == value for task in tasks) for value in (POWER, CARE)} == {POWER: 12, CARE: 12}
    folder = Path(root) / "people" / "first"
    fill(folder / "rate-anna.csv", "")
    fill(folder / "rate-ben.csv", "2")
    again = export_rating_tasks.main(export)
    assert [task.task_id for task in again] == [task.task_id for task in tasks]
    assert ",2," in (folder / "rate-ben.csv").read_text("utf-8")
    summary = import_ratings.main(ImportRatingsConfig(root=root, name="first", files=[f"{folder}/rate-*.csv"]))
    assert "100% of the ratings are equal" in capsys.readouterr().out
    assert (summary.num_tasks, summary.num_unrated, summary.judges.num_texts) == (24, 0, 12)
    assert json.loads((folder / "agreement.json").read_text("utf-8"))["raters"][0]["seconds"] is None
    read = read_ratings(summary.ratings_url)
    assert len(read) == 48
    assert sum(rating.basis == "random" for rating in read) == 24
    assert {(r["value"], r["text_id"]) for r in rated_texts(summary.ratings_url, []).to_pylist()} == {
        (task.value.node, task.text_id) for task in tasks if task.basis == "random"
    }


def test_other_tasks_do_not_take_the_place_of_those_that_people_rate(root):
    export_rating_tasks.main(RatingTasksConfig(root=root, name="first", texts=10))
    with pytest.raises(InputError, match="set name to another"):
        export_rating_tasks.main(RatingTasksConfig(root=root, name="first", texts=10, seed=1))
    export_rating_tasks.main(RatingTasksConfig(root=root, name="second", texts=10, seed=1))


def test_nothing_is_written_when_answers_are_refused(root):
    export_rating_tasks.main(RatingTasksConfig(root=root, name="first", texts=10))
    folder = Path(root) / "people" / "first"
    fill(folder / "rate.csv", "11")
    with pytest.raises(InputError, match="10 of 10 answers cannot be used"):
        import_ratings.main(ImportRatingsConfig(root=root, name="first", files=[str(folder / "rate.csv")]))
    assert not (folder / "ratings.csv").exists()
    with pytest.raises(InputError, match="'other' has no tasks"):
        import_ratings.main(ImportRatingsConfig(root=root, name="other", files=[str(folder / "rate.csv")]))


def evaluation(root: str, build_id: str, scores: dict[str, float | None], version: str = "v") -> str:
    build = Build(root, "evaluations", build_id)
    rows = [
        {"response_id": f"{i}", "response": text, "theory": "svt", "value": "power", "intensity": score,
         "low": score and score - 1,
         "high": score and score + 1}
        for i, (text, score) in enumerate(scores.items())
    ]  # fmt: skip
    store.write_part(build, pa.Table.from_pylist(rows, SCHEMAS["evaluations"]), "0", store.value_folder(POWER))
    store.commit(build, EvaluationsDetails(vidb_version=version))
    return build_id


def test_responses_about_which_judges_disagree_come_first(root):
    scores = {f"response {n}": float(n) for n in range(8)}
    first = evaluation(root, "one", {**scores, "no score": None})
    second = evaluation(root, "two", scores | {"response 1": 9.0})
    settings = {"root": root, "name": "e", "texts": 3, "random_share": 0, "evaluations": [first, second]}
    tasks = export_rating_tasks.main(RatingTasksConfig(**settings))
    assert ("judges disagree", text_id("response 1")) in {(task.why, task.text_id) for task in tasks}
    assert len(export_rating_tasks.main(RatingTasksConfig(**settings | {"name": "all", "texts": 50}))) == 8
    other = evaluation(root, "three", scores, version="w")
    with pytest.raises(InputError, match="different versions: v, w"):
        export_rating_tasks.main(RatingTasksConfig(**settings | {"evaluations": [first, other]}))
    with pytest.raises(InputError, match="mft"):
        export_rating_tasks.main(RatingTasksConfig(**settings | {"values": ["mft"]}))
