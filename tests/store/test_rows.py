"""Rows that are no numbers of their table are refused in one sentence that names the file, by every reader of a version."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from foreign import foreign_version, written_inputs
from table_samples import FOLDER, OTHER, TABLES, Anything, made, row

from valueflow import store, vidb
from valueflow.errors import DamageError, InputError
from valueflow.evaluation.regression import training_texts
from valueflow.people.pool import version_pool
from valueflow.records import SCHEMAS, ValueId
from valueflow.service.catalog import Catalog
from valueflow.store import Build
from valueflow.vidb.validity import of_judge

VALUE = ValueId("svt:benevolence")
VALUE_FOLDER = store.value_folder(VALUE)


def handed_over(build: Build, change: Callable[[pa.Table], pa.Table], folder: str = FOLDER) -> str:
    """Change the rows of a part, and make the manifest agree with them; return the part's path."""
    manifest = store.require_manifest(build)
    [file] = [file for file in manifest.files if file.path.startswith(folder)]
    rows = change(store.read_part(build, file))
    changed = store.write_part(build, rows, file.path.rpartition("part-")[2].removesuffix(".parquet"), folder)
    written = [changed if f == file else f for f in manifest.files]
    record = store.VidbDetails if build.table == "vidb" else Anything
    store.commit(build, manifest.details(record), written_inputs(manifest), written)
    return file.path


def with_cell(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    """Put a value into the second row of a column."""

    def change(rows: pa.Table) -> pa.Table:
        cells = rows[name].to_pylist()
        cells[1] = value
        at = rows.schema.get_field_index(name)
        return rows.set_column(at, rows.schema.field(name), pa.array(cells, rows.schema.field(name).type))

    return change


def twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, rows.num_rows - 1), rows.slice(0, 1)])


NUMBERS = [(table, field.name) for table in TABLES for field in SCHEMAS[table] if pa.types.is_floating(field.type)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("table", "column"), NUMBERS)
def test_no_number_of_any_table_is_nan_or_infinite(tmp_path, table, column, number):
    build = made(tmp_path, table)
    path = handed_over(build, with_cell(column, number))
    for columns in (None, [column]):
        with pytest.raises(DamageError, match=rf"{path} is damaged.*column '{column}' has -?(nan|inf)"):
            store.read_table(build, columns)


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        *((table, twice, "2 rows have the") for table in
          ("texts", "candidates", "windows", "utilities", "vidb", "responses", "embeddings", "anchors", "anchored", "labels")),
        *((table, with_cell(name, "mft"), "rows of theory 'mft'") for table, name in
          (("vidb", "theory"), ("utilities", "theory"), ("candidates", "theory"), ("evaluations", "theory"))),
        ("vidb", with_cell("value", "achievement"), "rows of value 'achievement'"),
        ("vidb", with_cell("theta", None), "column 'theta' has 1 nulls"),
        ("vidb", with_cell("intensity", 10.5), "numbers from -10 to 10 are allowed"),
        ("utilities", with_cell("standard_error", -0.5), "has -0.5"),
        ("candidates", with_cell("direction", 2), "has 2"),
        ("rankings", with_cell("order", [0, 0]), r"\[0, 0\] is no order"),
        ("rankings", with_cell("order", [0, 2]), r"\[0, 2\] is no order"),
        ("rankings", with_cell("order", [0, 1, 2]), "another length than its window"),
        ("rankings", with_cell("order", [0, None]), "nulls in a list"),
        ("rankings", with_cell("error", "late"), "both an order and an error"),
        ("rankings", with_cell("weight", 1.5), "numbers from 0 to 1"),
        ("windows", with_cell("text_ids", ["a", "a"]), "has the text 'a' twice"),
        ("embeddings", with_cell("embedding", [1.0] * 3), "vectors of"),
        ("embeddings", with_cell("embedding", [math.nan, 0.0]), "has nan"),
    ],
)  # fmt: skip
def test_rows_that_are_none_of_their_table_are_named(tmp_path, table, change, reason):
    build = made(tmp_path, table)
    path = handed_over(build, change)
    with pytest.raises(DamageError, match=f"{path} is damaged.*{reason}"):
        store.read_table(build)


@pytest.mark.parametrize("table", ["texts", "responses", "embeddings", "labels"])
def test_an_id_in_two_parts_is_named(tmp_path, table):
    build = made(tmp_path, table)
    handed_over(build, lambda rows: pa.Table.from_pylist([row(SCHEMAS[table], n) for n in (0, 4)], SCHEMAS[table]), OTHER)
    with pytest.raises(DamageError, match="2 rows have the"):
        store.read_table(build)


@pytest.mark.parametrize("table", ["vidb", "utilities", "candidates"])
def test_a_file_of_a_value_that_the_manifest_does_not_name_is_named(tmp_path, table):
    build = made(tmp_path, table)
    manifest = store.require_manifest(build)
    for folder, reason in (("theory=svt/value=hedonism", "of a value"), (FOLDER, "a second file")):
        rows = pa.Table.from_pylist([row(SCHEMAS[table], 9, folder)], SCHEMAS[table])
        file = store.write_part(build, rows, "9", folder)
        store.commit(build, manifest.details(Anything), files=[*manifest.files, file])
        with pytest.raises(DamageError, match=rf"{file.path} is {reason} that its manifest does not name"):
            store.read_table(build)
        (Path(build.url) / file.path).unlink()


READERS: dict[str, Callable[[vidb.Vidb], object]] = {
    "evaluation": lambda version: version.anchors(VALUE),
    "service": lambda version: Catalog(version, of_judge(version, "")).load(),
    "mode fast": training_texts,
    "extension": lambda version: store.read_table(version.build, SCHEMAS["utilities"].names, VALUE_FOLDER),
    "report": lambda version: store.read_table(version.build, folder=VALUE_FOLDER),
    "people": lambda version: version_pool(version.build, VALUE),
}
CHANGES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "nan": lambda rows: with_cell("intensity", math.nan)(with_cell("theta", math.nan)(rows)),
    "infinite": lambda rows: with_cell("intensity", math.inf)(with_cell("theta", math.inf)(rows)),
    "duplicate": twice,
    "other value": with_cell("value", "power"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_a_version_that_was_handed_over_uses_such_rows(tmp_path, reader, change):
    version = foreign_version(tmp_path, None)
    READERS[reader](vidb.load(str(tmp_path)))
    path = handed_over(version, CHANGES[change], VALUE_FOLDER)
    with pytest.raises(InputError, match=path) as caught:
        READERS[reader](vidb.load(str(tmp_path)))
    assert "\n" not in str(caught.value)
