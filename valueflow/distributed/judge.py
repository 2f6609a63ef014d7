"""Judges as functions Dataset -> Dataset: windows with their texts go in, rankings come out."""

import math
from collections.abc import Callable

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow.distributed.cluster import require
from valueflow.judging.answers import answers
from valueflow.judging.encoder import EncoderRanker
from valueflow.judging.judges import EncoderJudge, SimulatedJudge, VllmJudge
from valueflow.judging.parse import BrokenReply, parse_order, structured
from valueflow.judging.simulated import Simulated
from valueflow.judging.weights import locate
from valueflow.prompts.render import LABELS, rank_messages

Judge = Callable[[Dataset], Dataset]
# The tokenizer, chat template and detokenizer stages of ray.data.llm each hold this share of a logical CPU.
STAGE_CPUS = 0.1


def judge(config: EncoderJudge | SimulatedJudge | VllmJudge) -> Judge:
    """Return the judge that a config describes; the cluster is checked for room first.

    Windows go in in blocks of the judge's batch size: a block is answered and committed as one, so that is what a crash costs.
    """
    answer = _vllm(config) if isinstance(config, VllmJudge) else _in_actors(config)
    return lambda windows: answer(windows.repartition(target_num_rows_per_block=config.batch_size))


def _in_actors(config: EncoderJudge | SimulatedJudge) -> Judge:
    gpus = 0.0
    if isinstance(config, EncoderJudge):
        gpus = config.num_gpus
        locate(config.model)  # a model that is not there is said here, not by a dying actor
    require(config.num_actors * config.num_cpus, config.num_actors * gpus, f"judge {config.name!r}")
    worker = EncoderRanker if isinstance(config, EncoderJudge) else Simulated

    def rank(windows: Dataset) -> Dataset:
        return windows.map_batches(
            worker,
            fn_constructor_kwargs={"config": config},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            compute=ray.data.ActorPoolStrategy(size=config.num_actors),
            num_cpus=config.num_cpus,
            num_gpus=gpus,
        )

    return rank


def _vllm(config: VllmJudge) -> Judge:
    try:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    except ImportError as error:
        from valueflow.errors import InputError

        raise InputError("judge kind 'vllm' needs vLLM: pip install 'valueflow[llm]' (GPU) or run `make llm` (CPU)") from error
    require(
        config.num_engines * config.cpus_per_engine + 2, config.num_engines * config.gpus_per_engine, f"judge {config.name!r}"
    )
    bundle = {"CPU": config.cpus_per_engine} | ({"GPU": config.gpus_per_engine} if config.gpus_per_engine else {})
    revision = {"revision": config.revision} if config.revision else {}
    stage = {"num_cpus": STAGE_CPUS, "batch_size": config.batch_size}
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=locate(config.model),
            engine_kwargs=config.engine | revision,
            concurrency=config.num_engines,
            batch_size=config.batch_size,
            accelerator_type=None,
            placement_group_config={"bundles": [bundle]},
            chat_template_stage=stage,
            tokenize_stage=stage,
            detokenize_stage=stage,
            should_continue_on_error=True,
            log_engine_metrics=False,
            runtime_env={"env_vars": config.env},
        ),
        preprocess=_Ask(config),
        postprocess=_keep,
    )

    def rank(windows: Dataset) -> Dataset:
        answered = processor(windows)
        return answered.map_batches(
            _read_replies,
            fn_kwargs={"name": config.name, "logprobs": config.logprobs},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            num_cpus=STAGE_CPUS,
        )

    return rank


class _Ask:
    """A window as a chat request."""

    def __init__(self, config: VllmJudge) -> None:
        self.config = config

    def __call__(self, row: dict) -> dict:
        k = len(row["texts"])
        sampling = {
            "temperature": self.config.temperature,
            "max_tokens": 2 * k + 4,
            "structured_outputs": structured(k),
        } | ({"logprobs": 5} if self.config.logprobs and k == 2 else {})
        messages = rank_messages(row["theory"], row["value"], list(row["texts"]), self.config.max_chars)
        return {"messages": messages, "sampling_params": sampling, **row}


def _keep(row: dict) -> dict:
    """The columns that are read afterwards; errors and log-probabilities as plain strings and numbers."""
    error = row.get("__inference_error__") or ""
    return {
        **{name: row[name] for name in ("window_id", "theory", "value", "round", "folder")},
        "text_ids": [str(i) for i in row["text_ids"]],
        "reply": "" if error else str(row.get("generated_text") or ""),
        "failure": str(error)[:500],
        "tokens_in": int(row.get("num_input_tokens") or 0),
        "tokens_out": int(row.get("num_generated_tokens") or 0),
        "first_wins": _first_wins(row.get("logprobs")),
    }


def _first_wins(logprobs: list | None) -> float:
    """P(first label) among the two labels from the first token's log-probabilities; nan where they were not asked for."""
    if logprobs is None or not len(logprobs):
        return math.nan
    seen: dict[str, float] = {}
    for entry in logprobs[0].values():
        token = str(entry["decoded_token"] if isinstance(entry, dict) else entry.decoded_token).strip()
        if token in LABELS[:2]:
            seen[token] = seen.get(token, 0.0) + math.exp(entry["logprob"] if isinstance(entry, dict) else entry.logprob)
    return seen.get(LABELS[0], 0.0) / sum(seen.values()) if sum(seen.values()) else math.nan


def _read_replies(batch: pa.Table, name: str, logprobs: bool) -> pa.Table:
    orders: list[list[int] | None] = []
    errors: list[str | None] = []
    weights: list[float | None] = []
    columns = (batch[c].to_pylist() for c in ("text_ids", "reply", "failure", "first_wins"))
    for ids, reply, failure, first_wins in zip(*columns, strict=True):
        order, error, weight = None, failure or None, None
        if not failure:
            try:
                order = parse_order(reply, len(ids))
                if logprobs and len(ids) == 2 and not math.isnan(first_wins):
                    weight = first_wins if order == [0, 1] else 1 - first_wins
            except BrokenReply as broken:
                error = str(broken)
        orders.append(order)
        errors.append(error)
        weights.append(weight)
    tokens = (batch["tokens_in"].to_pylist(), batch["tokens_out"].to_pylist())
    return answers(batch, name, orders, batch["reply"].to_pylist(), errors, weights, *tokens)
