"""Embed texts with an encoder in actors; read vectors by text id; write the official NPZ file of each theory."""

import functools
import io
import zipfile
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
from pydantic import Field, model_validator
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.config import Config, Resources
from valueflow.corpora import CorpusConfig
from valueflow.distributed.build.ingest import ingest
from valueflow.distributed.cluster import Progress, require_resources, result_of
from valueflow.distributed.commit import Commit, Done, commit_batches, pending_parts
from valueflow.distributed.job_config import JobConfig
from valueflow.errors import DamageError, InputError
from valueflow.hives.examples import Examples, examples_from_tables
from valueflow.models import MINILM, content_hash, encoder_settings, fetch
from valueflow.records import digest
from valueflow.store import Build, EmbeddingsDetails
from valueflow.tabular import is_table
from valueflow.theories.taxonomy import THEORIES

FOLDER_SETTINGS = ("max_length", "pooling", "prompt")  # saved in a HiVES model folder
NOT_IN_FINGERPRINT = {"model", "batch_size", "rows_per_part", "num_actors", "num_cpus", "num_gpus"}


class EmbedderConfig(Config):
    """The encoder that embeds texts, and its resources."""

    model: str = Field(MINILM, description="hub name, folder, URL of a folder, or package://…")
    revision: str = Field("", description="commit of a hub model, to pin its weights")
    max_length: int | None = Field(None, ge=2, description="tokens read at once; null: what the model's files say, else 256")
    pooling: Literal["mean", "last"] | None = Field(None, description="null: the HiVES folder's, else mean")
    prompt: str | None = Field(None, description="prefix of each text; null: the HiVES folder's, else none")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of matrix products; bfloat16 takes half the time on GPUs and on processors that have it",
        exclude_if=lambda precision: precision == "float32",  # ids from before the setting hold
    )
    batch_size: int = Field(64, ge=1, description="texts per forward pass")
    rows_per_part: int = Field(2048, ge=1, description="texts per committed part, approximately; a crash loses at most one")
    num_actors: int = Field(1, ge=1)
    num_cpus: float = Field(1, ge=0, description="per actor")
    num_gpus: float = Field(0, ge=0, description="per actor; 0: on the CPU")


class EmbedConfig(JobConfig):
    """The texts to embed, the encoder and the output files."""

    texts: str = Field("latest", description="build id; latest: the newest finished ingest; or a CSV, TSV, JSONL, parquet file")
    column: str = Field("text", description="column of the texts, where texts names a file")
    encoder: EmbedderConfig = EmbedderConfig()
    npz: bool = Field(False, description="also write the official NPZ file of each theory")
    labels: str = Field(
        "", description='labels of the NPZ: build id of a panel\'s labels, or latest; "": those that came with the corpora'
    )

    @model_validator(mode="after")
    def _npz_needs_labels(self) -> "EmbedConfig":
        if self.npz and is_text_file(self.texts):
            raise ValueError(f"npz=true needs texts with labels; texts={self.texts} is a file: ingest it with its labels first")
        return self


class Embedder:
    """An encoder loaded on a worker."""

    def __init__(self, config: EmbedderConfig) -> None:
        from valueflow.hives.encoder import Encoder

        self.config, path = config, fetch(config.model)
        if encoder_settings(path):
            encoder = Encoder.from_folder(path)
        else:
            encoder = Encoder.load(path, config.revision, config.max_length, config.pooling or "mean", config.prompt or "")
        self.encoder = encoder.to("cuda" if config.num_gpus else "cpu")
        self.encoder.in_bfloat16 = config.precision == "bfloat16"

    def __call__(self, texts: pa.Table) -> pa.Table:
        """Return the columns text_id and embedding."""
        z_ND = self.encoder.embed(texts["text"].to_pylist(), self.config.batch_size)
        offsets = np.arange(0, z_ND.size + 1, z_ND.shape[1], dtype=np.int32)
        return pa.table({"text_id": texts["text_id"], "embedding": pa.ListArray.from_arrays(offsets, z_ND.ravel())})


def is_text_file(texts: str) -> bool:
    """Return whether the setting `texts` names a file rather than a build."""
    return is_table(texts)


def resolve_texts(root: str, texts: str, column: str) -> Build:
    """Return the build of texts that a setting names; a file is ingested under root/files, apart from the corpora.

    Raises:
        InputError: nothing is ingested, the build does not exist, or the file or its column is missing.
    """
    if is_text_file(texts):
        corpus = CorpusConfig(format="generic", path=texts, source="file", license="unknown", columns={"text": column})
        return ingest([corpus], store.file_texts_root(root))
    build = store.ingested(root, texts, ", or name a file in texts")
    store.require_manifest(build)
    return build


def resolve_labels(root: str, texts: str, labels: str) -> tuple[Build, Build]:
    """Return the builds of texts and their labels that two settings name.

    Args:
        root: folder or URL of all tables.
        texts: build id of the texts, or latest.
        labels: build id of a panel's labels, or latest; "": the labels that came with the corpora.

    Raises:
        InputError: there are no labels, or they belong to other texts.
    """
    if not labels:
        text_build = resolve_texts(root, texts, "")
        label_build = Build(text_build.root, "source_labels", text_build.build_id)
    else:
        panel_labels = store.finished(root, "labels")
        if labels == "latest" and not panel_labels:
            raise InputError(f"no labels by a panel under {root}; run python -m jobs.categorize first, or leave labels out")
        label_build = Build(root, "labels", panel_labels[-1] if labels == "latest" else labels)
        texts_id = store.require_manifest(label_build).inputs_from("texts")[0].build_id
        if texts not in ("latest", texts_id):
            raise InputError(f"labels {label_build.build_id} belong to texts {texts_id}, not to {texts}; leave texts out")
        text_build = resolve_texts(root, texts_id, "")
    if not store.require_manifest(label_build).num_rows:
        raise InputError(
            f"{label_build.url} has no labels; label the texts with python -m jobs.categorize and set labels=latest"
        )
    return text_build, label_build


def read_examples(texts: Build, labels: Build) -> Examples:
    """Return the labeled texts of a build."""
    return examples_from_tables(store.read_table(texts, ["text_id", "text", "group_id"]), store.read_table(labels))


def encoder_fingerprint(config: EmbedderConfig) -> str:
    """Return the hash of everything that can change a vector: the settings, and the content of a model folder.

    Raises:
        InputError: the folder does not exist, or a setting is configured that the HiVES folder defines.
    """
    path = fetch(config.model)
    configured = {name: getattr(config, name) for name in FOLDER_SETTINGS if getattr(config, name) is not None}
    if configured and encoder_settings(path):
        raise InputError(
            f"encoder.{next(iter(configured))} is set to {next(iter(configured.values()))!r}, but {config.model!r} is a HiVES "
            f"folder, which defines {', '.join(FOLDER_SETTINGS)} itself; leave them out"
        )
    return digest(content_hash(path), config.model_dump(exclude=NOT_IN_FINGERPRINT))


def embed_texts(config: EmbedConfig) -> tuple[Build, list[str]]:
    """Return the embeddings of a job's texts, and the URLs of the official NPZ files (none with npz=false)."""
    if not config.npz:
        return embed(resolve_texts(config.root, config.texts, config.column), config.encoder, config.root), []
    texts, labels = resolve_labels(config.root, config.texts, config.labels)
    embeddings = embed(texts, config.encoder, config.root)
    return embeddings, export_npz(embeddings, texts, labels)


def embeddings_build(texts: Build, config: EmbedderConfig, root: str) -> Build:
    """Return the build of a text build's vectors, whether it exists or not."""
    return Build(root, "embeddings", digest(__version__, texts.build_id, encoder_fingerprint(config)))


def embed(texts: Build, config: EmbedderConfig, root: str) -> Build:
    """Return the build of a text build's vectors; a finished build is returned as it is, an unfinished one is continued.

    Raises:
        InputError: the model cannot be loaded, or the cluster lacks the resources.
    """
    out = embeddings_build(texts, config, root)
    if store.finished_manifest(out, "embed", "texts"):
        return out
    _check(config)
    total, journal = store.require_manifest(texts).num_rows, store.Journal(out, "text_id")
    done = Done.of(journal.load())
    progress = Progress("embed", total, journal.totals.rows)
    if journal.totals.rows < total:
        need = Resources(config.num_actors * config.num_cpus, config.num_actors * config.num_gpus)
        commit_batches(_embed_pending(texts, config, done), Commit(out, "text_id"), progress, journal, need)
    if journal.is_behind():  # another attempt has embedded some of the texts
        journal.load()
    if journal.totals.rows != total:
        raise RuntimeError(f"embed: {journal.totals.rows} of {total} texts have a vector; rerun the command to embed the rest")
    dimension = len(store.read_part(out, store.part_paths(out)[0])["embedding"][0])
    store.commit(out, EmbeddingsDetails(settings=config.public(), texts=total, dimension=dimension), [texts], journal.close())
    return out


def _check(config: EmbedderConfig) -> None:
    """Fail on the driver with a clear error rather than in an actor."""
    from valueflow.hives.encoder import check_model

    require_resources(
        config.num_actors * config.num_cpus,
        config.num_actors * config.num_gpus,
        f"encoder {config.model!r}",
        "Lower encoder.num_actors, num_cpus or num_gpus",
    )
    check_model(fetch(config.model), config.model, config.revision, config.max_length)


def _embed_pending(texts: Build, config: EmbedderConfig, done: Done) -> Dataset:
    """Vectors of the texts that have none yet."""
    read = functools.partial(_read_texts, texts=texts)
    pending = pending_parts(store.require_manifest(texts).files, read, "text_id", done)
    return pending.repartition(target_num_rows_per_block=config.rows_per_part).map_batches(
        Embedder,
        fn_constructor_kwargs={"config": config},
        batch_format="pyarrow",
        batch_size=config.rows_per_part,
        compute=ray.data.ActorPoolStrategy(size=config.num_actors),
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
    )


def _read_texts(part: store.File, texts: Build) -> pa.Table:
    return store.read_part(texts, part, ["text_id", "text"])


def read_vectors(embeddings: Build, text_ids: list[str]) -> np.ndarray:
    """Return the vectors z_ND of texts, in the order of their ids; InputError where a text has none."""
    ids = np.array(text_ids, "S16")
    order = np.argsort(ids)
    dimension = store.details_of(embeddings, EmbeddingsDetails).dimension
    z_ND = np.empty((len(ids), dimension), np.float32)
    has_vector = np.zeros(len(ids), bool)
    for file in store.require_manifest(embeddings).files:
        part = store.read_part(embeddings, file)
        part_ids = part["text_id"].to_numpy().astype("S16")
        position = np.minimum(np.searchsorted(ids, part_ids, sorter=order), len(ids) - 1)
        wanted = ids[order[position]] == part_ids
        vectors = part_vectors(part)
        if vectors.shape[1] != dimension:
            raise DamageError(
                f"{embeddings.url}/{file.path} has vectors of {vectors.shape[1]} numbers, its manifest says {dimension}; "
                f"{store.MAKE_AGAIN}"
            )
        z_ND[order[position[wanted]]] = vectors[wanted]
        has_vector[order[position[wanted]]] = True
    if not has_vector.all():
        missing = text_ids[int(np.argmin(has_vector))]
        raise InputError(f"{embeddings.url} has no vector of text {missing} and {(~has_vector).sum() - 1:,} others")
    return z_ND


def part_vectors(part: pa.Table) -> np.ndarray:
    """Return the vectors z_ND of a part."""
    return part["embedding"].combine_chunks().flatten().to_numpy().reshape(part.num_rows, -1)


def export_npz(embeddings: Build, texts: Build, labels: Build) -> list[str]:
    """Return the official files `embedding_{theory}.npz` (arrays texts, embeddings) of the labeled texts, one per theory."""
    folder = store.npz_url(embeddings.root, digest(embeddings.build_id, labels.table, labels.build_id))
    task = ray.remote(_write_npz).options(num_cpus=1).remote(embeddings, texts, labels, folder)
    return result_of("npz", task, Resources(1))


def _is_whole(url: str) -> bool:
    """Whether an earlier run wrote a file of arrays; a damaged one is set aside."""
    return bool(store.read_or_set_aside(url, _check_archive, store.ARCHIVE_ERRORS, "a file of arrays"))


def _check_archive(content: bytes) -> bool:
    """True for a whole archive; ValueError where a file in it is damaged."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if name := archive.testzip():
            raise ValueError(f"{name} in it is damaged")
        return True


def _write_npz(embeddings: Build, texts: Build, labels: Build, folder: str) -> list[str]:
    examples = read_examples(texts, labels)
    urls = []
    for t in np.unique(examples.theory_N):
        url = f"{folder}/embedding_{THEORIES[t]}.npz"
        urls.append(url)
        if _is_whole(url):
            continue
        rows = np.unique(examples.text_N[examples.theory_N == t]).tolist()
        arrays: dict[str, Any] = {
            "embeddings": read_vectors(embeddings, [examples.text_ids[i] for i in rows]),
            "texts": np.array([examples.texts[i] for i in rows], object),
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        store.write_bytes(url, buffer.getvalue())
    return urls
