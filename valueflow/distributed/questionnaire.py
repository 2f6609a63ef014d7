"""Put a questionnaire to models under conditions of steering: one item a context, options in both orders."""

from pydantic import Field, field_validator, model_validator

from valueflow import __version__, store
from valueflow.choices.questions import READINGS, Answered, ChoicePrompt, Reading, answers
from valueflow.choices.study import ChoiceStudy, Row
from valueflow.distributed.choices import choose
from valueflow.distributed.job_config import JobConfig
from valueflow.llm.configs import LlmConfig, check_names
from valueflow.questionnaires.items import Item, read_items
from valueflow.questionnaires.scoring import (
    ItemAnswer,
    check_row,
    effect_rows,
    item_answer,
    scale_rows,
)
from valueflow.records import digest
from valueflow.steering.conditions import Condition, ConditionsConfig, conditions
from valueflow.store import Build
from valueflow.theories import expand, operational
from valueflow.vidb.candidates import ALL

NEUTRAL = "neutral_persona"


class QuestionnaireConfig(JobConfig):
    """Whose items, which models, under which personas."""

    items: str = Field(description="CSV, TSV, JSONL or Parquet with columns item, text, scale and key (+ or -)")
    options: list[str] = Field(min_length=2, max_length=11, description="texts of the options, the least agreement first")
    instruction: str = Field(description="question before every item, in the third person where the questionnaire has it so")
    models: list[LlmConfig] = Field(min_length=1)
    conditions: ConditionsConfig = Field(
        ConditionsConfig(values=["svt"], controls=["bare", NEUTRAL]),
        description="personas before each item, those of jobs.steer: regime intensity_anchor and controls, in the user turn",
    )
    readings: list[Reading] = Field(list(READINGS), min_length=1, description="how replies are read; each has calls of its own")
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of calls without a reply above which the job fails")

    @field_validator("options")
    @classmethod
    def _distinct(cls, options: list[str]) -> list[str]:
        if len(set(options)) < len(options):
            raise ValueError(f"options must differ, not {options}")
        return options

    @model_validator(mode="after")
    def _names_differ_and_personas_stand_in_the_user_turn(self) -> "QuestionnaireConfig":
        check_names(self.models)
        settings = self.conditions
        if set(settings.regimes) != {"intensity_anchor"} or settings.turns != ["user"]:
            raise ValueError(
                f"conditions: questionnaires take regime intensity_anchor in the user turn, not {settings.regimes} in "
                f"{settings.turns}"
            )
        return self


def administer(config: QuestionnaireConfig) -> ChoiceStudy:
    """Return scales, checks and effects of every model under every condition.

    Raises:
        InputError: the items, a value or a model cannot be used.
        TooManyErrors: too many calls of a model failed; a rerun continues.
    """
    items, planned = read_items(config.items), _conditions(config)
    prompts = [_prompt(config, condition, text) for condition in planned for item in items for text in item.texts]
    tables: dict[str, list[Row]] = {"scales": [], "checks": [], "effects": [], "items": []}
    builds: list[Build] = []
    for model in config.models:
        what = f"questionnaire, {model.name}"
        builds.append(choose(model, prompts, config.readings, config.root, config.max_error_share, [config.items], what))
        choices = store.read_table(builds[-1], ["prompt_id", "reading", "shares"])
        for reading in config.readings:
            about: Row = {"model": model.name, "reading": reading}
            for name, rows in _tables(config, items, planned, answers(choices, reading)).items():
                tables[name] += [about | row for row in rows]
    ids = sorted(build.build_id for build in builds)
    facts = {
        "builds": ids, "num_items": len(items), "scales": len({item.scale for item in items}),
        "paraphrases": sum(len(item.texts) for item in items), "conditions": len(planned),
    }  # fmt: skip
    return ChoiceStudy(digest(__version__, ids, len(planned)), config.root, config.public(), tables, facts)


def _conditions(config: QuestionnaireConfig) -> list[Condition]:
    settings = config.conditions
    values = list(operational()) if settings.values == ALL else expand(settings.values)
    return conditions(settings, values, [], [])


def _prompt(config: QuestionnaireConfig, condition: Condition, text: str) -> ChoicePrompt:
    return ChoicePrompt(condition.persona, f"{config.instruction} {text}".strip(), tuple(config.options))


def _tables(
    config: QuestionnaireConfig, items: list[Item], planned: list[Condition], answered: dict[str, Answered]
) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {"scales": [], "checks": [], "effects": [], "items": []}
    options = len(config.options)
    of_conditions = {
        condition: {
            item.item_id: item_answer([answered[_prompt(config, condition, text).prompt_id] for text in item.texts], options)
            for item in items
        }
        for condition in planned
    }
    neutral: dict[int, dict[str, ItemAnswer]] = {
        condition.variant: of for condition, of in of_conditions.items() if condition.condition == NEUTRAL
    }
    for condition, of in of_conditions.items():
        about: Row = {
            "condition": condition.condition, "value": "|".join(condition.values),
            "level": condition.levels[0] if condition.levels else 0, "variant": condition.variant,
        }  # fmt: skip
        tables["scales"] += [about | row for row in scale_rows(items, of, options)]
        tables["checks"].append(about | check_row(items, of, options))
        tables["items"] += [
            about | {"item": i.item_id, "scale": i.scale, "key": i.key, **of[i.item_id]._asdict()} for i in items
        ]
        base = neutral.get(condition.variant) or next(iter(neutral.values()), None)
        if base is not None and condition.condition == "value":
            tables["effects"] += [about | row for row in effect_rows(items, of, base, options)]
    return tables
