"""The page "From 150 ratings to calibrated scores in an afternoon": its commands run, with raters who know a truth."""

import csv
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from valueflow import store, vidb
from valueflow.config import load
from valueflow.errors import InputError
from valueflow.records import digest, text_id

pytestmark = pytest.mark.ray
PAGE = Path(__file__).parents[2] / "docs" / "howto.md"


def commands() -> list[list[str]]:
    section = PAGE.read_text("utf-8").split('<a id="people"></a>')[1].split("\n## ")[0]
    lines = re.search(r"```\n(.*?)```", section, re.DOTALL)[1].splitlines()
    return [line.partition("#")[0].split()[2:] for line in lines]


def run(command: list[str], root: Path, *overrides: str) -> object:
    job, conf, *settings = command
    settings = [setting.replace("runs/demo", str(root)) for setting in settings]
    module = importlib.import_module(job)
    return module.main(load(module.SCHEMA, conf, [f"root={root}", *settings, *overrides]))


def fill(path: Path, column: str, truth: dict[tuple[str, str], float], spread: float) -> None:
    rows = list(csv.DictReader(path.open(newline="", encoding="utf-8")))
    for row in rows:
        noise = np.random.default_rng(int(digest(path.name, row["task_id"]), 16)).normal(0, spread)
        if column == "rating":
            row[column] = f"{np.clip(truth.get((row['value'], row['text_id']), 0) + noise, -10, 10):.1f}"
        else:
            row[column] = ("second", "first")[truth.get((row["value"], row["text_id"]), 0) + noise > 0]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.timeout(600)
def test_an_afternoon(cluster, tmp_path):
    ingest, build, export, import_, again = commands()
    for command in (ingest, build):
        run(command, tmp_path)
    tasks = run(export, tmp_path)
    assert (sum(t.kind == "rating" for t in tasks), sum(t.kind == "pair" for t in tasks)) == (150, 30)
    folder = tmp_path / "people" / "afternoon"
    with open("valueflow/samples/corpus.csv", newline="", encoding="utf-8") as file:
        truth = {(r["value"], text_id(r["text"])): 3.0 * int(r["direction"]) * int(r["strength"]) for r in csv.DictReader(file)}
    files = f"files=[{folder}/rate-*.csv,{folder}/compare-*.csv]"
    with pytest.raises(InputError, match="none of 360 tasks has an answer"):
        run(import_, tmp_path, files)
    for rater in ("anna", "ben"):
        fill(folder / f"rate-{rater}.csv", "rating", truth, 1.0)
        fill(folder / f"compare-{rater}.csv", "more", truth, 1.0)
    run(export, tmp_path)  # what people filled in stays
    summary = run(import_, tmp_path, files)
    assert summary.values[0].alpha > 0.85
    assert [(check.num_ratings, check.num_open, check.notes) for check in summary.raters] == [(150, 0, [])] * 2
    assert summary.judges.num_texts > 60
    assert json.loads((folder / "agreement.json").read_text())["num_unrated"] == 0
    with pytest.raises(InputError, match="set name to another"):
        run(export, tmp_path, "seed=1")

    before = vidb.load(str(tmp_path))
    run(again, tmp_path)
    version = vidb.load(str(tmp_path))
    assert version.build != before.build
    assert {calibration.mode for calibration in version.calibrations.values()} == {"human"}
    assert version.details.rated_by_humans == 150
    rows = store.read_table(version.build).to_pylist()
    rated = [row for row in rows if row["human_mean"] is not None]
    assert len(rated) == 150
