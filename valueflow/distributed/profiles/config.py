"""Settings of the job that makes profiles of units."""

from typing import Literal

from pydantic import Field, model_validator

from valueflow.config import Config
from valueflow.distributed.embed import EmbedderConfig
from valueflow.distributed.extract import NeighborsConfig
from valueflow.distributed.job_config import JobConfig, LabeledTextsConfig
from valueflow.profiles.estimate import EstimateConfig
from valueflow.profiles.unit_texts import UnitColumns
from valueflow.vidb.candidates import ALL


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
    """Whose replies: those of models to queries without any persona, as jobs.steer has generated them."""

    generations: list[str] = Field([], description="build ids of generations, one or more a model; []: those of the newest job")
    outcomes: list[Literal["answer", "hedge", "refusal"]] = Field(
        ["answer", "hedge"], min_length=1, description="replies that count; others are counted and left out"
    )
