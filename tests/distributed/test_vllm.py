"""A real LLM in a real vLLM engine on CPU, in an actor of Ray Data."""

import shutil

import numpy as np
import psutil
import pytest
from configs import job_config

from jobs import build_vidb
from valueflow import store
from valueflow.distributed import vllm_batch
from valueflow.distributed.build import pipeline
from valueflow.errors import InputError
from valueflow.store import Build

pytestmark = [pytest.mark.llm, pytest.mark.ray, pytest.mark.timeout(900)]
CANDIDATES = {"values": ["svt:benevolence"], "max_texts": 10, "num_neutral": 6}


def test_smollm2_ranks_and_its_replies_cannot_be_malformed(root):
    pytest.importorskip("vllm", reason="vLLM is not installed; make llm")

    def config(*overrides: str) -> build_vidb.SCHEMA:
        return job_config(build_vidb, root, *overrides, name="tiny-llm", candidates=CANDIDATES)

    at = build_vidb.main(config())
    (rankings,) = at.rankings
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
    assert np.isfinite(store.read_table(at.vidb)["theta"].to_numpy()).all()
    # Again, with an engine that no cluster could place: nothing is asked.
    assert build_vidb.main(config("judge.cpus_per_engine=1000")) == at
    # The answers are gone, the calls are not: they come from the cache, and the engine is not missed.
    shutil.rmtree(rankings.url)
    assert build_vidb.main(config("judge.cpus_per_engine=1000")) == at
    again = store.read_table(rankings).to_pandas()
    columns = ["window_id", "order", "weight", "reply", "tokens_in", "tokens_out"]
    first, second = (table.sort_values("window_id")[columns].to_dict("list") for table in (rows, again))
    assert repr(first) == repr(second)


@pytest.mark.slow
@pytest.mark.timeout(900)  # an engine, 314 s on a slow machine
@pytest.mark.parametrize("answer", ["logprobs", "rating"])
def test_smollm2_judges_by_log_probabilities(root, answer):
    """Every window has an order and no question is put twice: its answers come from the cache, without an engine."""
    pytest.importorskip("vllm", reason="vLLM is not installed; make llm")
    settings = {"candidates": CANDIDATES, "windows": {"mode": "balanced", "k": 2, "m": 4}}
    judge = (f"judge.answer={answer}", "judge.logprobs=false")
    at = build_vidb.main(job_config(build_vidb, root, *judge, name="tiny-llm", **settings))
    (rankings,) = at.rankings
    rows = store.read_table(rankings).to_pandas()
    assert len(rows) == 16 * 4 // 2
    assert rows.error.isna().all()
    assert ((rows.weight >= 0.5) & (rows.weight <= 1)).all()
    assert rows.weight.nunique() > 8
    questions = len(list((root / "cache").rglob("*.json")))
    # A pair is another sample in another round; each text is rated once.
    pairs = {(*sorted(pair), round_) for pair, round_ in zip(rows.text_ids, rows["round"], strict=True)}
    own = 2 * len(pairs) if answer == "logprobs" else 16
    assert questions <= own + 20
    assert rows.tokens_out.sum() >= questions
    shutil.rmtree(rankings.url)
    assert (
        build_vidb.main(job_config(build_vidb, root, *judge, "judge.cpus_per_engine=1000", name="tiny-llm", **settings)) == at
    )
    again = store.read_table(rankings).to_pandas()
    columns = ["window_id", "order", "weight", "reply"]
    first, second = (table.sort_values("window_id")[columns].to_dict("list") for table in (rows, again))
    assert repr(first) == repr(second)


@pytest.mark.slow  # the length of its engine is its own, so no other test's engine serves
def test_windows_that_the_engine_refuses_are_failed_windows_and_stop_the_job(root):
    pytest.importorskip("vllm", reason="vLLM is not installed; make llm")
    engine = "judge.engine.max_model_len=64"  # shorter than every prompt
    settings = {"candidates": CANDIDATES, "windows": {"mode": "balanced", "k": 2, "m": 32}}
    with pytest.raises(InputError, match=r"\(100.0%\) have no valid answer, .*after \d+ of 256. Most common: \d+x "):
        build_vidb.main(job_config(build_vidb, root, engine, "judge.batch_size=8", name="tiny-llm", **settings))
    (rankings,) = (Build(str(root), "rankings", path.name) for path in (root / "rankings").iterdir())
    rows = [row for path in store.part_paths(rankings) for row in store.read_part(rankings, path).to_pylist()]
    assert 12 < len(rows) < 256
    assert all(row["error"] and not row["reply"] and not row["tokens_out"] for row in rows)


@pytest.mark.slow
def test_a_question_that_ends_the_engine_is_a_failed_one_and_the_others_are_answered(root, monkeypatch):
    """The process of the real engine is killed whenever it is asked about one pair, as a fault of a kernel would."""
    pytest.importorskip("vllm", reason="vLLM is not installed; make llm")
    config = job_config(build_vidb, root, "judge.batch_size=4", name="tiny-llm", candidates=CANDIDATES)
    at = pipeline.plan_stages(config, None)
    window = store.read_table(at.windows).slice(5, 1).to_pylist()[0]
    text_of = {row["text_id"]: row["text"] for row in store.read_table(at.candidates).to_pylist()}
    pair = [text_of[text_id] for text_id in window["text_ids"]]

    class Fatal(vllm_batch.EngineActor):  # sent by value
        async def _ask(self, question, round_):
            prompt = question.messages[-1]["content"]
            if all(text in prompt for text in pair) and prompt.index(pair[0]) < prompt.index(pair[1]):
                for process in psutil.Process().children(recursive=True):
                    process.kill()
            return await super()._ask(question, round_)

    monkeypatch.setattr(vllm_batch, "EngineActor", Fatal)
    build_vidb.main(config)
    rows = store.read_table(at.rankings[0]).to_pylist()
    assert len(rows) == 16 * 4 // 2
    assert {row["window_id"]: row["error"] for row in rows if row["error"]} == {window["window_id"]: "its worker died 2 times"}
    assert all(row["tokens_in"] > 100 for row in rows)
