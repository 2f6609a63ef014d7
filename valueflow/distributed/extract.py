"""Texts -> their nearest nodes of each theory, by the labelled texts around them in an encoder's space."""

import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.cluster import ClusterConfig, Progress
from valueflow.distributed.embed import (
    EmbedderConfig,
    embed,
    part_vectors,
    read_examples,
    read_vectors,
    resolve_labels,
    resolve_texts,
)
from valueflow.hives.extract import Extractor, NodePrediction
from valueflow.records import SCHEMAS, digest
from valueflow.store import Build, ExtractedDetails

log = logging.getLogger(__name__)


class ReferenceConfig(Config):
    """The labelled texts whose labels new texts take over."""

    texts: str = Field("latest", description="build id of the texts; latest: the newest finished ingest")
    labels: str = Field("", description="build id of labels, or latest: a panel's instead of the corpora's own")


class ExtractConfig(Config):
    """Which texts get nodes, by which labelled texts."""

    root: str = Field(description="folder or URL under which all tables live")
    texts: str = Field(description="a CSV, TSV, JSONL or parquet file; or build id of texts; or latest: the newest ingest")
    column: str = Field("text", description="of a file: the column of texts")
    reference: ReferenceConfig = ReferenceConfig()
    encoder: EmbedderConfig = EmbedderConfig()
    k: int = Field(20, ge=1, description="nearest labelled texts of each theory that vote")
    top: int = Field(3, ge=1, description="nodes of each theory kept for a text")
    seed: int = Field(0, description="of the labelled texts that the confidence is fitted on")
    cluster: ClusterConfig = ClusterConfig()


def extract(config: ExtractConfig) -> Build:
    """Return the nodes of texts; a finished build as it is, an unfinished one continued.

    Raises:
        InputError: no labels, or so few that a theory's are one group; whatever embedding refuses.
    """
    of, labels = resolve_labels(config.root, config.reference.texts, config.reference.labels)
    reference = embed(of, config.encoder, config.root)
    texts = resolve_texts(config.root, config.texts, config.column)
    embedded = embed(texts, config.encoder, config.root)
    made_of = [embedded.build_id, reference.build_id, labels.table, labels.build_id]
    out = Build(config.root, "extracted", digest(__version__, made_of, config.k, config.top, config.seed))
    finished = store.manifest(out)
    if finished:
        log.info("extract: %s texts, done before", f"{finished.details(ExtractedDetails).texts:,}")
        return out
    # Built once and shared by all tasks of a node; the second value is small and tells whether the first was made.
    made: Any = ray.remote(_extractor).options(num_returns=2).remote(reference, of, labels, config.k, config.seed)
    total, labelled_texts = store.require_manifest(embedded).num_rows, ray.get(made[1])
    done, files = set(store.part_paths(out)), store.require_manifest(embedded).files
    paths = [{"path": file.path} for file in files if file.path not in done]
    progress = Progress("extract", total, sum(file.rows for file in files if file.path in done))
    if paths:
        written = ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(
            _extract,
            fn_kwargs={"embedded": embedded, "extractor": made[0], "top": config.top, "out": out},
            batch_format="pyarrow",
            batch_size=1,
            num_cpus=1,
        )
        for batch in written.iter_batches(batch_format="pyarrow", batch_size=None):
            progress.add(pc.sum(batch["rows"]).as_py() or 0)
    details = ExtractedDetails(settings=config.model_dump(), texts=total, labelled_texts=labelled_texts)
    store.commit(out, details, [embedded, reference, of, labels])
    return out


def _extractor(reference: Build, texts: Build, labels: Build, k: int, seed: int) -> tuple[Extractor, int]:
    examples = read_examples(texts, labels)
    return Extractor(read_vectors(reference, examples.text_ids), examples, k, seed), len(examples.texts)


def _extract(batch: pa.Table, embedded: Build, extractor: "ray.ObjectRef", top: int, out: Build) -> pa.Table:
    """Write the nodes of the texts of parts, each under the part's own name, so that a repeated task replaces its own."""
    known, counts = ray.get(extractor), []
    for path in batch["path"].to_pylist():
        part = store.read_part(embedded, path)
        rows = _rows(part["text_id"].to_pylist(), known(part_vectors(part), top))
        store.write_part(out, rows, path.removeprefix("part-").removesuffix(".parquet"))
        counts.append(part.num_rows)
    return pa.table({"rows": pa.array(counts, pa.int64())})


def _rows(text_ids: list[str], found: list[dict[str, list[NodePrediction]]]) -> pa.Table:
    """The nodes of texts as rows of `extracted`, the best of each theory first."""
    rows = [
        {
            "text_id": text_id, "theory": theory, "path": list(node.path), "rank": rank, "distance": node.distance,
            "direction": node.direction, "confidence": node.confidence,
        }
        for text_id, by_theory in zip(text_ids, found, strict=True)
        for theory, nodes in by_theory.items()
        for rank, node in enumerate(nodes, 1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMAS["extracted"])
