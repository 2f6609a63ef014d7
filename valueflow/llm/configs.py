"""Settings of the LLMs that can be called: vLLM engines and OpenAI-compatible endpoints."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from valueflow.config import Config, Resources
from valueflow.errors import check_no_password

# Settings of an LLM that change how it is called, how fast it answers or what else it is asked, but no answer; they are in no
# fingerprint.
RESOURCES = {
    "name", "batch_size", "num_cpus", "num_engines", "max_engines", "cpus_per_engine", "gpus_per_engine", "env", "cache",
    "price", "budget", "key_env", "relevance", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "retries",
    "patience", "url",
}  # fmt: skip


Answer = Literal["letter", "logprobs", "rating"]


class Price(Config):
    """Price of calls, in any currency."""

    tokens_in: float = Field(0.0, ge=0, description="per million prompt tokens")
    tokens_out: float = Field(0.0, ge=0, description="per million generated tokens")
    hour: float = Field(0.0, ge=0, description="per hour and engine, for engines rented by time")
    currency: str = "USD"

    def of(self, tokens_in: int, tokens_out: int, engine_hours: float = 0.0) -> float:
        """Return the price of tokens and of hours of engines."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6 + engine_hours * self.hour


class Budget(Config):
    """Spending limit of a build for one judge, earlier runs of the same build included; null: no limit."""

    tokens: int | None = Field(None, ge=1, description="prompt and generated tokens")
    money: float | None = Field(None, gt=0, description="in the currency of price; its hours count as money")
    gpu_hours: float | None = Field(
        None, gt=0, description="of the GPUs of the judge's actors or engines, while its stages wait for answers",
        exclude_if=lambda hours: hours is None,
    )  # fmt: skip


class Sampling(Config):
    """How a free text is sampled. All fields are sent: a server fills what is unset with the model's own defaults."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1, description="1: no limit")
    top_k: int = Field(0, ge=0, description="0: no limit")
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, description="1: none")
    stop: list[str] = Field([], description="texts that end a reply")
    seed: int = Field(0, ge=0, description="of the job; each call has one of its own, made from it and the id of its row")
    max_tokens: int = Field(150, ge=1, description="of a reply")


class LlmModel(Config):
    """Settings that every LLM has; `AnyLlm` is the union of the kinds, and the only place that lists them."""

    name: str = Field(min_length=1)
    model: str
    revision: str = ""
    logprobs: bool = Field(False, description="k=2: use the probability of the choice as a weighted preference")
    relevance: bool = Field(
        False, description="as a judge of responses: also ask, once per text and value, whether the text concerns the value"
    )
    answer: Answer = Field(
        "letter",
        description="how windows are judged: letter: the letters that the LLM writes; logprobs: windows of two in both orders, "
        "by the difference of the letters' log-probabilities; rating: each text once, by the expected rating",
        exclude_if=lambda answer: answer == "letter",  # the default is in no fingerprint either
    )
    chat_template_args: dict = Field(
        {},
        description="arguments of the model's chat template, for example {enable_thinking: false}",
        exclude_if=lambda args: not args,  # an empty value is in no fingerprint, so that ids from before the setting hold
    )
    max_chars: int = Field(2000, ge=50, description="longer texts are truncated, with an ellipsis, and counted as `truncated`")
    batch_size: int = Field(64, ge=1, description="questions that are committed together")
    price: Price = Price()
    cache: bool = Field(True, description="keep every reply under <root>/cache and reuse those of earlier jobs")

    @model_validator(mode="after")
    def _one_way_to_answer(self) -> "LlmModel":
        if self.logprobs and self.answer != "letter":
            raise ValueError(
                f"logprobs (true) is for answer: letter; answer: {self.answer} reads log-probabilities, leave it out"
            )
        return self

    @property
    def spending_limit(self) -> Budget:
        """Limit on what a build may take."""
        return Budget()

    @property
    def hidden_tokens(self) -> int:
        """Tokens generated per call before the answer, by models that think first."""
        return 0

    @property
    def rented_engines(self) -> int:
        """Number of engines that are billed by the hour."""
        return 0

    @property
    def most_engines(self) -> int:
        """Largest number of engines of a job."""
        return 0

    @property
    def most_gpus(self) -> float:
        """Largest number of GPUs of a job."""
        return 0.0


class VllmModel(LlmModel):
    """An LLM in vLLM engines, one per actor, on GPUs or CPUs."""

    kind: Literal["vllm"] = "vllm"
    model: str = Field(description="hub name, folder, or package://… (a packaged GGUF is converted once)")
    engine: dict = Field({}, description="vLLM engine arguments, passed on unchanged")
    temperature: float = Field(0.0, ge=0)
    num_engines: int = Field(1, ge=1)
    max_engines: int | None = Field(None, ge=1, description="engines while there is work for more; null: num_engines")
    cpus_per_engine: float = Field(1, ge=0)
    gpus_per_engine: float = Field(1, ge=0)
    batch_size: int = Field(64, ge=1, description="windows per batch; also the most that a crash can cost")
    env: dict[str, str] = Field({}, description="environment of the engine, for example VLLM_CPU_KVCACHE_SPACE")
    extra_tokens: int = Field(
        0, ge=0, description="added to the length of free texts, for models that think before they answer",
        exclude_if=lambda tokens: tokens == 0,  # the default is in no fingerprint, so that ids from before the setting hold
    )  # fmt: skip
    budget: Budget = Field(Budget(), exclude_if=lambda budget: budget == Budget())

    @property
    def spending_limit(self) -> Budget:
        """Limit on the tokens, money and GPU hours of a build."""
        return self.budget

    @property
    def hidden_tokens(self) -> int:
        """Tokens generated per free text before the answer."""
        return self.extra_tokens

    @property
    def rented_engines(self) -> int:
        """Number of engines that are billed by the hour."""
        return self.num_engines

    @property
    def most_engines(self) -> int:
        """Largest number of engines of a job."""
        return max(self.num_engines, self.max_engines or 0)

    @property
    def most_gpus(self) -> float:
        """Largest number of GPUs of a job."""
        return self.most_engines * self.gpus_per_engine

    @property
    def most_resources(self) -> Resources:
        """Resources of a job whose engines have grown to their largest number."""
        return Resources(self.most_engines * self.cpus_per_engine + 2, self.most_gpus)

    @property
    def resources(self) -> Resources:
        """Resources of a job: all engines, and two CPUs for the tasks around them."""
        return Resources(self.num_engines * self.cpus_per_engine + 2, self.num_engines * self.gpus_per_engine)

    @property
    def replica_resources(self) -> Resources:
        """Resources of one served replica."""
        return Resources(self.cpus_per_engine, self.gpus_per_engine)


class EndpointModel(LlmModel):
    """An LLM behind an OpenAI-compatible chat-completions URL."""

    kind: Literal["openai"] = "openai"
    url: str = Field("https://api.openai.com/v1", pattern=r"^https?://", description="base URL, without /chat/completions")
    model: str = Field(min_length=1)
    revision: str = Field("", description="any label that distinguishes two models of one name; part of the cache key")
    key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the API key; '' for none")
    structured: Literal["json_schema", "choice", "none"] = Field(
        "json_schema",
        description="how the server constrains answers: OpenAI's response_format (rules out logprobs), vLLM's choice, or none",
    )
    temperature: float | None = Field(0.0, ge=0, description="null for models that accept no temperature")
    logprobs: bool = Field(False, description="k=2: weighted preferences; ruled out by structured: json_schema")
    extra: dict = Field({}, description="more fields of the request body, passed on unchanged")
    refused_fields: list[str] = Field(
        [], description="sampling fields of free texts that the server does not take: they are not sent; jobs/steer finds them",
        exclude_if=lambda fields: not fields,
    )  # fmt: skip
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_tokens: int = Field(0, ge=0, description="added to the answer's length, for models that think before they answer")
    concurrency: int = Field(64, ge=1, description="maximum number of calls in flight; fewer where the server answers 429")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(60.0, gt=0, description="seconds for one answer, connection included")
    retries: int = Field(5, ge=0, description="after errors that cost nothing: no connection, 5xx; 429 has no such limit")
    patience: float = Field(600.0, gt=0, description="seconds that one call may wait on 429 in all")
    budget: Budget = Budget()
    num_cpus: float = Field(0.5, ge=0, description="of the actor, or the served replica, that calls the URL")

    @model_validator(mode="after")
    def _with_logprobs(self) -> "EndpointModel":
        if self.answer != "letter" and self.structured == "json_schema":
            raise ValueError(
                f"answer: {self.answer} reads log-probabilities, which structured: json_schema rules out; set structured to "
                "choice (vLLM) or none"
            )
        if self.logprobs and self.structured == "json_schema":
            raise ValueError(
                "logprobs (true) would get no weights: structured: json_schema (the default) rules out log-probabilities; set "
                "structured to choice (vLLM) or none, or leave logprobs out"
            )
        return self

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        check_no_password(url)
        return url

    @property
    def spending_limit(self) -> Budget:
        """Limit on the tokens and money of a build."""
        return self.budget

    @property
    def hidden_tokens(self) -> int:
        """Tokens generated per call before the answer, by models that think first."""
        return self.extra_tokens

    @property
    def resources(self) -> Resources:
        """Resources of a job: the calling actor, and one CPU for the tasks around it."""
        return Resources(self.num_cpus + 1)

    @property
    def most_resources(self) -> Resources:
        """The same; there is one actor."""
        return self.resources

    @property
    def replica_resources(self) -> Resources:
        """Resources of one served replica."""
        return Resources(self.num_cpus)


AnyLlm = VllmModel | EndpointModel
LlmConfig = Annotated[AnyLlm, Field(discriminator="kind")]


def check_names(models: Sequence[LlmModel]) -> None:
    """Raise ValueError where two models of a job have one name, by which their results are told apart."""
    names = [model.name for model in models]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"models: names must differ; {duplicates[0]!r} names {names.count(duplicates[0])} models")
