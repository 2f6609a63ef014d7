"""What a judge is, as plain data: the kinds, their settings, and what of them changes an answer."""

from typing import Annotated, Literal

from pydantic import Field

from valueflow.config import Config
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.models import MINILM


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


AnyJudge = EncoderJudge | SimulatedJudge | VllmModel | EndpointModel
JudgeConfig = Annotated[AnyJudge, Field(discriminator="kind")]
