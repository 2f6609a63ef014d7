"""Contents of a VIDB version's page, for the tests of pages and cards."""

import re

import numpy as np
import pyarrow as pa

from valueflow.ranking import calibration
from valueflow.ranking.calibration import Calibration
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.report.vidb_page import ValueReport
from valueflow.store import FitSummary
from valueflow.theories import theories

VALUES = [ValueId("svt:benevolence"), ValueId("mft:care-harm")]
HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)>"


def vidb_rows(value: ValueId, texts: list[str], theta: np.ndarray, num_windows: np.ndarray, scale: Calibration) -> pa.Table:
    size, error = len(texts), 1 / np.sqrt(num_windows)
    columns = {
        "theory": [value.theory] * size, "value": [value.node] * size, "text_id": [text_id(t) for t in texts], "text": texts,
        "theta": theta, "standard_error": error, "num_windows": num_windows, "wins": theta * 0, "component": theta * 0,
        "intensity": scale.to_intensity(theta), "low": scale.to_intensity(theta - 2 * error),
        "high": scale.to_intensity(theta + 2 * error), "judge_intensity": scale.to_intensity(theta),
        "judge_low": scale.to_intensity(theta - error), "judge_high": scale.to_intensity(theta + error),
        "flags": [None] * size, "human_mean": [None] * size,
        "final_rating": scale.to_intensity(theta), "agreed": [True] * size, "direction": np.sign(theta),
        "source": ["made up"] * size, "license": ["MIT"] * size,
    }  # fmt: skip
    return pa.table(columns).cast(SCHEMAS["vidb"], safe=False)


def value_report(value: ValueId, same_windows: bool = True, num_components: int = 1) -> ValueReport:
    texts = [HOSTILE, "x & y " * 200, *(f"text {i} of {value}" for i in range(28))]
    theta = np.linspace(3, -3, 30)
    scale = calibration.neutral(theta, np.abs(theta) < 0.5, 0.99)
    rows = vidb_rows(value, texts, theta, np.full(30, 16) if same_windows else np.arange(4, 34), scale)
    fit = FitSummary(
        value=value, judges=[], iterations=7, gradient_norm=1e-7, tolerance=1e-6, num_components=num_components, prior_sd=2.31,
        num_windows=240, num_shards=1, log_likelihood=-123.4, checks={},
    )  # fmt: skip
    theory = theories()[value.theory]
    node = theory.node(value.node)
    neutral = {text_id(t) for t, x in zip(texts, theta, strict=True) if abs(x) < 0.5}
    return ValueReport(value, node.name, node.definition, theory.name, rows, neutral, fit, scale)


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))
