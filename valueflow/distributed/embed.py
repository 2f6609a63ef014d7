"""Texts -> vectors, by encoders in actors; the vectors of chosen texts, and the official NPZ of each theory."""

import io
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import Field, model_validator
from ray.data import Dataset

from valueflow import __version__, store
from valueflow.config import Config
from valueflow.corpora import CorpusConfig
from valueflow.distributed.build.ingest import ingest
from valueflow.distributed.cluster import ClusterConfig, Progress, require_resources
from valueflow.errors import InputError
from valueflow.hives.examples import Examples, examples_from_tables
from valueflow.models import MINILM, content_hash, encoder_settings, fetch
from valueflow.records import digest
from valueflow.store import Build, EmbeddingsDetails
from valueflow.tabular import KINDS
from valueflow.theories.taxonomy import THEORIES

DEFAULT_MAX_LENGTH = 256  # tokens, for models that bring no length of their own
FOLDER_SETTINGS = ("max_length", "pooling", "prompt")  # what a HiVES folder brings itself
NOT_IN_FINGERPRINT = {"model", "batch_size", "rows_per_part", "num_actors", "num_cpus", "num_gpus"}


class EmbedderConfig(Config):
    """Which encoder makes vectors of texts, and with what."""

    model: str = Field(MINILM, description="hub name, folder or URL of one, or package://…")
    revision: str = Field("", description="commit of a hub model, so that it stays the same")
    max_length: int | None = Field(None, ge=2, description="tokens; null: of the HiVES folder, else 256")
    pooling: Literal["mean", "last"] | None = Field(None, description="null: of the HiVES folder, else mean")
    prompt: str | None = Field(None, description="put before each text; null: of the HiVES folder, else none")
    batch_size: int = Field(64, ge=1, description="texts in the model at once")
    rows_per_part: int = Field(2048, ge=1, description="texts committed together, roughly; also what a crash can cost")
    num_actors: int = Field(1, ge=1)
    num_cpus: float = Field(1, ge=0, description="per actor")
    num_gpus: float = Field(0, ge=0, description="per actor; 0: on the CPU")


class EmbedConfig(Config):
    """Which texts become vectors."""

    root: str = Field(description="folder or URL under which all tables live")
    texts: str = Field("latest", description="build id; latest: the newest finished ingest; or a CSV, TSV, JSONL, parquet file")
    column: str = Field("text", description="of a file: the column of texts")
    encoder: EmbedderConfig = EmbedderConfig()
    npz: bool = Field(False, description="also write the official NPZ of each theory")
    labels: str = Field("", description="of the NPZ: build id of labels, or latest: a panel's instead of the corpora's own")
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _labelled(self) -> "EmbedConfig":
        if self.npz and names_file(self.texts):
            raise ValueError(f"npz=true needs texts with labels; texts={self.texts} is a file: ingest it with its labels first")
        return self


class Embedder:
    """An encoder on a worker."""

    def __init__(self, config: EmbedderConfig) -> None:
        from valueflow.hives.encoder import Encoder

        self.config, path = config, fetch(config.model)
        if encoder_settings(path):
            encoder = Encoder.saved(path)
        else:
            length, pooling, prompt = config.max_length or DEFAULT_MAX_LENGTH, config.pooling or "mean", config.prompt or ""
            encoder = Encoder.load(path, config.revision, length, pooling, prompt)
        self.encoder = encoder.to("cuda" if config.num_gpus else "cpu")

    def __call__(self, texts: pa.Table) -> pa.Table:
        """Return text ids and vectors."""
        z_ND = self.encoder.embed(texts["text"].to_pylist(), self.config.batch_size)
        offsets = np.arange(0, z_ND.size + 1, z_ND.shape[1], dtype=np.int32)
        return pa.table({"text_id": texts["text_id"], "embedding": pa.ListArray.from_arrays(offsets, z_ND.ravel())})


def names_file(texts: str) -> bool:
    """Return whether a setting `texts` names a file, not a build."""
    return texts.rpartition(".")[2].lower() in KINDS


def resolve_texts(root: str, texts: str, column: str) -> Build:
    """Return the ingested texts of a setting; those of a file are ingested under root/files, apart from the corpora.

    Raises:
        InputError: nothing is ingested, there is no such build, or the file or its column is missing.
    """
    if names_file(texts):
        corpus = CorpusConfig(format="generic", path=texts, source="file", license="unknown", columns={"text": column})
        return ingest([corpus], store.file_texts_root(root))
    found = store.ingested(root, texts, ", or name a file in texts")
    store.require_manifest(found)
    return found


def resolve_labels(root: str, texts: str, labels: str) -> tuple[Build, Build]:
    """Return texts and their labels: of a panel (build id, or latest), or with "" those that came with the corpora.

    Raises:
        InputError: there are none, or the labels are of other texts.
    """
    if not labels:
        of = resolve_texts(root, texts, "")
        found = Build(of.root, "source_labels", of.build_id)
    else:
        by_panel = store.finished(root, "labels")
        if labels == "latest" and not by_panel:
            raise InputError(f"no labels by a panel under {root}; run python -m jobs.categorize first, or leave labels out")
        found = Build(root, "labels", by_panel[-1] if labels == "latest" else labels)
        texts_id = store.require_manifest(found).inputs_from("texts")[0].build_id
        if texts not in ("latest", texts_id):
            raise InputError(f"labels {found.build_id} are of texts {texts_id}, not of {texts}; leave texts out")
        of = resolve_texts(root, texts_id, "")
    if not store.require_manifest(found).num_rows:
        raise InputError(f"{found.url} has no labels; label the texts with python -m jobs.categorize and set labels=latest")
    return of, found


def read_examples(texts: Build, labels: Build) -> Examples:
    """Return the labelled texts of a build."""
    return examples_from_tables(store.read_table(texts, ["text_id", "text", "group_id"]), store.read_table(labels))


def encoder_fingerprint(config: EmbedderConfig) -> str:
    """Return the hash of everything that can change a vector: settings, and the files of a folder wherever it lies.

    Raises:
        InputError: there is no such folder, or it brings a setting that is also given.
    """
    path = fetch(config.model)
    given = {name: getattr(config, name) for name in FOLDER_SETTINGS if getattr(config, name) is not None}
    if given and encoder_settings(path):
        raise InputError(
            f"encoder.{next(iter(given))} ({next(iter(given.values()))!r}) is given, but {config.model!r} is a HiVES folder, "
            f"which brings its own {', '.join(FOLDER_SETTINGS)}; leave them out"
        )
    return digest(content_hash(path), config.model_dump(exclude=NOT_IN_FINGERPRINT))


def embed_texts(config: EmbedConfig) -> tuple[Build, list[str]]:
    """Return the vectors of a job's texts, and the URLs of the official NPZ files where they are asked for."""
    if not config.npz:
        return embed(resolve_texts(config.root, config.texts, config.column), config.encoder, config.root), []
    texts, labels = resolve_labels(config.root, config.texts, config.labels)
    embedded = embed(texts, config.encoder, config.root)
    return embedded, export_npz(embedded, texts, labels)


def embeddings_build(texts: Build, config: EmbedderConfig, root: str) -> Build:
    """Return where the vectors of a build of texts are, or will be."""
    return Build(root, "embeddings", digest(__version__, texts.build_id, encoder_fingerprint(config)))


def embed(texts: Build, config: EmbedderConfig, root: str) -> Build:
    """Return the build of vectors of a build of texts; a finished one as it is, an unfinished one continued.

    Raises:
        InputError: the model cannot be loaded, or the cluster has no room for it.
    """
    out = embeddings_build(texts, config, root)
    if store.finished_manifest(out, "embed", "texts"):
        return out
    _check(config)
    total, done = store.require_manifest(texts).num_rows, store.committed_ids(out, "text_id")
    progress = Progress("embed", total, len(done))
    if len(done) < total:
        for batch in _embedded(texts, config, out, done).iter_batches(batch_format="pyarrow", batch_size=None):
            progress.add(pc.sum(batch["rows"]).as_py() or 0)
        done = store.committed_ids(out, "text_id")
    if len(done) != total:
        raise RuntimeError(f"embed: {len(done)} of {total} texts have a vector; rerun the command to embed the rest")
    store.drop_duplicates(out, "text_id")  # a text that two attempts embedded
    dimension = len(store.read_part(out, store.part_paths(out)[0])["embedding"][0])
    store.commit(out, EmbeddingsDetails(settings=config.public(), texts=total, dimension=dimension), [texts])
    return out


def _check(config: EmbedderConfig) -> None:
    """Refuse here, and in a line, what an actor would refuse as it dies."""
    from valueflow.hives.encoder import check_model

    require_resources(
        config.num_actors * config.num_cpus,
        config.num_actors * config.num_gpus,
        f"encoder {config.model!r}",
        "Lower its actors",
    )
    check_model(fetch(config.model), config.model, config.revision, config.max_length or DEFAULT_MAX_LENGTH)


def _embedded(texts: Build, config: EmbedderConfig, out: Build, done: np.ndarray) -> Dataset:
    paths = [{"path": file.path} for file in store.require_manifest(texts).files]
    waiting = ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(
        _waiting, fn_kwargs={"texts": texts, "done": ray.put(done)}, batch_size=1, batch_format="pyarrow", num_cpus=0.1
    )
    read_vectors = waiting.repartition(target_num_rows_per_block=config.rows_per_part).map_batches(
        Embedder,
        fn_constructor_kwargs={"config": config},
        batch_format="pyarrow",
        batch_size=config.rows_per_part,
        compute=ray.data.ActorPoolStrategy(size=config.num_actors),
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
    )
    return read_vectors.map_batches(_commit, fn_kwargs={"out": out}, batch_format="pyarrow", batch_size=None, num_cpus=0.1)


def _waiting(batch: pa.Table, texts: Build, done: "ray.ObjectRef") -> Iterator[pa.Table]:
    """The texts of parts that have no vector yet."""
    for path in batch["path"].to_pylist():
        part = store.read_part(texts, path, ["text_id", "text"])
        part = part.filter(store.missing_from(part["text_id"], ray.get(done)))
        if part.num_rows:
            yield part


def _commit(batch: pa.Table, out: Build) -> pa.Table:
    """Write vectors as a part whose name follows from its content, so a retried task replaces itself."""
    if batch.num_rows:
        store.write_part(out, batch, digest(sorted(batch["text_id"].to_pylist())))
    return pa.table({"rows": pa.array([batch.num_rows], pa.int64())})


def read_vectors(embedded: Build, text_ids: list[str]) -> np.ndarray:
    """Return z_ND, the vectors of these texts in their order; InputError where one has none."""
    ids = np.array(text_ids, "S16")
    order = np.argsort(ids)
    z_ND = np.empty((len(ids), store.details_of(embedded, EmbeddingsDetails).dimension), np.float32)
    there = np.zeros(len(ids), bool)
    for file in store.require_manifest(embedded).files:
        part = store.read_part(embedded, file.path)
        asked = part["text_id"].to_numpy().astype("S16")
        at = np.minimum(np.searchsorted(ids, asked, sorter=order), len(ids) - 1)
        known = ids[order[at]] == asked
        z_ND[order[at[known]]] = part_vectors(part)[known]
        there[order[at[known]]] = True
    if not there.all():
        lacking = text_ids[int(np.argmin(there))]
        raise InputError(f"{embedded.url} has no vector of text {lacking} and {(~there).sum() - 1:,} others")
    return z_ND


def part_vectors(part: pa.Table) -> np.ndarray:
    """Return the vectors of a part, z_ND."""
    return part["embedding"].combine_chunks().flatten().to_numpy().reshape(part.num_rows, -1)


def export_npz(embedded: Build, texts: Build, labels: Build) -> list[str]:
    """Return the official files `embedding_{theory}.npz` (arrays texts, embeddings) of the labelled texts, one a theory."""
    folder = store.npz_url(embedded.root, digest(embedded.build_id, labels.table, labels.build_id))
    return ray.get(ray.remote(_write_npz).options(num_cpus=1).remote(embedded, texts, labels, folder))


def _write_npz(embedded: Build, texts: Build, labels: Build, folder: str) -> list[str]:
    examples = read_examples(texts, labels)
    urls = []
    for t in np.unique(examples.theory_N):
        url = f"{folder}/embedding_{THEORIES[t]}.npz"
        urls.append(url)
        if store.exists(url):
            continue
        chosen = np.unique(examples.text_N[examples.theory_N == t]).tolist()
        arrays: dict[str, Any] = {
            "embeddings": read_vectors(embedded, [examples.text_ids[i] for i in chosen]),
            "texts": np.array([examples.texts[i] for i in chosen], object),
        }
        content_ = io.BytesIO()
        np.savez(content_, **arrays)
        store.write_bytes(url, content_.getvalue())
    return urls
