"""Plain-text tables that jobs print."""

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from valueflow.console import one_line
from valueflow.hives.anchors import Balance
from valueflow.judging.audit.result import AuditFigure, AuditMetric, AuditResult
from valueflow.llm.cost import CostEstimate, duration
from valueflow.report.formatting import decimal, interval
from valueflow.vidb.validity import ValidityRecord

WIDTH = 1000  # more than any table has: the text is the same in a terminal and in a pipe


class Column(NamedTuple):
    """A column; numbers are right-aligned, cells longer than `max_width` are cut."""

    name: str
    numeric: bool = True
    max_width: int | None = None


def text_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """Return an aligned table with a header line, without color or markup."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            one_line(column.name),
            justify="right" if column.numeric else "left",
            max_width=column.max_width,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*map(one_line, row))
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, color_system=None, markup=False, emoji=False, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def figure_table(result: AuditResult) -> str:
    """Return the accuracy of a judge and the figures beside the marks, one line each."""
    columns = [Column("", numeric=False), *map(Column, ("estimate", "95 % interval", "chance"))]
    figures: list[AuditMetric | AuditFigure] = [result.metric("accuracy"), *result.figures]
    rows = [[f.label, decimal(f.estimate), interval(f.low, f.high), decimal(f.chance)] for f in figures]
    return text_table(columns, rows)


def cost_table(estimates: Sequence[CostEstimate]) -> str:
    """Return the estimates of a dry run, one line each, with the total money per currency."""
    columns = [
        Column("judge", numeric=False, max_width=24),
        *map(Column, ("calls", "tokens in", "tokens out", "time", "money")),
    ]
    rows = [
        [
            e.name,
            f"{e.calls:,}",
            f"{e.tokens_in:,}",
            f"{e.tokens_out:,}",
            "unknown" if e.seconds is None else duration(e.seconds),
            "no price set" if e.money is None else f"{e.money:,.2f} {e.currency}".strip(),
        ]
        for e in estimates
    ]
    for currency in sorted({e.currency for e in estimates if e.money}):
        total = sum(e.money or 0.0 for e in estimates if e.currency == currency)
        rows.append(["total", "", "", "", "", f"{total:,.2f} {currency}"])
    notes = ["dry run: no calls were made; the call cache and retries are not included"]
    if any(e.seconds is None for e in estimates):
        notes.insert(0, "time unknown: measure the judge's speed with python -m jobs.audit_judge")
    return "\n".join([text_table(columns, rows), *notes])


def balance_table(balance: Balance) -> str:
    """Return how concept anchors spread over theories and levels."""
    columns = [Column(name, numeric=name != "theory") for name in balance.levels[0]] if balance.levels else []
    rows = [[f"{x:.2f}" if isinstance(x, float) else str(x) for x in level.values()] for level in balance.levels]
    spans = ", ".join(f"{count} span {num} theories" for num, count in balance.spans.items())
    return "\n".join([*([text_table(columns, rows)] if rows else []), f"concept anchors: {spans}"])


def validity_line(record: ValidityRecord, url: str) -> str:
    """Return what a validity record says, in one sentence, and where it is."""
    errors = list(record.content_errors.values())
    slope = sum(error.slope for error in errors) / len(errors)
    sd = sum(error.factor * error.sd for error in errors) / len(errors)
    coverage = "" if record.held_out_coverage is None else f"; held-out coverage {record.held_out_coverage:.3f}"
    kind = "texts of known direction" if errors[0].basis == "direction" else "rated texts"
    return (
        f"validity: {record.num_texts:,} {kind} of {record.num_values} values; mean slope {slope:.2f}, content error "
        f"{sd:.1f} points{coverage}: {url}"
    )
