"""Predict the nodes of texts in each theory from the nearest labeled texts in an encoder's space."""

import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field

from valueflow import __version__, store
from valueflow.config import Config, Resources
from valueflow.distributed.cluster import Progress, result_of
from valueflow.distributed.embed import (
    EmbedderConfig,
    embed,
    part_vectors,
    read_examples,
    read_vectors,
    resolve_labels,
    resolve_texts,
)
from valueflow.distributed.job_config import JobConfig, LabeledTextsConfig
from valueflow.distributed.watch import watched
from valueflow.hives.extract import Extractor, NodePrediction
from valueflow.records import SCHEMAS, digest
from valueflow.store import Build, ExtractedDetails

log = logging.getLogger(__name__)


class NeighborsConfig(Config):
    """How many reference texts vote."""

    k: int = Field(20, ge=1, description="nearest reference texts of each theory that vote")


class ExtractionConfig(LabeledTextsConfig, NeighborsConfig):
    """The labeled texts that `POST /v1/extract` predicts nodes from; jobs.embed must have embedded them."""


class ExtractConfig(JobConfig, NeighborsConfig):
    """The texts whose nodes are predicted, and the labeled texts that they are predicted from."""

    texts: str = Field(description="a CSV, TSV, JSONL or parquet file; or build id of texts; or latest: the newest ingest")
    column: str = Field("text", description="column of the texts, where texts names a file")
    reference: LabeledTextsConfig = LabeledTextsConfig()
    encoder: EmbedderConfig = EmbedderConfig()
    top: int = Field(3, ge=1, description="nodes per text and theory to keep")
    seed: int = Field(0, description="seed of the sample of reference texts that the confidence is fitted to")


def extract(config: ExtractConfig) -> Build:
    """Return the build of predicted nodes; a finished build is returned as it is, an unfinished one is continued.

    Raises:
        InputError: there are no labels, the labeled texts of a theory are all one group, or embedding fails.
    """
    reference_texts, labels = resolve_labels(config.root, config.reference.texts, config.reference.labels)
    reference = embed(reference_texts, config.encoder, config.root)
    texts = resolve_texts(config.root, config.texts, config.column)
    embeddings = embed(texts, config.encoder, config.root)
    ids = [embeddings.build_id, reference.build_id, labels.table, labels.build_id]
    out = Build(config.root, "extracted", digest(__version__, ids, config.k, config.top, config.seed))
    finished = store.reusable(out)
    if finished:
        log.info("extract: %s texts, done before", f"{finished.details(ExtractedDetails).texts:,}")
        return out
    # Built once and shared by all tasks of a node; the driver fetches only the second value, which also raises its errors.
    task = ray.remote(build_extractor).options(num_returns=2)
    extractor_and_size: Any = task.remote(reference, reference_texts, labels, config.k, config.seed)
    total, num_references = store.require_manifest(embeddings).num_rows, result_of("extractor", extractor_and_size[1])
    done, files = set(store.part_paths(out)), store.require_manifest(embeddings).files
    paths = [file.model_dump() for file in files if file.path not in done]
    progress = Progress("extract", total, sum(file.rows for file in files if file.path in done))
    if paths:
        written = ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(
            _write_nodes,
            fn_kwargs={"embeddings": embeddings, "extractor": extractor_and_size[0], "top": config.top, "out": out},
            batch_format="pyarrow",
            batch_size=1,
            num_cpus=1,
        )
        for rows in watched("extract", written.iter_batches(batch_format="pyarrow", batch_size=None), Resources(1)):
            progress.add(pc.sum(rows["rows"]).as_py())
    details = ExtractedDetails(settings=config.public(), texts=total, labelled_texts=num_references)
    store.commit(out, details, [embeddings, reference, reference_texts, labels])
    return out


def build_extractor(reference: Build, texts: Build, labels: Build, k: int, seed: int) -> tuple[Extractor, int]:
    """Return the extractor of labeled texts and their number."""
    examples = read_examples(texts, labels)
    return Extractor(read_vectors(reference, examples.text_ids), examples, k, seed), len(examples.texts)


def _write_nodes(batch: pa.Table, embeddings: Build, extractor: "ray.ObjectRef", top: int, out: Build) -> pa.Table:
    """Write the nodes of each part's texts under the part's name, so that a retried task overwrites its own output."""
    predict, counts = ray.get(extractor), []
    for file in map(store.File.model_validate, batch.to_pylist()):
        part = store.read_part(embeddings, file)
        rows = _rows(part["text_id"].to_pylist(), predict(part_vectors(part), top))
        store.write_part(out, rows, file.path.removeprefix("part-").removesuffix(".parquet"))
        counts.append(part.num_rows)
    return pa.table({"rows": counts})


def _rows(text_ids: list[str], predictions: list[dict[str, list[NodePrediction]]]) -> pa.Table:
    """Rows of table `extracted`, the best node of each theory first."""
    rows = [
        {
            "text_id": text_id, "theory": theory, "path": list(node.path), "rank": rank, "distance": node.distance,
            "direction": node.direction, "confidence": node.confidence,
        }
        for text_id, by_theory in zip(text_ids, predictions, strict=True)
        for theory, nodes in by_theory.items()
        for rank, node in enumerate(nodes, 1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMAS["extracted"])
