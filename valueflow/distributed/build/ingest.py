"""Read corpora on the cluster into the tables texts (each distinct text once), source_labels and rejected."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import __version__, corpora, store
from valueflow.corpora import CorpusConfig
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
    unique = read.map_batches(
        Deduplicate, fn_constructor_kwargs={"texts": texts}, batch_format="pyarrow", batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.1,
    )  # fmt: skip
    counts: Counter[str] = Counter()
    for batch in watched("ingest", unique.iter_batches(batch_format="pyarrow", batch_size=None)):
        for name in ("texts", "duplicates"):
            counts[name] += pc.sum(batch[name]).as_py() or 0
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
    """Write the labels and rejected rows of a corpus; yield its texts with the name of their part."""
    for index, config in zip(batch["index"].to_pylist(), batch["config"].to_pylist(), strict=True):
        for number, (texts, labels, rejected) in enumerate(corpora.read(CorpusConfig.model_validate_json(config))):
            name = f"{index:03d}-{number:06d}"
            for table, rows in (("source_labels", labels), ("rejected", rejected)):
                if rows.num_rows:
                    store.write_part(Build(root, table, build_id), rows, name)
            count = texts.num_rows
            if not count:
                continue
            yield texts.append_column("part", pa.array([name] * count))


class Deduplicate:
    """Keeps the first row of each text id in the order of the corpora; one actor holds all ids (8 bytes each)."""

    def __init__(self, texts: Build) -> None:
        self.texts = texts
        # Empty in a new build; a restarted actor reads the ids that it has already written.
        self.seen = {int(i, 16) for i in store.committed_ids(texts, "text_id")}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the new texts of one part; return the numbers of texts and duplicates."""
        is_new = []
        for text_id in batch["text_id"].to_pylist():
            key = int(text_id, 16)
            is_new.append(key not in self.seen)
            self.seen.add(key)
        name = batch["part"][0].as_py()
        rows = batch.filter(pa.array(is_new, pa.bool_()))
        if rows.num_rows:
            store.write_part(self.texts, rows, f"{name}-{digest(batch['text_id'][0].as_py())}")
        counts = {
            "texts": rows.num_rows,
            "duplicates": batch.num_rows - rows.num_rows,
        }
        return pa.table({name: pa.array([count], pa.int64()) for name, count in counts.items()})
