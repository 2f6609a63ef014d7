"""A build of a VIDB that is killed, or whose storage fails, at every operation: nothing lost, nothing twice, no half version.

The short forms are in `make test`, the whole in `make test-slow`; with `-s` each prints its counts (docs/design/resume.md).
"""

import random
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import attempts
import pytest
from attempts import BATCH, DONE, ONE_LINE, Reader, attempt, check, fresh, published, rows_of
from storage_faults import Fault

from valueflow import store

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
KILLS = 500  # of the whole form, in both tests together
whole_and_short = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])


class World(NamedTuple):
    """A root with an earlier version, one with the version of an undisturbed build too, and the operations of that build."""

    before: Path
    whole: Path
    changes: int
    operations: int

    def versions(self) -> set[tuple[str, str]]:
        """What a reader may see while the build runs."""
        return {rows_of(self.before), rows_of(self.whole)}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    before, whole = folder / "before", folder / "whole"
    before.mkdir()
    assert attempts.forked(attempts.earlier_version, before) == DONE
    counted = attempt(fresh(before, folder / "counted"), reads=True)
    undisturbed = attempt(fresh(before, whole))
    assert (counted.code, undisturbed.code, attempts.asked_twice(whole)) == (DONE, DONE, 0)
    return World(before, whole, undisturbed.operations, counted.operations)


class Cycle(NamedTuple):
    """What a root went through: kills, windows asked twice, looks of the reader."""

    kills: int
    twice: int
    looks: int


def cycle(world: World, root: Path, moments: Iterator[int]) -> Cycle:
    """Kill attempts at these changes, until one ends before its moment; the same command then ends with the same version."""
    fresh(world.before, root)
    kills = 0
    with Reader(root, world.versions()) as reader:
        for at in moments:
            code = attempt(root, at).code
            assert code in (DONE, -signal.SIGKILL)
            if code == DONE:
                break
            kills += 1
        assert attempt(root).code == DONE
    assert not reader.wrong
    check(root, world.whole)
    twice = attempts.asked_twice(root)
    assert twice <= kills * BATCH
    shutil.rmtree(root)
    return Cycle(kills, twice, reader.looks)


def spread(total: int, every: bool) -> list[int]:
    """Eight operations spread over a build, or every one."""
    return list(range(1, total + 1)) if every else sorted({1 + i * (total - 1) // 7 for i in range(8)})


def report(what: str, cycles: list[Cycle]) -> None:
    kills, twice, looks = map(sum, zip(*cycles, strict=True))
    most = max(cycle.twice / max(cycle.kills, 1) for cycle in cycles)
    print(f"\n{what}: {kills} kills of {len(cycles)} builds; lost 0, doubled 0; windows asked twice {twice}, at most "
          f"{most:.1f} a kill (bound {BATCH}); {looks} looks of readers, all at whole versions")  # fmt: skip


@whole_and_short
def test_killed_at_any_change_the_same_command_ends_with_the_same_version(world, tmp_path, every):
    with ThreadPoolExecutor(2) as pool:
        cycles = pool.map(lambda at: cycle(world, tmp_path / f"{at}", iter([at])), spread(world.changes, every))
        cycles = list(cycles)
    assert all(of.kills == 1 for of in cycles)
    report("every change of the disk" if every else "changes of the disk", cycles)


@whole_and_short
def test_killed_again_and_again_every_attempt_comes_further(world, tmp_path, every):
    kills = max(KILLS - world.changes, 0) if every else 3

    def until_done(seed: int) -> Cycle:
        rng = random.Random(seed)
        return cycle(world, tmp_path / f"{seed}", iter(lambda: rng.randrange(5, 50), None))

    cycles: list[Cycle] = []
    with ThreadPoolExecutor(2) as pool:
        while sum(of.kills for of in cycles) < kills:
            cycles += pool.map(until_done, range(len(cycles), len(cycles) + (2 if every else 1)))
    report("random changes, until an attempt ends", cycles)


@whole_and_short
@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_fault_at_any_operation_is_survived_or_one_line(world, tmp_path, fault: Fault, every):
    reads = fault == "before"

    def failed(at: int) -> tuple[int, int]:
        root = fresh(world.before, tmp_path / f"{at}")
        with Reader(root, world.versions()) as reader:
            code = attempt(root, at, fault, reads).code
            assert code in (DONE, ONE_LINE), at
            assert attempt(root).code == DONE
        assert not reader.wrong
        check(root, world.whole)
        twice = attempts.asked_twice(root)
        assert twice <= BATCH
        shutil.rmtree(root)
        return code, twice

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(failed, spread(world.operations if reads else world.changes, every)))
    ended = sum(code == ONE_LINE for code, _ in results)
    print(f"\nfault {fault} the operation: {len(results)} builds, {ended} ended with one line and were completed by a rerun, "
          f"the others went on; windows asked twice {sum(twice for _, twice in results)}")  # fmt: skip


def test_two_attempts_at_once_end_with_one_version_that_readers_see_whole(world, tmp_path):
    root = fresh(world.before, tmp_path / "root")
    with Reader(root, world.versions()) as reader:
        children = [attempts.start(attempts.leased, attempts.config_of(root), root) for _ in range(2)]
        codes = [attempts.ended(child) for child in children]
    assert codes == [DONE, DONE]
    assert not reader.wrong
    assert store.current(str(root)).version == store.current(str(world.whole)).version
    assert attempt(root).code == DONE
    assert published(root) == published(world.whole)
