"""What the jobs of ratings by people print."""

from collections import Counter

from valueflow.people.results import Summary
from valueflow.people.tasks import Task
from valueflow.report.terminal import Column, text_table


def tasks_table(tasks: list[Task]) -> str:
    """Return how many tasks each value has, and why."""
    reasons = list(dict.fromkeys(task.why for task in tasks))
    counts = Counter((task.value, task.kind, task.why) for task in tasks)
    rows = [
        [value, kind, *(str(counts[value, kind, why]) for why in reasons)]
        for value, kind in dict.fromkeys((task.value, task.kind) for task in tasks)
    ]
    return text_table([Column("value", numeric=False), Column("kind", numeric=False), *map(Column, reasons)], rows)


def agreement_table(summary: Summary) -> str:
    """Return the agreement by value, the raters, and how far the judges are from them."""
    lines: list[str] = []
    if summary.values:
        columns = [Column("value", numeric=False), *map(Column, ("texts", "ratings", "rated twice", "alpha"))]
        rows = [[v.value, str(v.num_texts), str(v.num_ratings), str(v.num_shared), _number(v.alpha)] for v in summary.values]
        lines += [text_table(columns, rows), ""]
        names = ("ratings", "open", "with others", "correlation", "offset", "spread", "most equal", "run", "s per text")
        columns = [Column("rater", numeric=False, max_width=40), *map(Column, names), Column("look at", numeric=False)]
        rows = [
            [
                r.rater,
                str(r.num_ratings),
                str(r.num_open),
                str(r.num_shared),
                _number(r.correlation),
                _number(r.offset, "+.1f"),
                _number(r.spread, ".1f"),
                _number(r.equal_share, ".0%"),
                str(r.longest_run),
                _number(r.seconds, ".0f"),
                "; ".join(r.notes),
            ]
            for r in summary.raters
        ]
        lines += [text_table(columns, rows), ""]
        lines += [f"{summary.num_unrated} of {summary.num_tasks} texts have no rating"]
        judges = summary.judges
        if judges.num_texts:
            lines += [
                f"judges on {judges.num_texts} texts drawn at random: correlation {_number(judges.correlation)}, error "
                f"{judges.rmse:.1f} points (answering 0: {judges.rmse_of_zero:.1f}), "
                f"{_number(judges.covered, '.0%')} of the mean ratings in the judges' 95 % intervals"
            ]
    for pair in summary.pairs:
        lines += [
            f"pairs ({pair.basis}): {pair.num_answers} answers, {pair.num_equal} of them equal; of the others "
            f"{_number(pair.with_judges, '.0%')} as the judges' intensities say; two raters give one answer in "
            f"{_number(pair.between_raters, '.0%')}"
        ]
    counts = {
        "rows without an answer": sum(summary.empty.values()),
        "answers that were there twice": summary.repeated,
        "rows whose text was changed, matched by id": summary.changed,
    }
    return "\n".join([*lines, *(f"{what}: {count}" for what, count in counts.items() if count)])


def _number(value: float, form: str = ".2f") -> str:
    return "-" if value != value else format(value, form)
