"""Build concept anchors: embed labelled texts, cluster them, name the clusters, by a judge or by their medoids."""

import csv
import functools
import io
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import pyarrow as pa
import ray
from pydantic import Field
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.distributed.answer import check_answers, collect_answers
from valueflow.distributed.cluster import ClusterConfig, require_resources
from valueflow.distributed.embed import (
    Embedder,
    EmbedderConfig,
    embed,
    part_vectors,
    read_examples,
    read_vectors,
    resolve_labels,
)
from valueflow.distributed.texts import texts_of_ids
from valueflow.hives.anchors import AnchorsConfig, AnchorTables, Balance, balance, find_anchors, rename_anchors
from valueflow.hives.individuals import nearest_instances
from valueflow.judging.fingerprint import RESOURCES
from valueflow.judging.parse import NAME_WORDS, WORD_LENGTH
from valueflow.judging.tasks import NAME
from valueflow.llm.configs import EndpointModel, LlmModel, VllmModel
from valueflow.llm.cost import CostEstimate, estimate
from valueflow.prompts.render import prompt_hash
from valueflow.records import digest
from valueflow.store import AnchorsDetails, Build, IndividualsDetails, NamesDetails
from valueflow.theories import inventory

log = logging.getLogger(__name__)


class BuildAnchorsConfig(Config):
    """Which labelled texts are clustered, by which vectors, and who names the clusters."""

    root: str = Field(description="folder or URL under which all tables live")
    texts: str = Field("latest", description="build id of the texts; latest: the newest finished ingest")
    labels: str = Field("", description="build id of labels, or latest: a panel's instead of the corpora's own")
    encoder: EmbedderConfig = EmbedderConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    namer: Annotated[VllmModel | EndpointModel, Field(discriminator="kind")] | None = Field(
        None, description="an LLM that names each anchor; null: the first words of the text nearest to its centre"
    )
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of anchors without a usable name above which it fails")
    num_cpus: float = Field(1, ge=0, description="of the one task that clusters; all vectors are in its memory")
    dry_run: bool = Field(False, description="print what naming will take, do nothing")
    cluster: ClusterConfig = ClusterConfig()


class AnchorBuilds(NamedTuple):
    """Where anchors and the texts at them are, the texts at instances of the inventory, and how the anchors spread."""

    anchors: Build
    anchored: Build
    individuals: Build
    balance: Balance


class _Sources(NamedTuple):
    """The builds that anchors are made of."""

    texts: Build
    labels: Build
    embedded: Build


def build_anchors(config: BuildAnchorsConfig) -> AnchorBuilds:
    """Return the anchors of the labelled texts; finished builds are returned as they are.

    Raises:
        InputError: no labels, labels of one theory only, no cluster that is an anchor, too many anchors without a name, or a
            spent budget. Vectors and clusters are kept.
    """
    texts, labels = resolve_labels(config.root, config.texts, config.labels)
    sources = _Sources(texts, labels, embed(texts, config.encoder, config.root))
    settings = config.anchors.model_dump()
    found = _builds(config.root, digest(__version__, *_ids(sources), settings))
    if not store.manifest(found[0]):
        require_resources(config.num_cpus, 0, "clustering", "Lower num_cpus")
        _write(_find, config.num_cpus, sources, config.anchors, *found)
    individuals = individuals_of(config.root, sources, config.anchors.min_similarity)
    if not store.manifest(individuals):
        require_resources(config.num_cpus, config.encoder.num_gpus, "the nearest instances", "Lower num_cpus")
        task = ray.remote(_nearest).options(num_cpus=config.num_cpus, num_gpus=config.encoder.num_gpus)
        ray.get(task.remote(sources, config.encoder, config.anchors.min_similarity, individuals))
    if config.namer is None:
        return _finished(*found, individuals)
    asked = digest(config.namer.model_dump(exclude=RESOURCES), prompt_hash("name"), NAME_WORDS, WORD_LENGTH)
    names = _names(config, config.namer, texts, found[0], digest(__version__, found[0].build_id, asked))
    out = _builds(config.root, digest(__version__, names.build_id))
    if not store.manifest(out[0]):
        _write(_rename, 1, sources, found, names, config.namer.name, *out)
    return _finished(*out, individuals)


def dry_run(config: BuildAnchorsConfig) -> list[CostEstimate]:
    """Return what naming will take, by texts that stand for the medoids; none without a namer."""
    if config.namer is None:
        return []
    texts, _ = resolve_labels(config.root, config.texts, config.labels)
    first = store.read_part(texts, store.require_manifest(texts).files[0].path, ["text"])["text"].to_pylist()
    size = config.anchors.num_medoids
    sample = [{"texts": first[start : start + size]} for start in range(0, min(len(first), 20 * size), size)]
    return [estimate(config.namer, NAME, sample, config.anchors.target)]


def _builds(root: str, build_id: str) -> tuple[Build, Build]:
    return Build(root, "anchors", build_id), Build(root, "anchored", build_id)


def _ids(sources: _Sources) -> list[str]:
    return [sources.embedded.build_id, sources.labels.table, sources.labels.build_id]


def individuals_of(root: str, sources: _Sources, min_similarity: float) -> Build:
    """Return the build of the texts at instances; its id covers the inventory."""
    listed = [instance.id for instance in inventory()]
    return Build(root, "individuals", digest(__version__, *_ids(sources), listed, min_similarity))


def _finished(anchors: Build, anchored: Build, individuals: Build) -> AnchorBuilds:
    details = store.details_of(anchors, AnchorsDetails)
    target = details.settings["target"]
    log.info("anchors: %d anchors, %s of %s texts at one", details.anchors, f"{details.anchored:,}", f"{details.texts:,}")
    if details.anchors < target:
        log.warning("anchors: fewer than anchors.target (%d); left out: %s", target, details.dropped)
    log.info("anchors: %s texts at an instance of the inventory", f"{store.require_manifest(individuals).num_rows:,}")
    return AnchorBuilds(anchors, anchored, individuals, Balance(**details.balance))


def _write(task: Callable[..., None], num_cpus: float, *args: object) -> None:
    """Run a task that writes both tables: vectors and texts stay on a worker."""
    ray.get(ray.remote(task).options(num_cpus=num_cpus).remote(*args))


def _find(sources: _Sources, config: AnchorsConfig, anchors: Build, anchored: Build) -> None:
    examples = read_examples(sources.texts, sources.labels)
    found = find_anchors(read_vectors(sources.embedded, examples.text_ids), examples, config)
    _commit(found, sources, config.model_dump(), anchors, anchored)


def _nearest(sources: _Sources, encoder: EmbedderConfig, min_similarity: float, out: Build) -> None:
    examples, listed = read_examples(sources.texts, sources.labels), inventory()
    phrases = Embedder(encoder)(pa.table({"text_id": [i.id for i in listed], "text": [i.phrase for i in listed]}))
    z_TD = read_vectors(sources.embedded, examples.text_ids)
    store.remove_unfinished(out)
    store.write_part(out, nearest_instances(z_TD, part_vectors(phrases), listed, examples, min_similarity), "0")
    store.commit(out, IndividualsDetails(min_similarity=min_similarity, instances=len(listed)), sources)


def _rename(sources: _Sources, found: tuple[Build, Build], names: Build, by: str, anchors: Build, anchored: Build) -> None:
    """Write the anchors under the names given; those without one keep their medoid's."""
    said = store.read_table(names, ["anchor_id", "name"])
    given = {i: name for i, name in zip(*(said[c].to_pylist() for c in said.column_names), strict=True) if name is not None}
    before = store.details_of(found[0], AnchorsDetails)
    tables = rename_anchors(store.read_table(found[0]), store.read_table(found[1]), given, by)
    dropped = before.dropped | {"named like another": before.anchors - tables[0].num_rows}
    namer = store.details_of(names, NamesDetails).namer
    _commit(AnchorTables(*tables, dropped), sources, before.settings, anchors, anchored, [found[0], names], namer)


def _commit(
    found: AnchorTables, sources: _Sources, settings: dict, anchors: Build, anchored: Build, named_from: Sequence[Build] = (),
    namer: dict | None = None,
) -> None:  # fmt: skip
    """Write both tables and the balance beside the anchors, whose manifest comes last."""
    examples = read_examples(sources.texts, sources.labels)
    spread = balance(found.anchors, found.anchored, examples)
    details = AnchorsDetails(
        settings=settings, texts=len(examples.texts), anchors=found.anchors.num_rows, anchored=found.anchored.num_rows,
        **({"named": namer} if namer else {}),
    )  # fmt: skip
    inputs = [*sources, *named_from]
    for build, rows in ((anchored, found.anchored), (anchors, found.anchors)):
        store.remove_unfinished(build)
        store.write_part(build, rows, "0")
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(spread.levels[0]))
    writer.writeheader()
    writer.writerows(spread.levels)
    store.write_bytes(f"{anchors.url}/balance.csv", lines.getvalue().encode())
    store.commit(anchored, details, inputs)
    store.commit(anchors, details.model_copy(update={"dropped": found.dropped, "balance": spread._asdict()}), inputs)


def _names(config: BuildAnchorsConfig, namer: LlmModel, texts: Build, anchors: Build, build_id: str) -> Build:
    """Return the build of an LLM's names of anchors, asked from their medoid texts."""
    out = Build(config.root, "names", build_id)
    if store.manifest(out):
        return out
    table = store.read_table(anchors, ["anchor_id", "medoids"])
    medoids = table["medoids"].to_pylist()
    shown = texts_of_ids(texts, [text_id for ids in medoids for text_id in ids])
    count = table.num_rows
    columns = {
        "anchor_id": table["anchor_id"],
        "texts": pa.array([[shown[i] for i in ids] for ids in medoids], pa.list_(pa.string())),
        "round": pa.array([0] * count, pa.int32()),
        "folder": pa.array([""] * count, pa.string()),
    }
    collect_answers(namer, NAME, functools.partial(_open, pa.table(columns)), out, count, "name")
    asked = check_answers(out, NAME, count, config.max_error_share, "name")
    store.commit(out, NamesDetails(namer=namer.public(), **asked._asdict()), [anchors])
    return out


def _open(questions: pa.Table, done: "ray.ObjectRef") -> Dataset:
    return ray.data.from_arrow(questions.filter(store.missing_from(questions["anchor_id"], ray.get(done))))
