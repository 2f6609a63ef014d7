"""Settings of the job that scores responses."""

from typing import Literal

from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.distributed.audit import Policy
from valueflow.distributed.cluster import ClusterConfig
from valueflow.evaluation.scoring import EvaluatorConfig
from valueflow.judging.configs import JudgeConfig, check_windows
from valueflow.vidb.candidates import ALL


class EvaluateConfig(Config):
    """Which responses are scored, against which version, by which judge."""

    root: str = Field(description="folder or URL under which all tables live")
    responses: str = Field("", description="CSV, JSONL or Parquet with columns query, dataset, response")
    max_responses: int | None = Field(None, ge=1, description="read only so many rows, the first ones of all files")
    vidb: str = Field("current", description="version id, or current")
    values: list[str] = Field(ALL, description="values and theories by any spelling, or ['all'] of the version")
    pairs: Literal["all", "about"] = Field(
        "all", description="score each response on all values, or on those that its column about names, joined by |"
    )
    evaluator: EvaluatorConfig = EvaluatorConfig()
    judge: JudgeConfig | None = Field(None, description="not needed with rankings")
    rankings: str = Field(
        "", description="score saved rankings again without a judge: a build id (e-…) under root, or an official rankings CSV"
    )
    min_relevance: float | None = Field(
        None, ge=0, le=1, description="give no intensity to a response whose relevance for a value is lower; null: to all"
    )
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of failed windows above which the job fails")
    audit: Policy = Field("refuse", description="refuse a judge that failed its audit, require a passed one, or ignore")
    dry_run: bool = Field(False, description="print what the judge's calls will take, call nothing")
    chunk: int = Field(500, ge=1, description="responses planned and scored together by one task")
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _judge_or_rankings(self) -> "EvaluateConfig":
        if (self.judge is None) != bool(self.rankings):
            raise ValueError("give either judge (to rank) or rankings (to score saved answers), not both and not neither")
        if bool(self.responses) == bool(self.rankings):
            raise ValueError("responses (a CSV, JSONL or Parquet file with columns query, dataset, response) goes with judge")
        if self.judge:
            check_windows(self.judge, self.evaluator.k, "evaluator")
        return self
