"""Ask a judge every window of a plan, commit answers as they come, continue where an earlier run stopped."""

import functools
import logging
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.cluster import Progress
from valueflow.distributed.judge import Judge
from valueflow.errors import InputError
from valueflow.records import digest
from valueflow.store import Build

log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """Totals over all windows of a build, earlier runs included."""

    windows: int
    errors: int
    tokens_in: int
    tokens_out: int


def read_windows(plan: Build, texts: list[Build], done: "ray.ObjectRef", chunk: int) -> Dataset:
    """Return the plan's windows that are not done yet, with their texts and the folder their answers go to."""
    paths = [{"path": file.path} for file in store.need(plan).files]
    return ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(
        _windows_of,
        fn_kwargs={"plan": plan, "texts": texts, "done": done, "chunk": chunk},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0.1,
    )


def _windows_of(batch: pa.Table, plan: Build, texts: list[Build], done: "ray.ObjectRef", chunk: int) -> Iterator[pa.Table]:
    for path in batch["path"].to_pylist():
        table = store.read_part(plan, path)
        table = table.filter(store.missing_from(table["window_id"], ray.get(done)))
        folder = path.rpartition("/")[0]
        for start in range(0, table.num_rows, chunk):
            yield with_texts(table.slice(start, chunk), texts, folder)


def with_texts(windows: pa.Table, sources: list[Build], folder: str, more: dict[str, str] | None = None) -> pa.Table:
    """Add the columns `texts` (in the order shown) and `folder`; every text id must be in one of the sources or in `more`."""
    pairs = {(t, v) for t, v in zip(windows["theory"].to_pylist(), windows["value"].to_pylist(), strict=True)}
    known = {pair: _texts_of(tuple(sources), *pair) | (more or {}) for pair in pairs}
    keys = zip(windows["theory"].to_pylist(), windows["value"].to_pylist(), windows["text_ids"].to_pylist(), strict=True)
    shown = pa.array([[known[theory, value][i] for i in ids] for theory, value, ids in keys], pa.list_(pa.string()))
    return windows.append_column("texts", shown).append_column("folder", pa.array([folder] * windows.num_rows, pa.string()))


@functools.lru_cache(maxsize=64)
def _texts_of(sources: tuple[Build, ...], theory: str, value: str) -> dict[str, str]:
    """Text by id of one value; kept per worker process."""
    found: dict[str, str] = {}
    for source in sources:
        folder = "" if source.table == "texts" else store.partition(theory, value)
        table = store.read_table(source, ["text_id", "text"], folder)
        found.update(zip(table["text_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return found


def rank(
    plan: Build,
    texts: list[Build],
    judge: Judge,
    out: Build,
    *,
    batch_size: int,
    max_error_share: float,
    what: str,
    config: dict,
) -> store.Manifest:
    """Return the manifest of the answered plan; a finished build is returned as it is, an unfinished one continued.

    Raises:
        InputError: the share of windows without an order exceeds `max_error_share`. The answers are kept.
    """
    finished = store.manifest(out)
    if finished:
        log.info("%s: %s windows, done before", what, f"{finished.num_rows:,}")
        return finished
    total = store.need(plan).num_rows
    done = store.committed_ids(out, "window_id")
    progress = Progress(what, total, len(done))
    if len(done) < total:
        ask(judge(read_windows(plan, texts, ray.put(done), batch_size)), out, progress)
    asked = check(out, total, max_error_share, what)
    return store.commit(out, config, [plan.url], asked._asdict())


def check(out: Build, total: int, max_error_share: float, what: str) -> Asked:
    """Return the totals of an answered build, each window once.

    Raises:
        InputError: too many windows have no usable answer.
    """
    asked, rows, reasons = _count(out)
    if rows > asked.windows:  # two attempts answered some windows
        store.drop_duplicates(out, "window_id")
        asked, rows, reasons = _count(out)
    if asked.windows != total:
        raise RuntimeError(f"{what}: {asked.windows} of {total} windows answered; rerun the command to ask the rest")
    check_errors(asked, max_error_share, what, out.url, reasons)
    return asked


def ask(answered: Dataset, out: Build, progress: Progress) -> None:
    """Run a judged dataset to the end, committing every batch as one or more parts."""
    committed = answered.map_batches(_commit, fn_kwargs={"out": out}, batch_format="pyarrow", batch_size=None, num_cpus=0.1)
    errors = 0
    for batch in committed.iter_batches(batch_format="pyarrow", batch_size=None):
        errors += pc.sum(batch["errors"]).as_py() or 0
        progress.add(pc.sum(batch["rows"]).as_py() or 0, f", {errors:,} broken" if errors else "")


def _commit(batch: pa.Table, out: Build) -> pa.Table:
    """Write the answers of each folder as a part whose name follows from its content, so a retried task replaces itself."""
    rows, errors = [], []
    for folder in pc.unique(batch["folder"]).to_pylist():
        part = batch.filter(pc.equal(batch["folder"], folder)).drop_columns(["folder"])
        store.write_part(out, part, digest(sorted(part["window_id"].to_pylist())), folder)
        rows.append(part.num_rows)
        errors.append(part["error"].length() - part["error"].null_count)
    return pa.table({"rows": pa.array(rows, pa.int64()), "errors": pa.array(errors, pa.int64())})


def _count(out: Build) -> tuple[Asked, int, Counter[str]]:
    """The totals over everything a build holds, its rows (a window answered twice counts twice) and the reasons of errors."""
    rows, tokens_in, tokens_out = 0, 0, 0
    reasons: Counter[str] = Counter()
    for path in store.part_paths(out):
        part = store.read_part(out, path, ["error", "tokens_in", "tokens_out"])
        rows += part.num_rows
        reasons.update(part["error"].drop_null().to_pylist())
        tokens_in += pc.sum(part["tokens_in"]).as_py() or 0
        tokens_out += pc.sum(part["tokens_out"]).as_py() or 0
    windows = len(store.committed_ids(out, "window_id"))
    return Asked(windows, reasons.total(), tokens_in, tokens_out), rows, reasons


def check_errors(asked: Asked, max_error_share: float, what: str, where: str, reasons: Counter[str]) -> None:
    """Refuse answers of which too many are broken; say which reasons were most common."""
    share = asked.errors / max(asked.windows, 1)
    if share > max_error_share:
        common = "; ".join(f"{n}x {r}" for r, n in reasons.most_common(3))
        raise InputError(
            f"{what}: {asked.errors} of {asked.windows} windows ({share:.1%}) have no usable answer, max_error_share is "
            f"{max_error_share:.1%}. Most common: {common}. The answers are kept in {where}; fix the judge (a changed judge is "
            "a new build) or raise max_error_share"
        )
