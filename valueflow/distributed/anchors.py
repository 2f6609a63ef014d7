"""Build concept anchors: embed labeled texts, cluster them, name the clusters by an LLM or by their medoids."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa
import ray
from pydantic import Field
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.config import Resources
from valueflow.distributed.answer import AnswerStage, check_answers, collect_answers
from valueflow.distributed.cluster import require_resources, result_of
from valueflow.distributed.commit import Done
from valueflow.distributed.embed import (
    Embedder,
    EmbedderConfig,
    embed,
    part_vectors,
    read_examples,
    read_vectors,
    resolve_labels,
)
from valueflow.distributed.job_config import JobConfig, LabeledTextsConfig
from valueflow.distributed.texts import texts_of_ids
from valueflow.hives.anchors import AnchorsConfig, AnchorTables, Balance, balance, find_anchors, rename_anchors
from valueflow.hives.individuals import nearest_instances
from valueflow.hives.naming import NAME, namer_fingerprint
from valueflow.llm.configs import AnyLlm, LlmConfig
from valueflow.llm.cost import CostEstimate, estimate
from valueflow.records import digest
from valueflow.store import AnchorsDetails, Build, IndividualsDetails, NamesDetails
from valueflow.tabular import csv_text
from valueflow.theories import inventory

log = logging.getLogger(__name__)


class BuildAnchorsConfig(JobConfig, LabeledTextsConfig):
    """The labeled texts to cluster, the encoder of their vectors, and the namer of the clusters."""

    encoder: EmbedderConfig = EmbedderConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    namer: LlmConfig | None = Field(
        None, description="an LLM that names each anchor; null: the first words of the text nearest to its centre"
    )
    max_error_share: float = Field(0.05, ge=0, le=1, description="largest share of anchors without a valid name")
    num_cpus: float = Field(1, ge=0, description="CPUs of the clustering task, which holds all vectors in memory")
    dry_run: bool = Field(False, description="print the estimated cost of naming and stop")


class AnchorBuilds(NamedTuple):
    """The builds of concept anchors, of their texts and of individual anchors, and the balance of the concept anchors."""

    anchors: Build
    anchored: Build
    individuals: Build
    balance: Balance


class _AnchorInputs(NamedTuple):
    """The builds that anchors are computed from."""

    texts: Build
    labels: Build
    embeddings: Build


def build_anchors(config: BuildAnchorsConfig) -> AnchorBuilds:
    """Return the anchors of the labeled texts; finished builds are returned as they are.

    Raises:
        InputError: there are no labels, all labels are of one theory, no cluster qualifies as an anchor, or too many anchors
            lack a valid name. Vectors and clusters are saved.
        BudgetSpent: the namer's budget is spent.
    """
    texts, labels = resolve_labels(config.root, config.texts, config.labels)
    inputs = _AnchorInputs(texts, labels, embed(texts, config.encoder, config.root))
    settings = config.anchors.model_dump()
    clusters = _builds(config.root, digest(__version__, *_ids(inputs), settings))
    if not store.reusable_together(clusters):
        require_resources(config.num_cpus, 0, "clustering", "Lower num_cpus")
        _run_task(_write_clusters, config.num_cpus, inputs, config.anchors, *clusters)
    individuals = _individuals_build(config.root, inputs, config.anchors.min_similarity)
    if not store.reusable(individuals):
        require_resources(config.num_cpus, config.encoder.num_gpus, "assigning individual anchors", "Lower num_cpus")
        task = ray.remote(_write_individuals).options(num_cpus=config.num_cpus, num_gpus=config.encoder.num_gpus)
        written = task.remote(inputs, config.encoder, config.anchors.min_similarity, individuals)
        result_of("individual anchors", written, Resources(config.num_cpus, config.encoder.num_gpus))
    if config.namer is None:
        return _anchor_builds(*clusters, individuals)
    named_by = digest(__version__, clusters[0].build_id, namer_fingerprint(config.namer))
    names = _names(config, config.namer, texts, clusters[0], named_by)
    out = _builds(config.root, digest(__version__, names.build_id))
    if not store.reusable_together(out):
        _run_task(_write_renamed, 1, inputs, clusters, names, config.namer.name, *out)
    return _anchor_builds(*out, individuals)


def dry_run(config: BuildAnchorsConfig) -> list[CostEstimate]:
    """Return the estimated cost of naming, from random texts in place of the medoids; empty without a namer."""
    if config.namer is None:
        return []
    texts, _ = resolve_labels(config.root, config.texts, config.labels)
    first = store.read_part(texts, store.require_manifest(texts).files[0].path, ["text"])["text"].to_pylist()
    size = config.anchors.num_medoids
    sample = [{"texts": first[start : start + size]} for start in range(0, min(len(first), 20 * size), size)]
    return [estimate(config.namer, NAME, sample, config.anchors.target)]


def _builds(root: str, build_id: str) -> tuple[Build, Build]:
    return Build(root, "anchors", build_id), Build(root, "anchored", build_id)


def _ids(inputs: _AnchorInputs) -> list[str]:
    return [inputs.embeddings.build_id, inputs.labels.table, inputs.labels.build_id]


def _individuals_build(root: str, inputs: _AnchorInputs, min_similarity: float) -> Build:
    """The build of individual anchors; its id covers the inventory."""
    instance_ids = [instance.id for instance in inventory()]
    return Build(root, "individuals", digest(__version__, *_ids(inputs), instance_ids, min_similarity))


def _anchor_builds(anchors: Build, anchored: Build, individuals: Build) -> AnchorBuilds:
    details = store.details_of(anchors, AnchorsDetails)
    target = details.settings["target"]
    counts = details.anchors, f"{details.anchored:,}", f"{details.texts:,}"
    log.info("anchors: %d concept anchors; %s of %s texts have one", *counts)
    if details.anchors < target:
        log.warning("anchors: fewer than anchors.target (%d); rejected clusters: %s", target, details.dropped)
    log.info("anchors: %s texts have an individual anchor", f"{store.require_manifest(individuals).num_rows:,}")
    return AnchorBuilds(anchors, anchored, individuals, Balance(**details.balance))


def _run_task(task: Callable[..., None], num_cpus: float, *args: object) -> None:
    """Run a task that writes both tables, so that vectors and texts stay on a worker."""
    result_of("anchors", ray.remote(task).options(num_cpus=num_cpus).remote(*args), Resources(num_cpus))


def _write_clusters(inputs: _AnchorInputs, config: AnchorsConfig, anchors: Build, anchored: Build) -> None:
    examples = read_examples(inputs.texts, inputs.labels)
    tables = find_anchors(read_vectors(inputs.embeddings, examples.text_ids), examples, config)
    _commit_anchors(tables, inputs, config.public(), anchors, anchored)


def _write_individuals(inputs: _AnchorInputs, encoder: EmbedderConfig, min_similarity: float, out: Build) -> None:
    examples, instances = read_examples(inputs.texts, inputs.labels), inventory()
    phrases = pa.table({"text_id": [i.id for i in instances], "text": [i.phrase for i in instances]})
    z_TD, z_ID = read_vectors(inputs.embeddings, examples.text_ids), part_vectors(Embedder(encoder)(phrases))
    store.remove_unfinished(out)
    store.write_part(out, nearest_instances(z_TD, z_ID, instances, examples, min_similarity), "0")
    store.commit(out, IndividualsDetails(min_similarity=min_similarity, instances=len(instances)), inputs)


def _write_renamed(
    inputs: _AnchorInputs, clusters: tuple[Build, Build], names: Build, namer: str, anchors: Build, anchored: Build
) -> None:
    """Write the anchors under the namer's names; an anchor without one keeps its medoid's."""
    columns = store.read_table(names, ["anchor_id", "name"])
    pairs = zip(*(columns[column].to_pylist() for column in columns.column_names), strict=True)
    name_by_id = {anchor_id: name for anchor_id, name in pairs if name is not None}
    before = store.details_of(clusters[0], AnchorsDetails)
    tables = rename_anchors(store.read_table(clusters[0]), store.read_table(clusters[1]), name_by_id, namer)
    dropped = before.dropped | {"named like another": before.anchors - tables[0].num_rows}
    public = store.details_of(names, NamesDetails).namer
    renamed = AnchorTables(*tables, dropped)
    _commit_anchors(renamed, inputs, before.settings, anchors, anchored, [clusters[0], names], public)


def _commit_anchors(
    tables: AnchorTables, inputs: _AnchorInputs, settings: dict, anchors: Build, anchored: Build,
    more_inputs: Sequence[Build] = (), namer: dict | None = None,
) -> None:  # fmt: skip
    """Write both tables and the balance; the manifest of the anchors comes last."""
    examples = read_examples(inputs.texts, inputs.labels)
    spread = balance(tables.anchors, tables.anchored, examples)
    details = AnchorsDetails(
        settings=settings, texts=len(examples.texts), anchors=tables.anchors.num_rows, anchored=tables.anchored.num_rows,
        **({"named": namer} if namer else {}),
    )  # fmt: skip
    builds = [*inputs, *more_inputs]
    for build, rows in ((anchored, tables.anchored), (anchors, tables.anchors)):
        store.remove_unfinished(build)
        store.write_part(build, rows, "0")
    levels = csv_text(list(spread.levels[0]), (level.values() for level in spread.levels))
    store.write_bytes(f"{anchors.url}/balance.csv", levels.encode())
    store.commit(anchored, details, builds)
    store.commit(anchors, details.model_copy(update={"dropped": tables.dropped, "balance": spread._asdict()}), builds)


def _names(config: BuildAnchorsConfig, namer: AnyLlm, texts: Build, anchors: Build, build_id: str) -> Build:
    """Return the build of an LLM's names of anchors, given their medoid texts."""
    out = Build(config.root, "names", build_id)
    if store.reusable(out):
        return out
    table = store.read_table(anchors, ["anchor_id", "medoids"])
    medoids = table["medoids"].to_pylist()
    text_by_id = texts_of_ids(texts, [text_id for ids in medoids for text_id in ids])
    count = table.num_rows
    columns = {
        "anchor_id": table["anchor_id"],
        "texts": pa.array([[text_by_id[i] for i in ids] for ids in medoids], pa.list_(pa.string())),
        "round": pa.array([0] * count, pa.int32()),
        "folder": pa.array([""] * count, pa.string()),
    }
    stage = AnswerStage(out, NAME, config.max_error_share, count)
    collect_answers(namer, stage, functools.partial(_pending, pa.table(columns)), count, "name")
    totals = check_answers(stage, count, config.max_error_share, "name")
    store.commit(out, NamesDetails(namer=namer.public(), **totals._asdict()), [anchors], stage.finish())
    return out


def _pending(questions: pa.Table, done: Done) -> Dataset:
    return ray.data.from_arrow(done.open_rows(questions, "anchor_id"))
