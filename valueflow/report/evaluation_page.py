"""The page of an evaluation: the intensity of every response on every value."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.records import ValueId
from valueflow.report.templates import render
from valueflow.theories import theories

MAX_ROWS = 60


@dataclass(frozen=True)
class EvaluationReport:
    """Contents of an evaluation's page; `rows` is the `evaluations` table."""

    rows: pa.Table
    vidb_version: str
    judge: str
    k: int
    m: int
    sampling: str
    sharpness: dict[str, float]
    counts: dict[str, int]
    config_yaml: str
    truncated: str = ""  # about responses and anchors of which the judge read the beginning
    rests_on: dict[str, str] = field(default_factory=dict)  # by value: what the intervals were estimated from


class ScoreSection(NamedTuple):
    """The responses of one value, highest intensity first; `num_hidden` of them are between `top` and `bottom`."""

    id: ValueId
    name: str
    theory_name: str
    num_rows: int
    mean: float
    width: float  # median width of the intervals
    num_failed: int  # windows
    num_missing: int  # responses without an intensity
    num_irrelevant: int  # of them, those that are below the least relevance of the settings
    top: list[dict]
    bottom: list[dict]
    num_hidden: int


def evaluation_page(report: EvaluationReport) -> str:
    """Return the page as one self-contained HTML file; of each value at most 60 responses, the highest and the lowest."""
    pairs = zip(report.rows["theory"].to_pylist(), report.rows["value"].to_pylist(), strict=True)
    values = [_score_section(report.rows, theory, node) for theory, node in sorted(set(pairs))]
    return render("evaluation.html", report=report, values=values)


def _score_section(rows: pa.Table, theory: str, node: str) -> ScoreSection:
    of_value = rows.filter(pc.and_(pc.equal(rows["theory"], theory), pc.equal(rows["value"], node)))
    scored = of_value.filter(pc.is_valid(of_value["intensity"]))
    scored = scored.sort_by([("intensity", "descending"), ("response_id", "ascending")])
    listed = scored.select(["query", "response", "intensity", "low", "high", "relevance", "num_failed", "num_windows"])
    num_top = len(listed) if len(listed) <= MAX_ROWS else MAX_ROWS // 2
    num_bottom = min(len(listed) - num_top, MAX_ROWS - num_top)
    width = scored["high"].to_numpy() - scored["low"].to_numpy()
    return ScoreSection(
        id=ValueId.of(theory, node),
        name=theories()[theory].node(node).name,
        theory_name=theories()[theory].name,
        num_rows=len(of_value),
        mean=float(scored["intensity"].to_numpy().mean()) if len(scored) else 0.0,
        width=float(np.median(width)) if len(scored) else 0.0,
        num_failed=pc.sum(of_value["num_failed"]).as_py() or 0,
        num_missing=len(of_value) - len(scored),
        num_irrelevant=max(len(of_value) - of_value["judge_intensity"].null_count - len(scored), 0),
        top=listed.slice(0, num_top).to_pylist(),
        bottom=listed.slice(len(listed) - num_bottom).to_pylist(),
        num_hidden=len(listed) - num_top - num_bottom,
    )
