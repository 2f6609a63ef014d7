"""A build of a VIDB as attempts in processes of their own, which die or fail at a chosen operation; what readers see meanwhile.

The jobs, the store and the judge are the real ones; Ray is replaced by plain calls (`plain_ray`): a build takes a second. What
the store cannot notice is left out: syncs, for a killed process leaves its pages to the kernel; the waits before a second try;
the checks of the model, which write nothing.
"""

import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import plain_ray
from configs import SIMULATED, job_config
from storage_faults import Fault, Operations

from jobs import build_vidb, ingest
from valueflow import retry, store, vidb
from valueflow.config import load
from valueflow.distributed.build import aggregate
from valueflow.distributed.build.pipeline import build_vidb as build
from valueflow.job import work_of
from valueflow.job.run import exit_codes
from valueflow.judging.simulated import SimulatedRanker
from valueflow.store.attempts import attempt as lease

BATCH = 20
JUDGE = SIMULATED | {"batch_size": BATCH, "broken_share": 0.05}
VALUES = {"values": ["svt:benevolence", "duty:fidelity"], "max_texts": 12}
DONE, ONE_LINE, TRACEBACK = 0, 2, 1

# Each attempt is forked from a process that has imported the code and nothing else: a fork of one that is connected to Ray
# breaks the connection of both.
CLEAN = multiprocessing.get_context("forkserver")
# Who starts a process asks after all others too. The status of one can be read once only, and a second thread makes it 255.
STATUS = threading.Lock()
CLEAN.set_forkserver_preload(["valueflow.distributed.build.pipeline", "jobs.ingest", "jobs.build_vidb", "compiled"])


def forked(work: Callable[..., object], *arguments: object) -> int:
    """Run in a process of its own with plain calls in the place of Ray; return its exit code, or minus the signal."""
    return ended(start(work, *arguments))


def start(work: Callable[..., object], *arguments: object) -> Any:
    """Start it, and return the process."""
    child = CLEAN.Process(target=_in_child, args=(work, *arguments))
    with STATUS:
        child.start()
    return child


def ended(child: Any) -> int:
    """Wait for a process, and return its exit code, or minus the signal."""
    multiprocessing.connection.wait([child.sentinel])
    with STATUS:
        child.join()
        return child.exitcode


def _in_child(work: Callable[..., object], *arguments: object) -> None:
    code = TRACEBACK
    try:
        plain_ray.install()
        os.fsync = lambda _: None
        retry.BACKOFF = 0.01
        aggregate._model_checks = lambda *_: {}
        with exit_codes():
            work(*arguments)
        code = DONE
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001 whatever it is, the parent gets a code
        traceback.print_exc()
    finally:
        os._exit(code)


class Attempt(NamedTuple):
    """Exit code (minus the signal) of an attempt, and how many operations it did; 0 where it was killed."""

    code: int
    operations: int


def attempt(root: Path, at: int = 0, fault: Fault = "kill", reads: bool = False) -> Attempt:
    """Run the build, with a fault at an operation on its root; `reads` says whether operations that change nothing count."""
    seen = beside(root, "operations")
    seen.unlink(missing_ok=True)
    code = forked(_build, config_of(root), root, at, fault, reads, seen)
    return Attempt(code, int(seen.read_text()) if seen.exists() else 0)


def beside(root: Path, what: str) -> Path:
    """A file about a root that is not in it."""
    return root.parent / f"{root.name}.{what}"


def config_of(folder: Path, m: int = 8, root: str = "") -> Any:
    """Config of the build under a root, by default the folder in which its YAML is written."""
    settings = {"candidates": VALUES, "windows": {"k": 2, "m": m}, "judge": JUDGE, "max_error_share": 0.5}
    return job_config(build_vidb, folder, f"root={root or folder}", **settings)


def _build(config: Any, root: Path, at: int, fault: Fault, reads: bool, seen: Path) -> None:
    _note_questions(beside(root, "asked"))
    operations = Operations(str(root), at, fault, reads)
    try:
        build(config)
    finally:
        seen.write_text(str(operations.count))
        assert not operations.due, "an operation passed by its fault"


def _note_questions(log: Path) -> None:
    answer = SimulatedRanker.__call__

    def noted(ranker: SimulatedRanker, windows: Any) -> Any:
        with log.open("a") as file:
            file.write("".join(f"{window}\n" for window in windows["window_id"].to_pylist()))
        return answer(ranker, windows)

    SimulatedRanker.__call__ = noted


def asked_twice(root: Path) -> int:
    """Windows that the judge was asked once more, over all attempts."""
    asked = beside(root, "asked").read_text().split()
    return len(asked) - len(set(asked))


def leased(config: Any, root: Path | str) -> None:
    """As `run_job` runs it: the second attempt waits for the first, and finds everything done."""
    with lease(str(root), work_of("build_vidb", config), ""):
        build(config)


def earlier_version(root: Path) -> None:
    """Ingest, and publish a version of fewer windows."""
    ingest_texts(str(root))
    build(config_of(root, m=4))


def ingest_texts(root: str) -> None:
    ingest.main(load(ingest.SCHEMA, "conf/ingest/tiny.yaml", [f"root={root}"]))


def whole_on(root: str, folder: Path, environment: dict[str, str]) -> None:
    """Ingest and build under a URL, with the lease that `run_job` holds."""
    os.environ.update(environment)
    ingest_texts(root)
    leased(config_of(folder, root=root), root)


def fresh(before: Path, root: Path) -> Path:
    shutil.copytree(before, root)
    return root


def rows_of(root: Path) -> tuple[str, str]:
    """The published version and its rows, as readers see them."""
    version = vidb.load(str(root))
    return version.build.build_id, str(store.read_table(version.build).to_pylist())


def published(root: Path | str) -> dict[str, object]:
    """Bytes of the published version and its utilities; its windows and answers by id, each once."""
    version = vidb.load(str(root))
    builds = version.details.builds
    content: dict[str, object] = {"version": version.build.build_id}
    for of in (version.build, store.Build(str(root), "utilities", builds["utilities"])):
        for path in store.part_paths(of):
            content[f"{of.table}/{path}"] = store.read_bytes(f"{of.url}/{path}")
    rows = store.read_table(store.Build(str(root), "rankings", builds["rankings"])).to_pylist()
    windows = store.read_table(store.Build(str(root), "windows", builds["windows"]), ["window_id"])["window_id"]
    assert sorted(row["window_id"] for row in rows) == sorted(windows.to_pylist()), "a window was lost, or is there twice"
    content["answers"] = sorted(map(str, rows))
    return content


def check(root: Path, whole: Path) -> None:
    """The version is that of an undisturbed build, and nothing of the attempts is left."""
    assert published(root) == published(whole)
    left = [path for path in root.rglob("*") if path.suffix in (".tmp", ".bad")]
    assert not left + [path for path in root.rglob("_journal") if any(path.iterdir())]


class Reader(threading.Thread):
    """Reads the published version again and again, until the block ends.

    Attributes:
        looks: how often.
        wrong: what it saw beside the whole versions.
    """

    def __init__(self, root: Path, versions: set[tuple[str, str]]) -> None:
        super().__init__(daemon=True)
        self.root, self.versions = root, versions
        self.looks, self.wrong, self.over = 0, [], threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            try:
                rows = rows_of(self.root)
            except Exception as error:  # noqa: BLE001 whatever a reader gets that is no version
                self.wrong.append(repr(error))
            else:
                self.looks += 1
                self.wrong += [] if rows in self.versions else [rows[0]]

    def __enter__(self) -> "Reader":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()
