"""A build of a VIDB that is killed, or whose storage fails, at every operation: nothing lost, nothing twice, no half version.

The jobs, the store and the judge are the real ones; Ray is replaced by plain calls (`plain_ray`): a build takes a second.
"""

import multiprocessing
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_ray
import pytest
from configs import SIMULATED, job_config
from storage_faults import Operations

from jobs import build_vidb, ingest
from valueflow import store, vidb
from valueflow.config import load
from valueflow.distributed.build.pipeline import build_vidb as build
from valueflow.errors import InputError, of_storage
from valueflow.job import work_of
from valueflow.store.attempts import attempt as lease

ALL = os.environ.get("CHAOS") == "all"
BATCH = 20
JUDGE = SIMULATED | {"batch_size": BATCH, "broken_share": 0.05}
VALUES = {"values": ["svt:benevolence", "duty:fidelity"], "max_texts": 12}
DONE, ONE_LINE, TRACEBACK = 0, 2, 1


# Each attempt is forked from a process that has imported the code and nothing else: a fork of one that is connected to Ray
# breaks the connection of both.
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["valueflow.distributed.build.pipeline", "jobs.ingest", "jobs.build_vidb"])


def forked(work: Callable[..., object], *arguments: object) -> int:
    """Run in a process of its own with plain calls in the place of Ray; return its exit code, or minus the signal."""
    child = start(work, *arguments)
    child.join()
    return child.exitcode


def start(work: Callable[..., object], *arguments: object) -> Any:
    child = CLEAN.Process(target=_in_child, args=(work, *arguments))
    child.start()
    return child


def _in_child(work: Callable[..., object], *arguments: object) -> None:
    code = TRACEBACK
    try:
        plain_ray.install()
        work(*arguments)
        code = DONE
    except InputError:
        code = ONE_LINE
    except OSError as error:  # as `run_job` does
        code = ONE_LINE if of_storage(error) else TRACEBACK
    except BaseException:  # noqa: BLE001 whatever it is, the parent gets a code
        traceback.print_exc()
    finally:
        os._exit(code)


def attempt(root: Path, at: int = 0, fault: str = "kill") -> tuple[int, int]:
    """Run the build, with a fault at an operation on its root; return the exit code, and how many operations there were."""
    seen = root.parent / f"{root.name}.operations"
    seen.unlink(missing_ok=True)
    return forked(_build, config_of(root), root, at, fault, seen), int(seen.read_text()) if seen.exists() else 0


def config_of(root: Path) -> Any:
    return job_config(build_vidb, root, candidates=VALUES, windows={"k": 2, "m": 8}, judge=JUDGE, max_error_share=0.5)


def _build(config: Any, root: Path, at: int, fault: str, seen: Path) -> None:
    operations = Operations(str(root), at, fault)
    build(config)
    seen.write_text(str(operations.count))


def _leased(config: Any, root: Path) -> None:
    """As `run_job` runs it: the second attempt waits for the first, and finds everything done."""
    with lease(str(root), work_of("build_vidb", config), ""):
        build(config)


def _ingest(root: Path) -> None:
    ingest.main(load(ingest.SCHEMA, "conf/ingest/tiny.yaml", [f"root={root}"]))


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    assert forked(_ingest, root) == DONE
    return root


@pytest.fixture(scope="module")
def whole(texts, tmp_path_factory) -> tuple[Path, int]:
    """A root with the version of an undisturbed build, and the number of its operations."""
    root = fresh(texts, tmp_path_factory.mktemp("whole") / "root")
    code, operations = attempt(root)
    assert code == DONE
    return root, operations


def fresh(texts: Path, root: Path) -> Path:
    shutil.copytree(texts, root)
    return root


def published(root: Path) -> dict[str, object]:
    """What readers see: rows of the version and its utilities, and windows and answers by id."""
    version = vidb.load(str(root))
    content: dict[str, object] = {"version": version.build.build_id}
    for table in ("vidb", "utilities"):
        (build_id,) = store.finished(str(root), table)
        for path in store.part_paths(store.Build(str(root), table, build_id)):
            content[f"{table}/{path}"] = (root / table / build_id / path).read_bytes()
    (build_id,) = store.finished(str(root), "rankings")
    rows = store.read_table(store.Build(str(root), "rankings", build_id)).to_pylist()
    assert len(rows) == len({row["window_id"] for row in rows})
    content["answers"] = sorted(map(str, rows))
    return content


def check(root: Path, whole: Path) -> None:
    assert published(root) == published(whole)
    left = [
        path for path in root.rglob("*") if path.suffix in (".tmp", ".bad") or (path.name == "_journal" and any(path.iterdir()))
    ]
    assert not left


def moments(total: int) -> list[int]:
    """Twelve operations spread over a build; with CHAOS=all, every one of them."""
    return list(range(1, total + 1)) if ALL else sorted({1 + i * (total - 1) // 11 for i in range(12)})


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_killed_at_any_operation_the_same_command_ends_with_the_same_version(texts, whole, tmp_path):
    for at in moments(whole[1]):
        root = fresh(texts, tmp_path / f"{at}")
        assert attempt(root, at)[0] == -signal.SIGKILL
        assert not store.current(str(root)).version or published(root) == published(whole[0])
        assert attempt(root)[0] == DONE
        check(root, whole[0])
        shutil.rmtree(root)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_killed_again_and_again_every_attempt_comes_further(texts, whole, tmp_path):
    root, random_moment = fresh(texts, tmp_path / "root"), random.Random(1)
    for _ in range(200 if ALL else 6):
        if attempt(root, random_moment.randrange(20, 120))[0] == DONE:
            break
    assert attempt(root)[0] == DONE
    check(root, whole[0])


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_fault_at_any_operation_is_survived_or_one_line(texts, whole, tmp_path):
    for at in moments(whole[1]):
        root = fresh(texts, tmp_path / f"{at}")
        assert attempt(root, at, "EIO")[0] in (DONE, ONE_LINE), at
        assert attempt(root)[0] == DONE
        check(root, whole[0])
        shutil.rmtree(root)


@pytest.mark.chaos
def test_two_attempts_at_once_end_with_one_version_that_readers_see_whole(texts, whole, tmp_path):
    root = fresh(texts, tmp_path / "root")
    children = [start(_leased, config_of(root), root) for _ in range(2)]
    while any(child.is_alive() for child in children):
        if store.current(str(root)).version:
            assert published(root) == published(whole[0])
    assert [child.exitcode for child in children] == [DONE, DONE]
    assert attempt(root)[0] == DONE
    assert published(root) == published(whole[0])
