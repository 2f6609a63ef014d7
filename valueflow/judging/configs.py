"""Settings of all kinds of judges, as plain data; the kinds themselves are in `judging.kinds`."""

from typing import Annotated, Literal

from pydantic import Field

from valueflow.config import Config, Resources
from valueflow.llm.configs import Budget, EndpointModel, LlmModel, Price, VllmModel
from valueflow.models import MINILM


class ActorJudge(Config):
    """What judges with worker classes, which run in actors, have in common."""

    num_actors: int = Field(1, ge=1)
    max_actors: int | None = Field(None, ge=1, description="actors while there is work for more of them; null: num_actors")
    num_cpus: float = Field(1, ge=0, description="per actor or served replica")
    price: Price | None = Field(None, description="of an actor's hour", exclude_if=lambda price: price is None)
    budget: Budget = Field(Budget(), exclude_if=lambda budget: budget == Budget())

    @property
    def replica_resources(self) -> Resources:
        """Resources of one actor or served replica."""
        return Resources(self.num_cpus)

    @property
    def resources(self) -> Resources:
        """Resources of a job: the actors that it starts with."""
        return self._of(self.num_actors)

    @property
    def most_resources(self) -> Resources:
        """Resources of a job whose actors have grown to their largest number."""
        return self._of(self.most_actors)

    @property
    def most_actors(self) -> int:
        """Largest number of actors of a job."""
        return max(self.num_actors, self.max_actors or 0)

    @property
    def num_engines(self) -> int:
        """The actors that a job starts with, by the name that LLMs have for them."""
        return self.num_actors

    @property
    def most_engines(self) -> int:
        """Largest number of actors of a job, by that name."""
        return self.most_actors

    @property
    def most_gpus(self) -> float:
        """Largest number of GPUs of a job."""
        return self.most_resources.gpus

    @property
    def spending_limit(self) -> Budget:
        """Limit on the money and GPU hours of a build."""
        return self.budget

    def _of(self, actors: int) -> Resources:
        cpus, gpus = self.replica_resources
        return Resources(actors * cpus, actors * gpus)


class EncoderJudge(ActorJudge):
    """A judge that orders texts by a value embedding, without an LLM, from the exemplars in theories/exemplars.jsonl."""

    kind: Literal["encoder"] = "encoder"
    name: str = "encoder"
    model: str = Field(MINILM, description="hub name, folder or its URL, or package://… of a transformers encoder")
    bag: int | None = Field(
        None, description="learn from a bootstrap resample of the exemplars with this seed, so that members of a panel differ"
    )
    batch_size: int = Field(1024, ge=1, description="windows per call")
    num_gpus: float = Field(0, ge=0, description="per actor or served replica")

    @property
    def replica_resources(self) -> Resources:
        """Resources of one actor or served replica."""
        return Resources(self.num_cpus, self.num_gpus)


class SimulatedJudge(ActorJudge):
    """A judge with a known truth, for tests, benchmarks and power studies.

    People's theta of a text is a hash of its id, distributed as N(0, spread²); the judge's has an error of its own besides.
    """

    kind: Literal["simulated"] = "simulated"
    name: str = "simulated"
    spread: float = Field(3.0, gt=0, description="standard deviation of the true theta, nats")
    content_error: float = Field(0.0, ge=0, description="standard deviation of the judge's fixed error of each text, nats")
    sharpness: float = Field(1.0, ge=0, description="beta; 0 answers at random")
    concern_share: float = Field(
        1.0, ge=0, le=1, description="share of the texts that concern a value; people's theta of the others is 0",
        exclude_if=lambda share: share == 1,  # the default is in no fingerprint, so that ids from before the setting hold
    )  # fmt: skip
    relevance_accuracy: float | None = Field(
        None, ge=0, le=1, description="share of the texts of which the judge says rightly whether they concern a value; null: "
        "it does not say", exclude_if=lambda accuracy: accuracy is None,
    )  # fmt: skip
    position_effect: list[float] = Field([], description="gamma of each position, nats; 0 for positions that are not listed")
    broken_share: float = Field(0.0, ge=0, le=1, description="share of windows or ballots answered with prose")
    accuracy: float = Field(0.8, ge=0, le=1, description="as a voter: probability of the true choice")
    seed: int = 0
    seconds_per_batch: float = Field(0.0, ge=0, description="sleep, to test interruption")
    deadly_share: float = Field(0.0, ge=0, le=1, description="share of windows that end the process of the worker, for tests")
    batch_size: int = Field(4096, ge=1)


# Judges with worker classes, which run in actors; the other kinds are LLMs.
WorkerJudge = EncoderJudge | SimulatedJudge
AnyJudge = WorkerJudge | VllmModel | EndpointModel
JudgeConfig = Annotated[AnyJudge, Field(discriminator="kind")]


def check_windows(judge: AnyJudge, k: int, where: str, mirrored: bool = False) -> None:
    """Check that a judge can answer windows of k texts; `where` is the config that holds k and mirrored.

    Raises:
        ValueError: it reads log-probabilities of pairs and k is not 2, or mirrored windows would count its answers twice.
    """
    if not isinstance(judge, LlmModel) or judge.answer == "letter":
        return
    if judge.answer == "logprobs" and k != 2:
        raise ValueError(f"judge {judge.name!r} with answer: logprobs judges windows of 2, {where}.k is {k}; set it to 2")
    if mirrored:
        raise ValueError(
            f"judge {judge.name!r} with answer: {judge.answer} gives mirrored windows the same answer, which would count "
            f"twice; set {where}.mirrored to false"
        )
