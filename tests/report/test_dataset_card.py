"""The dataset card has valid front matter, describes every column, and its code runs."""

import re

import pytest
import yaml
from vidb_samples import VALUES, value_report

from valueflow import store
from valueflow.ranking.calibration import Calibration
from valueflow.records import SCHEMAS
from valueflow.report.dataset_card import COLUMNS, dataset_card
from valueflow.store import Build, VidbDetails


@pytest.fixture
def version(tmp_path) -> Build:
    build = Build(str(tmp_path), "vidb", "v-1")
    reports = [value_report(value) for value in VALUES]
    for value in reports:
        store.write_part(build, value.rows, "0", store.value_folder(value.id))
    config = {
        "resolved": {"judge": {"kind": "vllm", "name": "a|b", "model": "m-1", "env": {"TOKEN": "secret"}},
                     "windows": {"mode": "balanced", "k": 2, "m": 16}},
        "judge_fingerprint": "77aa", "builds": {"texts": "t-1"},
        "calibrations": {value.id: value.calibration.model_dump() for value in reports},
    }  # fmt: skip
    store.commit(build, VidbDetails(**config), ["candidates/x", "utilities/y"])
    return build


def front_matter(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_card_has_columns_licenses_and_provenance(version: Build) -> None:
    card = dataset_card("v-1", store.require_manifest(version), {"MIT": 40, "a|<b>": 20}, ["en", "no", ""], VALUES)
    front = front_matter(card)
    assert front["license"] == "other"
    assert front["license_name"] == "per-row"
    assert front["language"] == ["en", "no"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0] == {"config_name": "svt", "data_files": "theory=svt/**/*.parquet"}
    assert list(COLUMNS) == SCHEMAS["vidb"].names
    for expected in ("a\\|b (vllm, model m-1)", "| a\\|&lt;b&gt; | 20 |", "neutral", "t-1", "not comparable across values"):
        assert expected in card, expected
    assert "secret" not in card


def test_card_of_one_license_and_of_an_imported_version(version: Build) -> None:
    identity = Calibration(mode="imported", theta=[-10, 10], intensity=[-10, 10]).model_dump()
    config = {"imported": ["benevolence_svt.csv"], "calibrations": {VALUES[0]: identity}}
    manifest = store.require_manifest(version).model_copy(update={"config": config})
    assert front_matter(dataset_card("v-1", manifest, {"CC-BY-4.0": 60}, ["en"], VALUES))["license"] == "cc-by-4.0"
    named = front_matter(dataset_card("v-1", manifest, {"AI2-ImpACT-MR": 60}, ["en"], VALUES))
    assert (named["license"], named["license_name"]) == ("other", "AI2-ImpACT-MR")
    card = dataset_card("v-1", manifest, {}, [], VALUES)
    assert "| calibration | imported |" in card
    assert "The judge is not recorded" in card


def test_the_code_on_the_card_runs(version: Build, monkeypatch) -> None:
    card = dataset_card("v-1", store.require_manifest(version), {"MIT": 60}, ["en"], VALUES)
    monkeypatch.chdir(version.url)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(block.replace("ROOT", version.root), names)
    assert len(names["rows"]) == names["table"].num_rows == len(names["anchors"].theta_A) == 30
