"""Read corpora on the cluster into the tables texts (each distinct text once), source_labels and rejected."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import __version__, corpora, store
from valueflow.corpora import CorpusConfig
from valueflow.distributed.cluster import completed_results, ordered_results
from valueflow.distributed.watch import watched
from valueflow.errors import InputError
from valueflow.records import digest
from valueflow.store import Build, IngestDetails
from valueflow.tabular import urls

log = logging.getLogger(__name__)
MAX_REASONS = 100  # in a manifest
REASON_CHARS = 200
COUNTED_REASONS = 10_000  # between two parts of the rejected rows
OTHER_REASONS = "other reasons"
ROWS_PER_SHARD = 2_000_000  # whose ids one task compares


def ingest(sources: list[CorpusConfig], root: str) -> Build:
    """Return the `texts` build of these corpora; `source_labels` and `rejected` have builds of the same id.

    Raises:
        InputError: a file or a column is missing (checked before anything is read), or no row has a usable text.
    """
    for source in sources:
        corpora.check(source)
    contents = [[_content_hash(path) for path in (s.path, s.labels) if path] for s in sources]
    build_id = digest("ingest", __version__, [s.model_dump() for s in sources], contents)
    texts = Build(root, "texts", build_id)
    companions = {name: Build(root, name, build_id) for name in ("source_labels", "rejected")}
    finished = store.reusable_together([texts, *companions.values()])
    if finished:
        log.info("ingest: %s texts, done before", f"{finished.num_rows:,}")
        return texts
    for build in (texts, *companions.values()):
        store.remove_unfinished(build)
    tasks = [{"index": i, "config": source.model_dump_json()} for i, source in enumerate(sources)]
    read = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        _read, fn_kwargs={"root": root, "build_id": build_id}, batch_size=1, batch_format="pyarrow"
    )
    parts: dict[str, int] = {}
    batches: Iterable[Any] = read.iter_batches(batch_format="pyarrow", batch_size=None)
    for batch in watched("ingest", batches):
        parts.update(zip(batch["part"].to_pylist(), batch["rows"].to_pylist(), strict=True))
        log.info("ingest: %s texts", f"{sum(parts.values()):,}")
    counts = Counter({"duplicates": _drop_duplicates(texts, dict(sorted(parts.items())))})
    counts["texts"] = sum(parts.values()) - counts["duplicates"]
    log.info("ingest: %s texts, %s duplicates", f"{counts['texts']:,}", f"{counts['duplicates']:,}")
    details = IngestDetails(corpora=[s.public() for s in sources])
    paths = [s.path for s in sources]
    counts["labels"] = store.commit(companions["source_labels"], details, paths).num_rows
    counts["rejected"] = store.commit(companions["rejected"], details, paths).num_rows
    reasons = reasons_of(companions["rejected"])
    if reasons:
        log.info("ingest: %s rows rejected; most common: %s", f"{counts['rejected']:,}", reasons.most_common(3))
    if not counts["texts"]:
        raise InputError(f"no usable text in {', '.join(paths)}; {counts['rejected']} rows rejected: {reasons.most_common(3)}")
    by_reason = {f"rejected: {reason}": number for reason, number in reasons.items()}
    store.commit(texts, details.model_copy(update={**counts, "reasons": by_reason}), paths)
    return texts


def reasons_of(rejected: Build) -> Counter[str]:
    """Return rejected rows by reason: the most common reasons, and all other rows as `OTHER_REASONS`.

    A reason may quote the row, so a file may have another one in each row. Then those that are found once in a while are lost
    among the others, whose number is exact.
    """
    counts: Counter[str] = Counter()
    total = 0
    for file in store.require_manifest(rejected).files:
        for entry in pc.value_counts(store.read_part(rejected, file, ["reason"])["reason"]).to_pylist():
            reason, number = entry["values"], entry["counts"]
            counts[reason if len(reason) <= REASON_CHARS else reason[: REASON_CHARS - 1] + "…"] += number
            total += number
        counts = Counter(dict(counts.most_common(COUNTED_REASONS)))
    most = Counter(dict(counts.most_common(MAX_REASONS)))
    return most + Counter({OTHER_REASONS: total - most.total()})


def _content_hash(url: str) -> list[str]:
    hashes = []
    for file_url in urls(url):
        with store.open_bytes(file_url) as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes


def _read(batch: pa.Table, root: str, build_id: str) -> Iterator[pa.Table]:
    """Write the texts, labels and rejected rows of a corpus; yield the name and the number of texts of each part."""
    for index, config in zip(batch["index"].to_pylist(), batch["config"].to_pylist(), strict=True):
        for number, (texts, labels, rejected) in enumerate(corpora.read(CorpusConfig.model_validate_json(config))):
            name = f"{index:03d}-{number:06d}"
            for table, rows in (("texts", texts), ("source_labels", labels), ("rejected", rejected)):
                if rows.num_rows:
                    store.write_part(Build(root, table, build_id), rows, name)
            if texts.num_rows:
                yield pa.table({"part": [name], "rows": [texts.num_rows]})


def _drop_duplicates(texts: Build, parts: dict[str, int]) -> int:
    """Leave each text id in its first row, in the order of the parts; return the number of rows that were removed.

    `parts` has the number of rows of each.

    Each task has the ids of one shard, by their remainder, so that no process holds all of them (16 bytes each).
    """
    names, shards = list(parts), range(-(-sum(parts.values()) // ROWS_PER_SHARD))
    find, drop = ray.remote(_repeated_rows).options(num_cpus=1), ray.remote(_drop_rows).options(num_cpus=1)
    repeated: dict[str, list[np.ndarray]] = {}
    for of_shard in completed_results("duplicates", [find.remote(texts, names, shard, len(shards)) for shard in shards]):
        for name, rows in of_shard.items():
            repeated.setdefault(name, []).append(rows)
    tasks = [drop.remote(texts, name, parts[name], np.concatenate(rows)) for name, rows in repeated.items()]
    if tasks:
        ordered_results("duplicates", tasks)
    return sum(len(rows) for of_part in repeated.values() for rows in of_part)


def _repeated_rows(texts: Build, names: list[str], shard: int, num_shards: int) -> dict[str, np.ndarray]:
    """The rows of each part whose text id is of this shard and is that of an earlier row."""
    ids, parts, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, name in enumerate(names):
        hexadecimal = "".join(store.read_part(texts, f"part-{name}.parquet", ["text_id"])["text_id"].to_pylist())
        ids_N = np.frombuffer(bytes.fromhex(hexadecimal), ">u8").astype(np.uint64)
        rows.append(np.flatnonzero(ids_N % np.uint64(num_shards) == shard))
        ids.append(ids_N[rows[-1]])
        parts.append(np.full(len(rows[-1]), number))
    is_repeated = np.ones(sum(map(len, ids)), bool)
    is_repeated[np.unique(np.concatenate(ids), return_index=True)[1]] = False
    part, row = np.concatenate(parts)[is_repeated], np.concatenate(rows)[is_repeated]
    return {names[number]: row[part == number] for number in np.unique(part)}


def _drop_rows(texts: Build, name: str, num_rows: int, rows: np.ndarray) -> None:
    """Remove rows of a part, unless an attempt of this task that was lost has done it."""
    path = f"part-{name}.parquet"
    if not store.exists(f"{texts.url}/{path}"):
        return
    part = store.read_part(texts, path)
    if part.num_rows < num_rows:
        return
    kept = np.setdiff1d(np.arange(num_rows), rows)
    if len(kept):
        store.rewrite(texts, path, part.take(pa.array(kept)))
    else:
        store.remove_file(f"{texts.url}/{path}")
