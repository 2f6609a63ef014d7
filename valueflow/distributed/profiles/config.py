"""Settings of the job that makes profiles of units."""

from importlib import resources
from typing import Literal

from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.distributed.embed import EmbedderConfig
from valueflow.distributed.extract import NeighborsConfig
from valueflow.distributed.job_config import JobConfig, LabeledTextsConfig
from valueflow.distributed.steering.generate_config import SteerConfig, check_models
from valueflow.llm.configs import Sampling
from valueflow.profiles.estimate import EstimateConfig
from valueflow.profiles.unit_texts import UnitColumns
from valueflow.steering.conditions import ConditionsConfig
from valueflow.steering.generation import GeneratorConfig
from valueflow.vidb.candidates import ALL

SAMPLE_QUERIES = str(resources.files("valueflow") / "samples" / "queries.csv")


class RelevanceConfig(LabeledTextsConfig, NeighborsConfig):
    """How far a text concerns a value, in mode fast."""

    by: Literal["head", "hives", "none"] = Field(
        "head",
        description="head: the encoder judge's, which ships; hives: confidence of the nodes that jobs.extract would find, by "
        "labelled texts; none: every text counts",
    )


class PageConfig(Config):
    """What the page shows."""

    units: list[str] = Field([], description="units with a section of their own, at most 12; []: the first ones by name")
    reference: str = Field("", description="unit in grey on every circle; '': the mean of all units")


class ProfileConfig(JobConfig):
    """How texts are scored, and what counts."""

    vidb: str = Field("current", description="version id, or current")
    values: list[str] = Field(ALL, description="values and theories by any spelling, or ['all'] of the version")
    evaluation: str = Field(
        "", description="build id of evaluations of the same texts by jobs.evaluate (mode ranked); '': mode fast"
    )
    encoder: EmbedderConfig = EmbedderConfig()
    relevance: RelevanceConfig = RelevanceConfig()
    estimate: EstimateConfig = EstimateConfig()
    page: PageConfig = PageConfig()

    @model_validator(mode="after")
    def _few_units_on_the_page(self) -> "ProfileConfig":
        if len(self.page.units) > 12:
            raise ValueError(f"page.units names {len(self.page.units)} units; at most 12 have a section of their own")
        return self


class BuildProfileConfig(ProfileConfig):
    """Whose texts, how they are scored, and what counts."""

    texts: str = Field(description="CSV, TSV, JSONL or Parquet with a column of texts and one of units; globs too")
    columns: UnitColumns = UnitColumns()


class ProfileModelConfig(ProfileConfig):
    """Whose replies: those of models to queries without any persona, generated here or by jobs.steer."""

    models: list[GeneratorConfig] = Field(
        [], description="they answer the queries first, one after the other; []: replies that exist (generations)"
    )
    queries: list[str] = Field(
        [SAMPLE_QUERIES],
        min_length=1,
        description="CSV, TSV, JSONL or Parquet files or globs with a column query; those that ship",
    )
    max_queries: int | None = Field(None, ge=1, description="queries of each dataset, its first ones; null: all")
    replicates: int = Field(1, ge=1, description="replies of a model to a query")
    sampling: Sampling = Sampling()
    instruction: str = Field(ConditionsConfig().instruction, description="after every query; '' for none")
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of calls without a reply above which the job fails")
    dry_run: bool = Field(False, description="print calls, tokens and money for each of the models, call nothing")
    generations: list[str] = Field(
        [], description="without models: build ids of generations, one or more a model; []: those of the newest job"
    )
    outcomes: list[Literal["answer", "hedge", "refusal"]] = Field(
        ["answer", "hedge"], min_length=1, description="replies that count; others are counted and left out"
    )

    @model_validator(mode="after")
    def _one_source_of_replies(self) -> "ProfileModelConfig":
        check_models(self.models, self.sampling)
        if self.models and self.generations:
            raise ValueError(
                f"models ({len(self.models)}) answer first, and generations ({len(self.generations)}) are replies that exist; "
                "leave one of them out"
            )
        if self.dry_run and not self.models:
            raise ValueError("dry_run (true) counts the calls of models, and models is []; name them")
        return self

    def steering(self) -> SteerConfig:
        """Return the settings by which `jobs.steer` puts the queries to the models without any persona, and nothing else."""
        conditions = ConditionsConfig(regimes=[], controls=["bare"], values=self.values, instruction=self.instruction)
        return SteerConfig(
            root=self.root, cluster=self.cluster, queries=self.queries, max_queries=self.max_queries, conditions=conditions,
            models=self.models, replicates=self.replicates, sampling=self.sampling, max_error_share=self.max_error_share,
            dry_run=self.dry_run,
        )  # fmt: skip
