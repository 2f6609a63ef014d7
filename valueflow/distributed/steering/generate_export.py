"""The replies as files that jobs/evaluate reads: each distinct response, and again with the echo of its prompt masked."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from valueflow import store
from valueflow.distributed.cluster import completed_results
from valueflow.evaluation.responses import SEPARATOR
from valueflow.records import S, ValueId, text_id
from valueflow.steering.conditions import Condition
from valueflow.steering.echo import MASKED_DATASET, masked
from valueflow.steering.plan import Plan
from valueflow.store import Build, File

COLUMNS = pa.schema([("query", S), ("dataset", S), ("response", S), ("generation_id", S), ("about", S), ("stance", S)])
CONDITION = ("regime", "condition", "turn", "values", "levels", "variant")


def export_responses(out: Build, files: Sequence[File], plan: Plan, values: Sequence[ValueId]) -> str:
    """Write the files of a build and return a glob of them.

    Args:
        out: build of generations, all rows of which are committed.
        files: its parts.
        plan: of the build.
        values: those that replies under a control are scored on.
    """
    folder = store.export_url(out.root, out.build_id)
    firsts = ray.remote(_first_rows).options(num_cpus=1).remote(out, list(files), list(values), _partners(plan))
    write = ray.remote(_write_file).options(num_cpus=1)
    personas = ray.put({_key(condition): condition.persona for condition in plan.conditions})
    tasks = [write.remote(out, file, number, firsts, personas, folder) for number, file in enumerate(files)]
    for _ in completed_results("export", tasks):
        pass
    return f"{folder}/responses-*.parquet"


def _key(condition: Condition) -> tuple[str, ...]:
    row = {"values": list(condition.values), "levels": list(condition.levels)}
    return _row_key({name: row.get(name, getattr(condition, name)) for name in CONDITION})


def _row_key(row: dict) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in CONDITION)


def _partners(plan: Plan) -> dict[str, list[str]]:
    """By value the values that it is paired with: an interaction is measured on the axes of both, also where one is alone."""
    partners: dict[str, list[str]] = {}
    for condition in plan.conditions:
        for value in condition.values if condition.regime == "composition" else ():
            partners[value] = list(dict.fromkeys([*partners.get(value, []), *condition.values]))
    return partners


def _first_rows(out: Build, files: list[File], values: list[ValueId], partners: dict[str, list[str]]) -> pa.Table:
    """By distinct response the file where it is first, the values that rows with it are about, and its side where all agree."""
    tables = []
    for number, file in enumerate(files):
        rows = store.read_part(out, file, ["response_text_id", "response", "regime", "values", "levels"])
        rows = rows.filter(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(rows["response"], ""))), 0))
        of_rows = zip(rows["regime"].to_pylist(), rows["values"].to_pylist(), strict=True)
        about = [SEPARATOR.join(_about(regime, of, values, partners)) for regime, of in of_rows]
        sides = [(levels[0] > 0) - (levels[0] < 0) if len(levels) == 1 else 0 for levels in rows["levels"].to_pylist()]
        columns = {
            "text": rows["response_text_id"], "about": pa.array(about, S), "side": pa.array(sides, pa.int8()),
            "file": pa.array([number] * rows.num_rows, pa.int32()),
        }  # fmt: skip
        tables.append(pa.table(columns))
    grouped = pa.concat_tables(tables).group_by("text").aggregate(
        [("about", "distinct"), ("side", "min"), ("side", "max"), ("file", "min")]
    )  # fmt: skip
    union = [
        SEPARATOR.join(dict.fromkeys(v for about in abouts for v in about.split(SEPARATOR)))
        for abouts in grouped["about_distinct"].to_pylist()
    ]
    agreed = pc.if_else(pc.equal(grouped["side_min"], grouped["side_max"]), grouped["side_min"], 0)
    return pa.table({"text": grouped["text"], "about": pa.array(union, S), "side": agreed, "file": grouped["file_min"]})


def _about(regime: str, of: list[str], values: Sequence[str], partners: dict[str, list[str]]) -> list[str]:
    """The values that the study needs of a row: its own, those that they are paired with, and of a control all."""
    if regime == "composition":
        return list(dict.fromkeys(partner for value in of for partner in partners[value]))
    return of or list(values)


def _write_file(
    out: Build, file: File, number: int, firsts: pa.Table, personas: dict[tuple[str, ...], str], folder: str
) -> None:
    mine = firsts.filter(pc.equal(firsts["file"], number))
    sides = zip(mine["about"].to_pylist(), mine["side"].to_pylist(), strict=True)
    of_text = dict(zip(mine["text"].to_pylist(), sides, strict=True))
    names = ["generation_id", "query", "dataset", "response", "response_text_id", *CONDITION]
    rows: list[tuple[str, ...]] = []
    for row in store.read_part(out, file, names).to_pylist():
        if (told := of_text.pop(row["response_text_id"], None)) is None:
            continue
        about, side = told
        stance = f"{side:+d}" if side and SEPARATOR not in about else ""
        rows.append((row["query"], row["dataset"], row["response"], row["generation_id"], about, stance))
        persona = personas.get(_row_key(row), "")
        hidden = masked(row["response"], persona, map(ValueId, row["values"])) if row["values"] else ""
        if hidden and text_id(hidden) != text_id(""):
            rows.append((row["query"], row["dataset"] + MASKED_DATASET, hidden, row["generation_id"], about, stance))
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    content = io.BytesIO()
    pq.write_table(pa.table([pa.array(c, S) for c in columns], schema=COLUMNS), content, compression="zstd")
    store.write_bytes(f"{folder}/responses-{number:05d}.parquet", content.getvalue())
