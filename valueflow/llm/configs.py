"""Settings of the language models that can be called: vLLM engines and OpenAI-compatible endpoints."""

from typing import Literal

from pydantic import Field

from valueflow.config import Config


class Price(Config):
    """What calls cost; the currency is whatever the numbers are in."""

    tokens_in: float = Field(0.0, ge=0, description="per million prompt tokens")
    tokens_out: float = Field(0.0, ge=0, description="per million generated tokens")
    hour: float = Field(0.0, ge=0, description="per hour and engine, for engines that are rented by time")
    currency: str = "USD"

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Return the price of some tokens; hours are not in it."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


class VllmModel(Config):
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


class EndpointModel(Config):
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


LlmModel = VllmModel | EndpointModel
