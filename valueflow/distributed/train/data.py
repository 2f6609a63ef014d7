"""Labeled texts of a training: sources, exclusions, split."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow import store
from valueflow.distributed.embed import read_examples, resolve_labels
from valueflow.distributed.train.config import DataConfig, TrainHivesConfig
from valueflow.errors import InputError
from valueflow.hives.anchors import with_concept_anchors
from valueflow.hives.batches import Sampler, example_counts, single_theory_concepts
from valueflow.hives.examples import Examples, read_official, select_rows, split_examples, without_near_duplicates
from valueflow.hives.individuals import with_individuals
from valueflow.records import digest
from valueflow.report.model_card import Corpus
from valueflow.store import Build
from valueflow.tabular import cell, strict_rows, urls

log = logging.getLogger(__name__)


class DataSources(NamedTuple):
    """Builds or files to read, and the id of the data; the builds are None with data.official."""

    texts: Build | None
    labels: Build | None
    anchored: Build | None
    individuals: Build | None
    inputs: list[Build | str]
    data_id: str


class TrainingData(NamedTuple):
    """Examples of train and validation, and their corpora."""

    train: Examples
    validation: Examples
    corpora: list[Corpus]
    counts: dict[str, Any]


def resolve_sources(root: str, config: DataConfig) -> DataSources:
    """Return the builds and files of the data; InputError where one is missing."""
    contents = [_content_hash(file) for url in config.exclude for file in urls(url)]
    settings = [list(config.shares), config.seed, contents]
    if config.official:
        return DataSources(
            None, None, None, None, [config.official, *config.exclude], digest(_content_hash(config.official), settings)
        )
    texts, labels = resolve_labels(root, config.texts, config.labels)
    anchored = _anchor_build(root, "anchored", config.anchors) if config.anchors else None
    individuals = _anchor_build(root, "individuals", config.individuals) if config.individuals else None
    builds = [build for build in (texts, labels, anchored, individuals) if build]
    for build in builds:
        store.require_manifest(build)
    ids = [[build.table, build.build_id] for build in builds]
    inputs = [*builds, *config.exclude]
    return DataSources(texts, labels, anchored, individuals, inputs, digest(ids, settings))


def _anchor_build(root: str, table: str, build_id: str) -> Build:
    existing = store.finished(root, table)
    if not existing:
        raise InputError(f"no finished anchors ({table}) under {root}; run python -m jobs.build_anchors first")
    return Build(root, table, existing[-1] if build_id == "latest" else build_id)


def prepare_data(config: TrainHivesConfig, sources: DataSources) -> TrainingData:
    """Return the examples of train and validation, without near-duplicates of excluded texts or across the split.

    Raises:
        InputError: a label is not in its theory, a side of the split is empty, or a batch cannot be drawn.
    """
    examples, licenses = _read(sources, config.data)
    if config.batch.concept and len(single_theory_concepts(examples)):
        Sampler(examples, config.batch, config.seed)  # checks that every concept anchor spans two theories
    before = len(examples.texts)
    if config.data.exclude:
        examples = without_near_duplicates(examples, _excluded(config.data.exclude))
        if not len(examples.text_N):
            raise InputError(f"data.exclude leaves none of {before:,} texts: all are near-duplicates of the excluded ones")
    sides = split_examples(examples, config.data.shares, config.data.seed)
    train, num_narrow = _training_rows(examples, sides.train, config)
    Sampler(train, config.batch, config.seed)  # checks that batches can be drawn
    validation = _sample_texts(select_rows(examples, sides.validation), config.validation.texts, config.seed)
    counts = example_counts(train) | {
        "excluded": before - len(examples.texts),
        "concepts of one theory after the split": num_narrow,
        "validation texts": len(validation.texts),
        "test rows": len(sides.test),
    }
    return TrainingData(train, validation, _corpora(train, licenses), counts)


def _read(sources: DataSources, config: DataConfig) -> tuple[Examples, pa.Table]:
    """The examples, and sources and licenses of their texts."""
    if sources.texts is None or sources.labels is None:
        examples = read_official(config.official)
        name = PurePosixPath(config.official).name
        columns = {"text_id": examples.text_ids, "source": [name] * len(examples.texts)}
        return examples, pa.table(columns | {"license": ["unknown"] * len(examples.texts)})
    examples = read_examples(sources.texts, sources.labels)
    if sources.anchored:
        examples = _with_concepts(examples, store.read_table(sources.anchored), sources.anchored._replace(table="anchors"))
    if sources.individuals:
        examples = with_individuals(examples, store.read_table(sources.individuals))
    return examples, store.read_table(sources.texts, ["text_id", "source", "license"])


def _with_concepts(examples: Examples, anchored: pa.Table, anchors: Build) -> Examples:
    """The examples with the concept anchor of each text; InputError if none has one."""
    with_anchors = with_concept_anchors(examples, store.read_table(anchors), anchored)
    if not (with_anchors.concept_N >= 0).any():
        raise InputError(f"none of {len(examples.texts):,} texts has an anchor in {anchors.url}, built from others")
    return with_anchors


def _training_rows(examples: Examples, rows_M: np.ndarray, config: TrainHivesConfig) -> tuple[Examples, int]:
    """The rows of train without concept anchors that are of one theory after the split, and the number of such anchors."""
    train = select_rows(examples, rows_M)
    if not config.batch.concept:
        return train, 0
    narrow = single_theory_concepts(train)
    if len(narrow):
        log.info("%d concept anchors have texts of one theory only after the split; ignored", len(narrow))
    return train._replace(concept_N=np.where(np.isin(train.concept_N, narrow), -1, train.concept_N)), len(narrow)


def _excluded(paths: list[str]) -> Iterator[str]:
    for url in (file for path in paths for file in urls(path)):
        for row in strict_rows(url, ["text"]):
            yield cell(row.fields, "text")


def _sample_texts(examples: Examples, num_texts: int, seed: int) -> Examples:
    """Up to `num_texts` random texts with all their rows."""
    sample = np.random.default_rng(seed).permutation(len(examples.texts))[:num_texts]
    return select_rows(examples, np.flatnonzero(np.isin(examples.text_N, sample)))


def _corpora(train: Examples, licenses: pa.Table) -> list[Corpus]:
    index = pc.index_in(pa.array(train.text_ids), licenses["text_id"].combine_chunks())
    labels = pa.array(np.bincount(train.text_N, minlength=len(train.texts)))
    rows = licenses.select(["source", "license"]).take(index).append_column("labels", labels)
    by_corpus = rows.group_by(["source", "license"]).aggregate([("labels", "count"), ("labels", "sum")]).sort_by("source")
    names = ("source", "license", "labels_count", "labels_sum")
    return [Corpus(*values) for values in zip(*(by_corpus[name].to_pylist() for name in names), strict=True)]


def _content_hash(url: str) -> str:
    return hashlib.sha256(store.read_input(url)).hexdigest()
