"""Windows that kill or break their worker are rows with a reason, and the others are answered; what a death costs."""

import os
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from configs import SIMULATED, job_config

from jobs import build_vidb
from valueflow import store
from valueflow.distributed import actor_pools
from valueflow.distributed.error_limit import NO_LIMIT
from valueflow.distributed.worker_deaths import attempts
from valueflow.errors import InputError, TooManyErrors
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.tasks import RANK
from valueflow.records import digest
from valueflow.store import RankingsDetails

pytestmark = pytest.mark.ray
DEADLY = 0.004


def test_windows_that_kill_their_worker_are_failed_windows(root, caplog):
    judge = SIMULATED | {"deadly_share": DEADLY, "batch_size": 100, "num_actors": 2, "max_actors": 3}
    at = build_vidb.main(job_config(build_vidb, root, "candidates.values=[svt:benevolence]", judge=judge))
    rows = store.read_table(at.rankings[0]).to_pylist()
    deadly = {row["window_id"] for row in rows if int(digest("deadly", row["window_id"]), 16) < DEADLY * 16**16}
    assert 0 < len(deadly) < 10
    assert {row["window_id"] for row in rows if row["error"]} == deadly
    assert {row["error"] for row in rows if row["error"]} == {"its worker died 2 times"}
    assert store.details_of(at.rankings[0], RankingsDetails).errors == len(deadly)
    assert len(rows) == store.require_manifest(at.windows).num_rows == len({row["window_id"] for row in rows})
    assert "died with 100 questions (attempt 1): " in caplog.text
    assert "died with 100 questions (attempt 1): its process ended" not in caplog.text  # Ray has told how


@pytest.mark.slow
def test_too_many_of_them_stop_the_job(root):
    judge = SIMULATED | {"deadly_share": 1.0, "batch_size": 1}
    with pytest.raises(TooManyErrors, match="its worker died 2 times"):
        build_vidb.main(
            job_config(build_vidb, root, "candidates.values=[svt:benevolence]", "max_error_share=0.001", judge=judge)
        )


def questions(count: int) -> pa.Table:
    return pa.table({"id": [f"{n}" for n in range(count)]})


def failed(rows: pa.Table, reason: str) -> pa.Table:
    return rows.append_column("error", pa.array([reason] * rows.num_rows))


def test_a_question_that_raises_is_found_among_its_batch(cluster):
    calls = []

    def worker(rows: pa.Table) -> pa.Table:
        calls.append(rows.num_rows)
        if "37" in rows["id"].to_pylist():
            raise RuntimeError("no such token")
        return rows.append_column("error", pa.array([None] * rows.num_rows, pa.string()))

    answers = attempts("j").answer(questions(100), "id", worker, failed).to_pylist()
    assert [row["id"] for row in answers] == questions(100)["id"].to_pylist()
    assert {row["id"]: row["error"] for row in answers if row["error"]} == {"37": "RuntimeError: no such token"}
    assert len(calls) <= 1 + 8 + 7 + 2


def test_an_error_of_the_user_ends_the_job(cluster):
    def worker(rows: pa.Table) -> pa.Table:
        raise InputError("no such model")

    with pytest.raises(InputError, match="no such model"):
        attempts("j").answer(questions(2), "id", worker, failed)


def test_the_death_of_one_of_four_actors_costs_at_most_its_batch(cluster, tmp_path, monkeypatch):
    log, batch_size = tmp_path / "asked", 20

    class Slow:  # sent by value
        def __init__(self, config: object) -> None:
            self.path = str(log)

        def __call__(self, rows: pa.Table) -> pa.Table:
            with Path(self.path).open("a") as file:
                file.write("".join(f"{os.getpid()} {i}\n" for i in rows["window_id"].to_pylist()))
            time.sleep(0.5)
            return rows.append_column("error", pa.array([None] * rows.num_rows, pa.string()))

    monkeypatch.setattr(actor_pools, "worker_class", lambda *_: Slow)
    judge = SimulatedJudge(batch_size=batch_size, num_actors=4, num_cpus=0.5)
    questions = pa.table({"window_id": [f"{n:016d}" for n in range(40 * batch_size)]})
    blocks = ray.data.from_arrow(questions).repartition(target_num_rows_per_block=batch_size)
    answers = actor_pools.answer_in_actors(judge, RANK, NO_LIMIT, actor_pools.unchanged)(blocks)

    def kill() -> None:
        while len(pids := {line.split()[0] for line in log.read_text().splitlines()} if log.exists() else set()) < 4:
            time.sleep(0.05)
        os.kill(int(min(pids)), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    answered = [i for batch in answers.iter_batches(batch_format="pyarrow") for i in batch["window_id"].to_pylist()]
    killer.join()
    asked = [line.split()[1] for line in log.read_text().splitlines()]
    assert sorted(answered) == questions["window_id"].to_pylist()
    assert 0 < len(asked) - len(set(asked)) <= batch_size
