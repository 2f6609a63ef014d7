"""Ask a judge every window of a plan: the windows with their texts, and the answered build."""

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.answer import AnswerTotals, check_answers, collect_answers
from valueflow.judging.configs import AnyJudge
from valueflow.judging.tasks import RANK
from valueflow.records import ValueId
from valueflow.store import Build, File, RankingsDetails


def read_windows(plan: Build, files: list[File], texts: list[Build], done: "ray.ObjectRef", chunk: int) -> Dataset:
    """Return the windows of a plan's files that are not done yet, with their texts and the folder their answers go to."""
    paths = [{"path": file.path} for file in files]
    return ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(
        _windows_of,
        fn_kwargs={"plan": plan, "texts": texts, "done": done, "chunk": chunk},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0.1,
    )


def open_windows(windows: pa.Table, done: "ray.ObjectRef") -> Dataset:
    """Return windows of a table that are not done yet."""
    return ray.data.from_arrow(windows.filter(store.missing_from(windows["window_id"], ray.get(done))))


def show(windows: pa.Table, texts: dict[str, str]) -> pa.Table:
    """Add the column `texts`, in the order shown."""
    shown = [[texts[i] for i in ids] for ids in windows["text_ids"].to_pylist()]
    return windows.append_column("texts", pa.array(shown, pa.list_(pa.string())))


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
        folder = "" if source.table == "texts" else store.value_folder(ValueId.of(theory, value))
        table = store.read_table(source, ["text_id", "text"], folder)
        found.update(zip(table["text_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return found


def rank(plan: Build, texts: list[Build], judge: AnyJudge, out: Build, max_error_share: float, described: dict) -> store.Manifest:
    """Return the manifest of the answered plan; a finished build is returned as it is, an unfinished one continued.

    Raises:
        InputError: the share of windows without an order exceeds `max_error_share`, or the judge's budget is spent. The answers
            are kept.
    """
    finished = store.finished_manifest(out, "rank", "windows")
    if finished:
        return finished
    total, files = store.require_manifest(plan).num_rows, store.require_manifest(plan).files
    collect_answers(judge, RANK, lambda done: read_windows(plan, files, texts, done, judge.batch_size), out, total, "rank")
    asked = check_answers(out, RANK, total, max_error_share, "rank")
    return store.commit(out, rankings_details(asked, **described), [plan])


def rankings_details(totals: AnswerTotals, **settings: Any) -> RankingsDetails:
    """Return the details of answered windows: their totals, and settings by the names of the record's fields."""
    return RankingsDetails(
        **settings, windows=totals.questions, errors=totals.errors, tokens_in=totals.tokens_in, tokens_out=totals.tokens_out
    )
