"""What a root that somebody hands over may hold: each is one sentence, also where a manifest's hashes agree with it."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import foreign_version
from table_samples import row

from valueflow import store, vidb
from valueflow.errors import InputError
from valueflow.models import encoder_settings
from valueflow.ranking.calibration import Calibration
from valueflow.records import SCHEMAS
from valueflow.store import Build

NOT_UTF8 = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
COLUMNS = {"response_id": ["a"], "query": ["q"], "dataset": ["d"], "response": ["r"], "about": ["a"]}
DEEP = b"[" * 100_000


def written(build: Build, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    store.write_file(build, "part-0.parquet", buffer.getvalue(), table.num_rows)


@pytest.mark.parametrize(
    "table",
    [
        pa.table(COLUMNS | {"response": [1.5]}).set_column(0, "response_id", pa.array([[1]])),
        pa.table(COLUMNS | {"response": NOT_UTF8}),
        pa.Table.from_arrays([pa.array(["a"])] * 6, names=[*COLUMNS, "response"]),
        pa.table({"response_id": ["a"]}),
    ],
)
@pytest.mark.parametrize("columns", [None, ["response", "response_id"]])
def test_a_part_of_other_types_is_damage(tmp_path, table, columns):
    build = Build(str(tmp_path), "responses", "b")
    written(build, table)
    with pytest.raises(InputError, match=r"part-0\.parquet is damaged"):
        store.read_part(build, "part-0.parquet", columns)


def test_a_part_whose_columns_have_another_order_is_read_by_name(tmp_path):
    build = Build(str(tmp_path), "responses", "b")
    written(build, pa.table({"extra": [1]} | dict(reversed(COLUMNS.items()))))
    assert store.read_part(build, "part-0.parquet", ["query", "response"]).to_pylist() == [{"query": "q", "response": "r"}]
    assert store.read_part(build, "part-0.parquet").column_names == list(COLUMNS)


@pytest.mark.parametrize(
    ("calibrations", "reason"),
    [
        ({"benevolence": Calibration.identity().model_dump()}, r"manifest of vidb/.*'benevolence'"),
        ({"svt:benevolens": Calibration.identity().model_dump()}, "benevolence/part-0.parquet is of a value"),
        ({"svt:benevolence": {"mode": "imported", "theta": [1, 0], "intensity": [0, 1]}}, "manifest of vidb/.*benevolence"),
        ({"svt:benevolence": {"mode": "imported", "theta": [0, 1], "intensity": [0, 1e999]}}, "manifest.*Infinity"),
        ({"svt:benevolence": {}}, "manifest of vidb/.*benevolence.mode"),
    ],
)
def test_a_calibration_that_is_none_is_one_sentence(tmp_path, calibrations, reason):
    version = foreign_version(tmp_path, None)
    with open(version.manifest_url) as file:
        manifest = json.load(file)
    manifest["config"]["calibrations"] = calibrations
    del manifest["digest"]  # as of earlier code
    store.write_bytes(version.manifest_url, json.dumps(manifest).encode())
    with pytest.raises(InputError, match=reason):
        vidb.load(str(tmp_path))


def test_a_version_of_a_value_that_no_theory_has_is_one_sentence(tmp_path):
    build, folder = Build(str(tmp_path), "vidb", "v-1"), "theory=svt/value=nonsense"
    store.write_part(build, pa.Table.from_pylist([row(SCHEMAS["vidb"], 1, folder)], SCHEMAS["vidb"]), "0", folder)
    store.commit(build, store.VidbDetails(calibrations={"svt:nonsense": Calibration.identity().model_dump()}))
    with pytest.raises(InputError, match=r"manifest of vidb/v-1: calibrations: 'svt:nonsense'"):
        vidb.load(str(tmp_path), "v-1")


def test_deep_nesting_is_damage(tmp_path):
    version = foreign_version(tmp_path, None)
    store.write_bytes(store.pointer_url(str(tmp_path)), DEEP)
    with pytest.raises(InputError, match="is damaged"):
        store.current(str(tmp_path))
    store.write_bytes(version.manifest_url, DEEP)
    assert store.finished(str(tmp_path), "vidb") == []


def test_versions_are_listed_whatever_their_time_of_creation_is(tmp_path):
    for name, created in (("a", 5), ("b", "2020"), ("c", None)):
        store.write_bytes(Build(str(tmp_path), "vidb", name).manifest_url, json.dumps({"created": created}).encode())
    assert sorted(store.finished(str(tmp_path), "vidb")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config_sentence_transformers.json", b"[1]"),
        ("config_sentence_transformers.json", b"{"),
        ("config_sentence_transformers.json", DEEP),
        ("config_sentence_transformers.json", b'{"prompts": {"text": 5}}'),
        ("tokenizer_config.json", b"\xff"),
        ("tokenizer_config.json", b"{}"),
        ("tokenizer_config.json", b'{"model_max_length": "long"}'),
        ("tokenizer_config.json", b'{"model_max_length": -1}'),
    ],
)
def test_settings_of_an_encoder_that_are_none_are_one_sentence(tmp_path, name, content):
    files = {
        "config_sentence_transformers.json": b'{"prompts": {"text": "p"}}',
        "tokenizer_config.json": b'{"model_max_length": 8}',
    }
    for file, text in (files | {name: content}).items():
        (tmp_path / file).write_bytes(text)
    with pytest.raises(InputError):
        encoder_settings(str(tmp_path))


def test_an_archive_of_arrays_is_read_or_damage_whichever_byte_changes(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(4.0), b=np.zeros((2, 3)))
    content = buffer.getvalue()

    def arrays(data: bytes) -> dict:
        with np.load(io.BytesIO(data)) as file:
            return {name: file[name] for name in ("a", "b")}

    url = str(tmp_path / "a.npz")
    for place in range(0, len(content), 3):
        data = bytearray(content)
        data[place] ^= 1 << place % 8
        store.write_bytes(url, bytes(data))
        try:
            read = store.read_parsed(url, arrays, store.ARCHIVE_ERRORS, "arrays")
        except InputError:
            continue
        assert read["a"].tolist() == [0, 1, 2, 3]
