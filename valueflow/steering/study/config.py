"""Settings of a steerability study."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from valueflow.config import Config
from valueflow.steering.generation import LATEST
from valueflow.steering.study.planner import PlanConfig


class DetectorConfig(Config):
    """How often the detector of outcomes is right about non-answers, counted on responses that a person has labelled."""

    sensitivity: tuple[int, int] = Field(description="of labelled non-answers, how many it recognizes, and how many there are")
    specificity: tuple[int, int] = Field(description="of labelled answers, how many it leaves, and how many there are")

    @field_validator("sensitivity", "specificity")
    @classmethod
    def _counts(cls, counts: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= counts[0] <= counts[1] or not counts[1]:
            raise ValueError(f"{list(counts)} are no counts: the first of the two is at most the second, which is above 0")
        return counts


class StudyConfig(Config):
    """Which builds are studied, and the rules of the verdicts: set before the results are seen."""

    root: str = Field(description="folder or URL under which all tables live")
    generations: list[str] = Field(
        [LATEST], min_length=1, description="builds of generations; latest: those of the newest plan"
    )
    evaluations: list[str] = Field(
        [LATEST],
        min_length=1,
        description="builds of evaluations of these responses; several judges are reported beside each other",
    )
    cheap_evaluations: list[str] = Field(
        [], description="builds by a cheaper judge of all responses on all values; the judge's own scores correct them"
    )
    score: Literal["intensity", "judge_intensity"] = Field("intensity", description="people's intensity, or the judge's own")
    margin: float = Field(1.0, gt=0, description="smallest effect of interest, points")
    other_margins: list[float] = Field([0.5, 2.0], description="margins for which the types are reported too")
    composition_margin: float = Field(0.5, gt=0, description="smallest interaction of interest, standard deviations")
    regime_edges: list[float] = Field([0.2, 0.5], description="Cliff's delta between the regimes of models, increasing")
    regime_labels: list[str] = Field(["hardly steerable", "partly steerable", "steerable"], description="one more than edges")
    non_answers: list[Literal["hedge", "refusal", "broken"]] = Field(
        ["refusal", "broken"], description="outcomes that are no answer"
    )
    detector: DetectorConfig | None = Field(
        None, description="of a hand-labelled sample: shares of non-answers are corrected for the detector's errors; null: not"
    )
    reach_quantile: float = Field(0.975, gt=0.5, le=1, description="quantile of the anchors that is the end of the scale")
    draws: int = Field(1000, ge=100, description="bootstrap draws of the queries")
    anchor_draws: int = Field(
        20, ge=0, le=200, description="draws of the anchors over the saved rankings; 0: anchors are exact"
    )
    max_missing: float = Field(0.05, ge=0, le=1, description="share of responses without a score above which the job fails")
    audit: Literal["refuse", "ignore"] = Field("refuse", description="evaluations by a judge that failed its audit")
    seed: int = 0
    plan: bool = Field(False, description="print what a study of the size `planned` takes and finds; read nothing")
    planned: PlanConfig = PlanConfig()

    @model_validator(mode="after")
    def _labels(self) -> "StudyConfig":
        if len(self.regime_labels) != len(self.regime_edges) + 1 or sorted(self.regime_edges) != self.regime_edges:
            raise ValueError(
                f"regime_labels ({self.regime_labels}) must be one more than regime_edges ({self.regime_edges}), which increase"
            )
        return self
