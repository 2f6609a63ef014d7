"""Terminal tables: aligned columns, the same text at every terminal width, no control characters from the data."""

from valueflow.hives.anchors import Balance
from valueflow.judging.audit.result import AuditConfig, AuditFigure, AuditMetric, AuditResult
from valueflow.llm.cost import CostEstimate
from valueflow.report.terminal import Column, balance_table, cost_table, figure_table, text_table

ESTIMATES = [
    CostEstimate("encoder", 1_234_567, 0, 0, 89.0, 0.0, ""),
    CostEstimate("gpt", 1000, 2_000_000, 8000, 5400.0, 1234.5, "USD"),
    CostEstimate("mistral", 1000, 2_000_000, 8000, 3600.0, 3.25, "EUR"),
    CostEstimate("gpt, rating", 10, 20, 8, 90.0, 0.5, "USD"),
    CostEstimate("free", 10, 20, 8, 4.4, None, "USD"),
]


def test_columns_are_aligned_at_every_terminal_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [["short", "1.5", "x"], ["[bold]much longer[/bold] :smile:", "-10.0", "y" * 99]]
    lines = text_table([Column("name", numeric=False), Column("number"), Column("text", False, 40)], rows).splitlines()
    assert lines == [
        "name                              number  text",
        "short                                1.5  x",
        "[bold]much longer[/bold] :smile:   -10.0  " + "y" * 39 + "…",
    ]


def test_cells_stay_on_one_line_and_cannot_steer_the_terminal():
    assert text_table([Column("text", numeric=False)], [["a\nb\t\x1b[31mc"]]) == "text\na b �[31mc"


def test_the_figures_of_an_audit_have_a_line_each():
    shared = {"low": 0.6, "high": 0.8, "n": 9, "unit": "answers", "chance": 0.5, "explanation": "share"}
    accuracy = {
        "name": "accuracy",
        "label": "Accuracy",
        "estimate": 0.7,
        "mark": 0.6,
        "setting": "min_accuracy",
        "passed": True,
    }
    metric = AuditMetric(**accuracy, **shared)
    unknown = shared | {"low": None, "high": None}
    figures = [
        AuditFigure(name="debiased", label="Debiased", estimate=0.75, **shared),
        AuditFigure(name="other", label="Other", estimate=None, **unknown),
    ]
    result = AuditResult.model_construct(metrics=[metric], figures=figures, config=AuditConfig())
    assert [line.split() for line in figure_table(result).splitlines()[1:]] == [
        ["Accuracy", "0.70", "0.60", "to", "0.80", "0.50"],
        ["Debiased", "0.75", "0.60", "to", "0.80", "0.50"],
        ["Other", "–", "0.50"],
    ]


def test_cost_table_has_a_line_per_judge_and_a_total_per_currency():
    lines = cost_table(ESTIMATES).splitlines()
    assert [line.split() for line in lines[1:8]] == [
        ["encoder", "1,234,567", "0", "0", "89", "s", "0.00"],
        ["gpt", "1,000", "2,000,000", "8,000", "1.5", "h", "1,234.50", "USD"],
        ["mistral", "1,000", "2,000,000", "8,000", "60", "min", "3.25", "EUR"],
        ["gpt,", "rating", "10", "20", "8", "2", "min", "0.50", "USD"],
        ["free", "10", "20", "8", "4", "s", "no", "price", "set"],
        ["total", "3.25", "EUR"],
        ["total", "1,235.00", "USD"],
    ]
    assert len({len(line) for line in lines[:8]}) == 1  # columns
    assert lines[8:] == ["dry run: no calls were made; the call cache and retries are not included"]


def test_cost_table_says_how_to_measure_an_unknown_time():
    lines = cost_table([ESTIMATES[1], CostEstimate("a-name-longer-than-its-column", 10, 0, 0, None, 0.0, "")]).splitlines()
    assert lines[2].split() == ["a-name-longer-than-its-…", "10", "0", "0", "unknown", "0.00"]
    assert len(lines[2]) == len(lines[1])
    assert any(line.startswith("time unknown") and "jobs.audit_judge" in line for line in lines)
    assert not any("time unknown" in line for line in cost_table(ESTIMATES).splitlines())


def test_balance_table_has_a_row_per_theory_and_level():
    level = {"theory": "svt", "level": 1, "nodes": 10, "evenness": 0.875}
    assert balance_table(Balance([level], {"1": 3, "2": 12})).splitlines() == [
        "theory  level  nodes  evenness",
        "svt         1     10      0.88",
        "concept anchors: 3 span 1 theories, 12 span 2 theories",
    ]
    assert balance_table(Balance([], {"2": 1})) == "concept anchors: 1 span 2 theories"
