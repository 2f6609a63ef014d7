"""Rows and finished builds of every table."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from valueflow import store
from valueflow.records import SCHEMAS
from valueflow.store import Build, Details

FOLDER, OTHER = "theory=svt/value=power", "theory=svt/value=achievement"
# Number of rows in `counts`, by table; in the others the values have folders, or nothing tells the number.
COUNTS: dict[str, dict[str, Any]] = {
    "texts": {"texts": 5}, "windows": {"windows": 5}, "rankings": {"windows": 5}, "votes": {"questions": 5},
    "embeddings": {"texts": 5}, "responses": {"responses": 5}, "names": {"questions": 5},
    "generations": {"generations": 5}, "choices": {"questions": 5},
}  # fmt: skip
VALUES = ("candidates", "utilities", "vidb")
TABLES = sorted(set(SCHEMAS) - {"hives"})


class Anything(Details):
    """A record of any table."""

    COUNTS = ("counts",)
    REST_OF_CONFIG, REST_OF_COUNTS = "settings", "counts"

    settings: dict[str, Any] = {}
    counts: dict[str, Any] = {}


def row(schema: pa.Schema, number: int, folder: str = FOLDER) -> dict[str, Any]:
    """A row whose strings and numbers say its number, where their meaning allows that."""

    def cell(kind: pa.DataType) -> Any:
        if pa.types.is_string(kind):
            return f"{number:016x}"
        if pa.types.is_list(kind):
            return [cell(kind.value_type)] * 2
        return pa.scalar(number).cast(kind, safe=False).as_py()

    theory, value = (part.partition("=")[2] for part in folder.split("/"))
    known = {
        "theory": theory, "value": value, "direction": number % 3 - 1, "text_ids": [f"{number:016x}", f"{number + 1:016x}"],
        "order": [number % 2, 1 - number % 2], "error": None, "weight": number / 8, "agreement": number / 8,
        "confidence": number / 8, "relevance": number / 8, "rank": number + 1, "requested": number / 8,
        "shares": [number / 8, 1 - number / 8],
    }  # fmt: skip
    if schema.equals(SCHEMAS["rankings"]) and number % 5 == 4:
        known |= {"order": None, "error": "no order"}
    return {field.name: known.get(field.name, cell(field.type)) for field in schema}


def made(root: Path | str, table: str, inputs: tuple[Build | str, ...] = ()) -> Build:
    """A finished build of two parts, three and two rows."""
    build, schema = Build(str(root), table, "b1"), SCHEMAS[table]
    for folder, numbers in ((FOLDER, range(3)), (OTHER, range(3, 5))):
        store.write_part(build, pa.Table.from_pylist([row(schema, n, folder) for n in numbers], schema), "0", folder)
    settings, counts = {}, COUNTS.get(table, {})
    if table in VALUES:
        by_value = {"svt:power": {"mode": "identity", "knots": []}, "svt:achievement": {"mode": "identity", "knots": []}}
        settings, counts = ({"calibrations": by_value}, {}) if table == "vidb" else ({}, by_value)
    store.commit(build, Anything(settings=settings, counts=counts), inputs)
    return build
