"""The human queue as CSV, and the decisions that people write into it."""

from typing import NamedTuple

import pyarrow as pa

from valueflow.errors import InputError
from valueflow.tabular import cell, csv_text, strict_rows
from valueflow.theories import resolve, resolve_theory
from valueflow.voting.descend import NEUTRAL

# People fill in these columns; the others describe the question.
ANSWER_COLUMNS = ("node", "direction")
DIRECTIONS = {"1": 1, "+1": 1, "0": 0, "-1": -1, "supports": 1, "opposes": -1, "neither": 0}


class HumanDecision(NamedTuple):
    """A person's label of a text in one theory; node "" is neutral."""

    node: str
    direction: int


class HumanDecisions(NamedTuple):
    """Decisions and the place of each, both by (text id, theory)."""

    decisions: dict[tuple[str, str], HumanDecision]
    places: dict[tuple[str, str], str]


def queue_csv(rows: pa.Table) -> str:
    """Return rows of `queue` as CSV with the empty columns node and direction."""
    names = [name for name in rows.column_names if name not in ("path", "options")]
    questions = (
        [*(row[name] for name in names), " > ".join(row["path"]), " | ".join(row["options"]), "", ""]
        for row in rows.to_pylist()
    )
    return csv_text([*names, "path", "options", *ANSWER_COLUMNS], questions)


def read_decisions(urls: list[str], theories: list[str]) -> HumanDecisions:
    """Return the decisions in filled-in queues; rows without a node are skipped.

    Raises:
        InputError: a column is missing, a node or direction is unknown, or a text has two different decisions.
    """
    decisions: dict[tuple[str, str], HumanDecision] = {}
    places: dict[tuple[str, str], str] = {}
    columns = ("text_id", "theory", *ANSWER_COLUMNS)
    for row in (row for url in urls for row in strict_rows(url, list(columns))):
        where = row.location
        text_id, theory_name, node_name, direction_name = (cell(row.fields, name) for name in columns)
        node, direction = node_name.strip(), direction_name.strip().lower()
        if not node:
            if direction:
                raise InputError(f"{where} has the direction {direction!r} but no node; write a node, or {NEUTRAL!r}")
            continue
        try:
            theory = resolve_theory(theory_name)
            node_id = "" if node.lower() == NEUTRAL else resolve(node, theory).node
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if theory not in theories:
            raise InputError(f"{where}: theory {theory!r} is not in this job; its theories are {', '.join(theories)}")
        if node_id and direction not in DIRECTIONS:
            raise InputError(f"{where}: direction is {direction_name!r}; write 1 (supports), -1 (opposes) or 0 (neither)")
        decision = HumanDecision(node_id, DIRECTIONS[direction] if node_id else 0)
        key = (text_id.strip(), theory)
        if decisions.setdefault(key, decision) != decision:
            raise InputError(
                f"{where}: text {text_id} has two different decisions in {theory!r}; the other is at {places[key]}"
            )
        places.setdefault(key, where)
    return HumanDecisions(decisions, places)
