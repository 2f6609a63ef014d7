"""The manifest of an ingest stays small, whatever a file holds."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import yaml

from jobs import ingest
from valueflow import store
from valueflow.config import load
from valueflow.distributed.build import ingest as building
from valueflow.distributed.build.ingest import MAX_REASONS, OTHER_REASONS, REASON_CHARS, reasons_of
from valueflow.records import SCHEMAS
from valueflow.store import Build, IngestDetails


def rejected(root: Path, parts: list[list[str]]) -> Build:
    build = Build(str(root), "rejected", "r")
    for number, reasons in enumerate(parts):
        rows = [{"source": "s", "source_id": str(i), "file": "f", "reason": reason} for i, reason in enumerate(reasons)]
        store.write_part(build, pa.Table.from_pylist(rows, SCHEMAS["rejected"]), f"{number:03d}")
    store.commit(build, IngestDetails())
    return build


def test_few_reasons_are_counted_one_by_one(tmp_path):
    parts = [["text is empty"] * 3 + ["no license"], ["no license"] * 2]
    assert reasons_of(rejected(tmp_path, parts)) == {"text is empty": 3, "no license": 3}
    assert not reasons_of(rejected(tmp_path / "none", []))


def test_of_many_reasons_the_common_ones_are_kept_and_the_others_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "COUNTED_REASONS", 300)
    parts = [[f"direction {part}-{i} is wrong" for i in range(900)] + ["text is empty"] * 50 for part in range(5)]
    parts[0] += ["x" * 10_000 + str(i) for i in range(10)]
    counts = reasons_of(rejected(tmp_path, parts))
    assert counts["text is empty"] == 250
    assert counts["x" * (REASON_CHARS - 1) + "…"] == 10
    assert counts.total() == 5 * 950 + 10
    assert len(counts) == MAX_REASONS + 1
    assert counts[OTHER_REASONS] > 4000


def test_a_file_with_another_fault_in_every_row_makes_a_small_manifest(cluster, tmp_path):
    """Twenty thousand rows, each rejected for its own reason, and one good one."""
    rows = [{"text": f"text {i}", "value": "power", "direction": f"={i}"} for i in range(20_000)]
    rows.append({"text": "I led them.", "value": "power", "direction": "1"})
    (tmp_path / "posts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {name: name for name in ("text", "value", "direction")}
    corpus = {"format": "generic", "path": str(tmp_path / "posts.jsonl"), "license": "MIT", "columns": columns}
    (tmp_path / "ingest.yaml").write_text(yaml.safe_dump({"root": str(tmp_path), "corpora": [corpus]}))
    texts = ingest.main(load(ingest.SCHEMA, str(tmp_path / "ingest.yaml"), []))
    manifest = store.require_manifest(texts)
    details = manifest.details(IngestDetails)
    assert (details.texts, details.rejected) == (1, 20_000)
    assert sum(details.reasons.values()) == 20_000
    assert len(details.reasons) == MAX_REASONS + 1
    assert len(Path(texts.url, "_manifest.json").read_bytes()) < 40_000
    assert len(store.read_table(Build(str(tmp_path), "rejected", texts.build_id))) == 20_000


def test_of_equal_texts_the_first_is_kept_whichever_shard_and_part_they_are_in(cluster, tmp_path, monkeypatch):
    """Two corpora, a part each, with common texts; ids are compared in seven shards."""
    monkeypatch.setattr(building, "ROWS_PER_SHARD", 20)
    first = [f"I kept promise {n % 60}." for n in range(100)]
    second = [f"I kept promise {n}." for n in range(40, 80)]
    corpora = []
    for name, texts in (("a", first), ("b", second)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        path = {"path": str(tmp_path / f"{name}.jsonl"), "source": name, "columns": {"text": "text"}}
        corpora.append({"format": "generic", "license": "MIT"} | path)
    (tmp_path / "ingest.yaml").write_text(yaml.safe_dump({"root": str(tmp_path), "corpora": corpora}))
    texts = ingest.main(load(ingest.SCHEMA, str(tmp_path / "ingest.yaml"), []))
    details = store.require_manifest(texts).details(IngestDetails)
    assert (details.texts, details.duplicates) == (80, 60)
    rows = store.read_table(texts).to_pylist()
    assert sorted(row["text"] for row in rows) == sorted({*first, *second})
    assert {row["source"] for row in rows if row["text"] in first} == {"a"}
    assert Counter(row["source"] for row in rows) == {"a": 60, "b": 20}
