"""The human queue as a CSV that people fill in, and their decisions read back."""

import csv
import io
from typing import NamedTuple

import pyarrow as pa

from valueflow.errors import InputError
from valueflow.tabular import cell, strict_rows
from valueflow.theories import resolve, resolve_theory
from valueflow.voting.descend import NEUTRAL

# What people fill in; the other columns of the queue tell them what to decide.
ANSWERS = ("node", "direction")
DIRECTIONS = {"1": 1, "+1": 1, "0": 0, "-1": -1, "supports": 1, "opposes": -1, "neither": 0}


class Decision(NamedTuple):
    """Where a person puts a text in one theory; node "" is neutral."""

    node: str
    direction: int


def queue_csv(rows: pa.Table) -> str:
    """Return rows of `queue` as CSV with the empty columns node and direction."""
    names = [name for name in rows.column_names if name not in ("path", "options")]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*names, "path", "options", *ANSWERS])
    for row in rows.to_pylist():
        row["text"] = _plain(row["text"])
        writer.writerow([*(row[name] for name in names), " > ".join(row["path"]), " | ".join(row["options"]), "", ""])
    return text.getvalue()


def _plain(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def read_decisions(url: str, theories: list[str]) -> dict[tuple[str, str], Decision]:
    """Return the decisions of a filled-in queue by (text id, theory); rows left empty are still undecided.

    Raises:
        InputError: a column is missing, a node or direction is unknown, or a text is decided twice and differently.
    """
    found: dict[tuple[str, str], Decision] = {}
    columns = ("text_id", "theory", *ANSWERS)
    for row in strict_rows(url, list(columns)):
        where = row.location
        text_id, theory_name, node_name, direction_name = (cell(row.fields, name) for name in columns)
        node, direction = node_name.strip(), direction_name.strip().lower()
        if not node:
            if direction:
                raise InputError(f"{where} has the direction {direction!r} but no node; write a node, or {NEUTRAL!r}")
            continue
        try:
            theory = resolve_theory(theory_name)
            decided = "" if node.lower() == NEUTRAL else resolve(node, theory).node
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if theory not in theories:
            raise InputError(f"{where}: theory {theory!r} is not asked; theories are {', '.join(theories)}")
        if decided and direction not in DIRECTIONS:
            raise InputError(f"{where}: direction is {direction_name!r}; write 1 (supports), -1 (opposes) or 0 (neither)")
        decision = Decision(decided, DIRECTIONS[direction] if decided else 0)
        if found.setdefault((text_id, theory), decision) != decision:
            raise InputError(f"{where}: text {text_id} is decided twice in {theory!r}, differently")
    return found
