"""A real LLM in a real vLLM engine on CPU, through ray.data.llm, in a process of its own as a user runs it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from valueflow import store, vidb

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.llm, pytest.mark.ray, pytest.mark.timeout(900)]


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_smollm2_ranks_and_its_replies_cannot_be_malformed(tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed; make llm")
    root = f"root={tmp_path}"
    run("jobs.ingest", "conf/ingest/tiny.yaml", root)
    build = ("jobs.build_vidb", "conf/build_vidb/tiny-llm.yaml", root)
    run(*build, "candidates.max_texts=10", "candidates.num_neutral=6")
    version = vidb.load(str(tmp_path))
    rankings = store.Build(str(tmp_path), "rankings", version.details.builds["rankings"])
    rows = store.read_table(rankings).to_pandas()
    assert len(rows) == 16 * 4 // 2
    assert rows.error.isna().all()
    assert set(rows.reply) <= {"A", "B"}
    assert (rows.tokens_in > 100).all()
    assert (rows.tokens_out > 0).all()
    # The weight is the probability of the letter that was answered; greedy decoding answers the likelier one.
    assert ((rows.weight >= 0.5 - 1e-6) & (rows.weight <= 1)).all()
    # Both presentations of a pair were asked.
    pairs = rows.text_ids.map(tuple)
    assert {p[::-1] for p in pairs} == set(pairs)
    assert np.isfinite(store.read_table(version.build)["theta"].to_numpy()).all()
    # Again: done before, no engine is started.
    assert "done before" in run(*build, "candidates.max_texts=10", "candidates.num_neutral=6")
    # The answers are gone, the calls are not: they come from the cache; an engine that no cluster could place is not missed.
    shutil.rmtree(rankings.url)
    run(*build, "candidates.max_texts=10", "candidates.num_neutral=6", "judge.cpus_per_engine=1000")
    again = store.read_table(rankings).to_pandas()
    columns = ["window_id", "order", "weight", "reply", "tokens_in", "tokens_out"]
    first, second = (table.sort_values("window_id")[columns].to_dict("list") for table in (rows, again))
    assert repr(first) == repr(second)
    # Windows of three: every reply is one of the six orders.
    run(
        *build,
        "candidates.max_texts=6",
        "candidates.num_neutral=3",
        "windows={k: 3, m: 3, mirrored: false}",
        "judge.logprobs=false",
    )
    k3 = next(b for b in store.finished(str(tmp_path), "rankings") if b != rankings.build_id)
    orders = store.read_table(store.Build(str(tmp_path), "rankings", k3)).to_pandas()
    assert orders.error.isna().all()
    assert all(sorted(order) == [0, 1, 2] for order in orders.order)
