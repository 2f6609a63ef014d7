"""A worker that makes the profiles of shards scores each distinct text once, and its memory has a limit."""

import numpy as np
import pyarrow as pa

from valueflow.distributed.profiles import run
from valueflow.profiles.estimate import EstimateConfig, TextScores
from valueflow.profiles.table import Basis, as_arrays
from valueflow.profiles.unit_texts import store_unit_texts
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.store import Build, UnitTextsDetails, part_paths, read_part, require_manifest

VALUES = (ValueId("svt:power"), ValueId("svt:benevolence"))


class LengthScorer:
    """The number of letters and of e's as intensities."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> TextScores:
        self.seen += texts
        judge_TV = np.array([[len(text) / 10, text.count("e")] for text in texts])
        return TextScores(judge_TV, np.full(judge_TV.shape, 0.5))


def made(root, units: dict[str, list[str]]) -> tuple[LengthScorer, Build]:
    rows = [
        {"row_id": f"{unit} {i}", "unit": unit, "text_id": text_id(text), "text": text, "thread": "", "weight": 1.0}
        for unit, texts in units.items()
        for i, text in enumerate(texts)
    ]
    table = pa.Table.from_pylist(rows, SCHEMAS["unit_texts"])
    texts = store_unit_texts(table, str(root), UnitTextsDetails(path="x"), [])
    basis = Basis(VALUES, dict.fromkeys(VALUES, ContentError()), dict.fromkeys(VALUES, 2.0), EstimateConfig())
    out, scorer = Build(str(root), "profiles", "p"), LengthScorer()
    worker = run.ShardProfiler(basis, [None], texts, None, out)
    worker._scorer = scorer
    for file in require_manifest(texts).files:
        worker(pa.Table.from_pylist([file.model_dump()]))
    assert len(part_paths(out)) == len(require_manifest(texts).files) > 1
    return scorer, out


OPTIONS = [f"Option {'e' * i} of the question" for i in range(6)]
UNITS = dict.fromkeys(("Ana", "Boris", "Chen", "Dora"), OPTIONS)


def test_texts_that_many_units_have_are_scored_once(tmp_path):
    scorer, _ = made(tmp_path, UNITS)
    assert sorted(scorer.seen) == sorted(OPTIONS)


def test_a_worker_that_forgets_gives_the_same_profiles(tmp_path, monkeypatch):
    whole = as_arrays(table_of(made(tmp_path / "a", UNITS)[1]))
    monkeypatch.setattr(run, "KEPT", 3)
    scorer, out = made(tmp_path / "b", UNITS)
    assert len(scorer.seen) > len(OPTIONS)
    np.testing.assert_array_equal(as_arrays(table_of(out)).columns["intensity"], whole.columns["intensity"])
    expected = np.mean([[len(text) / 10, text.count("e")] for text in OPTIONS], 0)
    np.testing.assert_allclose(whole.columns["intensity"], np.tile(expected, (4, 1)))


def table_of(out: Build) -> pa.Table:
    """The rows of a build without a manifest."""
    return pa.concat_tables([read_part(out, path) for path in part_paths(out)])
