"""Settings of the job that steers models."""

from collections.abc import Sequence

from pydantic import Field, field_validator, model_validator

from valueflow.distributed.job_config import JobConfig
from valueflow.llm.configs import LlmConfig, Sampling, check_names
from valueflow.steering.conditions import ConditionsConfig
from valueflow.steering.generation import AnyGenerator, GeneratorConfig


def check_models(models: Sequence[AnyGenerator], sampling: Sampling) -> None:
    """Check that models have names of their own and leave the temperature to the job.

    Raises:
        ValueError: two models have one name, or a model has a temperature.
    """
    check_names(models)
    for model in models:
        if "temperature" in model.model_fields_set:
            raise ValueError(
                f"models: {model.name!r} has a temperature, which judges use; all models of a job share sampling.temperature "
                f"({sampling.temperature:g})"
            )


class SteerConfig(JobConfig):
    """Which queries are put to which models under which conditions."""

    queries: list[str] = Field(min_length=1, description="CSV, TSV, JSONL or Parquet files or globs with a column query")
    max_queries: int | None = Field(None, ge=1, description="queries of each dataset, its first ones; null: all")
    conditions: ConditionsConfig = ConditionsConfig()
    models: list[GeneratorConfig] = Field(min_length=1, description="one after the other, each with a build of its own")
    user_turn_only: list[str] = Field(
        [], description="names of models whose chat template has no system role: they get no conditions with turn system"
    )
    replicates: int = Field(1, ge=1, description="samples of each prompt")
    sampling: Sampling = Sampling()
    outcome_judge: LlmConfig | None = Field(
        None, description="an LLM that votes on the outcome of every reply, one call each; null: rules alone"
    )
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of calls without a reply above which the job fails")
    tokens_per_second: dict[str, float] = Field(
        {}, description="generated tokens per second of one engine, or of an endpoint, by name of the model; for the dry run"
    )
    dry_run: bool = Field(False, description="print calls, tokens, hours and money for each model, call nothing")

    @field_validator("queries", mode="before")
    @classmethod
    def _list(cls, queries: object) -> object:
        return [queries] if isinstance(queries, str) else queries

    @model_validator(mode="after")
    def _known_names(self) -> "SteerConfig":
        check_models(self.models, self.sampling)
        names = [model.name for model in self.models]
        for setting, named in (("user_turn_only", self.user_turn_only), ("tokens_per_second", self.tokens_per_second)):
            if unknown := sorted(set(named) - set(names)):
                raise ValueError(f"{setting}: {unknown[0]!r} is the name of no model; models: {', '.join(names)}")
        return self
