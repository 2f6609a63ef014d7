"""OpinionQA with a model: profiles of groups from one side of the questions, then questions of the other side by each arm."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
from pydantic import Field, model_validator

from valueflow import __version__, store
from valueflow.choices.questions import READINGS, Answered, ChoicePrompt, Reading, answers, check_readings
from valueflow.choices.study import ChoiceStudy, Row
from valueflow.config import Resources
from valueflow.distributed.choices import choose
from valueflow.distributed.cluster import result_of
from valueflow.distributed.profiles.config import ProfileConfig
from valueflow.distributed.profiles.run import profile_texts, relevance_of
from valueflow.errors import InputError
from valueflow.llm.configs import LlmConfig, check_names
from valueflow.profiles.export import prompt_text
from valueflow.profiles.opinionqa.arms import ARMS, POPULATION, Arm, letter_echoes, shuffled, statement
from valueflow.profiles.opinionqa.items import Item, by_question
from valueflow.profiles.opinionqa.sides import Sides, whole_questions
from valueflow.profiles.opinionqa.study import (
    WITH_PROFILE,
    ArmAnswers,
    Told,
    adaptive,
    arm_answers,
    arm_rows,
    baseline_rows,
    calibration_rows,
    difference_rows,
    prompt,
    put_arms,
    tuned_threshold,
)
from valueflow.profiles.table import as_arrays
from valueflow.profiles.unit_texts import store_unit_texts
from valueflow.records import SCHEMAS, digest, text_id
from valueflow.store import Build, UnitTextsDetails

TUNED_ARMS: tuple[Arm, Arm] = ("default", "profile")  # that adaptive chooses from, by a threshold of the validation side


class OpinionQaConfig(ProfileConfig):
    """The file and its split; which models answer, and what they are told of a group."""

    root: str = Field("", description="folder or URL of all tables; needed where models answer")
    items: str = Field(description="JSON list of items in the public format")
    seed: int = Field(0, ge=0, description="of the split by battery, of the items that are drawn and of the bootstrap")
    models: list[LlmConfig] = Field([], description="each answers the same questions; []: damage and baselines only")
    arms: list[Arm] = Field(list(ARMS), min_length=1, description="what a model is told of a group before a question")
    readings: list[Reading] = Field(list(READINGS), min_length=1, description="how replies are read; each has calls of its own")
    max_items: int | None = Field(None, ge=1, description="items of the test side: questions drawn by lot; null: all")
    max_error_share: float = Field(0.05, ge=0, le=1, description="share of calls without a reply above which the job fails")

    @model_validator(mode="after")
    def _models_have_a_root(self) -> "OpinionQaConfig":
        if self.models and not self.root:
            raise ValueError("models answer into tables under root, which is not set")
        check_names(self.models)
        return self


class _Asked(NamedTuple):
    """The items whose prompts are put: of the test side, damaged ones too, and of the validation side, to tune adaptive."""

    test: list[Item]
    validation: list[Item]


def ask(config: OpinionQaConfig, sides: Sides) -> ChoiceStudy:
    """Let every model answer, and return the measures of all arms beside the baselines.

    Raises:
        InputError: a value or a model cannot be used, or a group has no profile.
        TooManyErrors: too many calls of a model failed; a rerun continues.
    """
    for model in config.models:
        check_readings(model, config.readings)
    asked = _asked(sides, config)
    built = _profiles(config, sides) if {*config.arms} & {*WITH_PROFILE, "irrelevant text"} else None
    told = _told(config, built, asked.test)
    relevance = _relevance(config, asked) if "adaptive" in config.arms else {}
    prompts = _prompts(config, asked, told)
    inputs: list[Build | str] = [config.items, *([built] if built else [])]
    builds = {}
    for model in config.models:
        what = f"opinionqa, {model.name}"
        builds[model.name] = choose(model, prompts, config.readings, config.root, config.max_error_share, inputs, what)
    tables, thresholds = _tables(config, sides, asked, told, relevance, builds)
    ids = sorted(build.build_id for build in builds.values())
    study_id = digest(__version__, ids, config.seed, list(config.arms), config.max_items)
    facts = _facts(sides, asked) | {
        "builds": ids, "profiles": built.build_id if built else "", "thresholds": thresholds, "prompts": len(set(prompts)),
    }  # fmt: skip
    return ChoiceStudy(study_id, config.root, config.public(), tables, facts)


def _tables(
    config: OpinionQaConfig, sides: Sides, asked: _Asked, told: Told, relevance: dict[str, float], builds: dict[str, Build]
) -> tuple[dict[str, list[Row]], dict[str, float]]:  # fmt: skip
    """The tables of a study, and the threshold of adaptive by model and reading."""
    tables: dict[str, list[Row]] = {"measures": [], "differences": [], "calibration": []}
    thresholds: dict[str, float] = {}
    for name, build in builds.items():
        choices = store.read_table(build, ["prompt_id", "reading", "shares"])
        for reading in config.readings:
            of, threshold = _answers(config, asked, told, relevance, answers(choices, reading))
            if threshold is not None:
                thresholds[f"{name}, {reading}"] = threshold
            about: Row = {"model": name, "reading": reading}
            tables["measures"] += [about | row for row in arm_rows(of, asked.test, sides, config.seed)]
            tables["differences"] += [about | row for row in difference_rows(of, asked.test, sides, config.seed)]
            tables["calibration"] += [about | row for row in calibration_rows(of, asked.test, sides)]
    nothing: Row = {"model": "none", "reading": ""}
    tables["baselines"] = [nothing | row for row in baseline_rows(sides.without_damage(asked.test), sides, config.seed)]
    tables["damaged"] = _damaged(sides)
    tables["told"] = [{"group": group, "text": text} for group, text in sorted(told.profiles.items())]
    return tables, thresholds


def _facts(sides: Sides, asked: _Asked) -> dict[str, Any]:
    clean = sides.without_damage(asked.test)
    return {
        "num_items": len(asked.test), "clean": len(clean), "validation": len(asked.validation),
        "questions": len(by_question(clean)), "batteries": len({sides.battery_of[item.question_id] for item in clean}),
        "groups": len({f"{item.attribute}_{item.group}" for item in clean}),
        "near_ties": float(np.mean([item.is_near_tie for item in clean])), "duplicates": len(sides.items.duplicates),
    }  # fmt: skip


def _asked(sides: Sides, config: OpinionQaConfig) -> _Asked:
    several = [item for item in sides.of("test") if len(item.options) > 1]
    comparable = {item.question_id for item in sides.comparable("test")}
    test = [i for i in several if i.question_id in comparable or i.question_id in sides.items.damaged]
    test = whole_questions(test, config.max_items, config.seed)
    if not any(item.question_id in comparable for item in test):
        raise InputError(f"{config.items}: the {len(test)} items that were drawn are all of damaged questions; raise max_items")
    if "adaptive" not in config.arms:
        return _Asked(test, [])
    return _Asked(test, whole_questions(sides.clean("validation"), config.max_items, config.seed))


def _profiles(config: OpinionQaConfig, sides: Sides) -> Build:
    """The profiles of groups and of the population, from what they would say by their answers on the profile side."""
    task = ray.remote(group_texts).options(num_cpus=1).remote(sides.clean("profile"), sides.battery_of, config.root)
    texts = result_of("profiles of groups", task, Resources(1))
    return profile_texts(config, texts)


def group_texts(items: list[Item], battery_of: dict[str, str], root: str) -> Build:
    """Store statements with the share of each group that made them as texts of units; the battery is the thread.

    The population is one more unit: the mean of the groups that answered a question.
    """
    rows = []
    for question, of in by_question(items).items():
        shares = {f"{item.attribute}_{item.group}": np.array(item.gold) for item in of}
        shares[POPULATION] = np.mean(list(shares.values()), 0)
        for option in range(len(of[0].options)):
            text = statement(of[0], option)
            for unit, share_O in shares.items():
                if share_O[option] > 0:
                    rows.append(
                        {
                            "row_id": digest(question, option, unit, float(share_O[option])), "unit": unit,
                            "text_id": text_id(text), "text": text, "thread": battery_of[question],
                            "weight": min(1.0, float(share_O[option])),
                        }
                    )  # fmt: skip
    table = pa.Table.from_pylist(rows, SCHEMAS["unit_texts"])
    return store_unit_texts(table, root, UnitTextsDetails(path="statements of groups in OpinionQA", unreadable=0), [])


def _told(config: OpinionQaConfig, profiles: Build | None, test: list[Item]) -> Told:
    groups = sorted({f"{item.attribute}_{item.group}" for item in test})
    if profiles is None:
        return Told({}, {})
    units = as_arrays(store.read_table(profiles))
    texts = {}
    for group in [*groups, POPULATION]:
        if group not in units.units:
            raise InputError(f"{group} has no answer on the profile side, so it has no profile; take another seed")
        intensity = dict(zip(units.values, units.columns["intensity"][units.of(group)].tolist(), strict=True))
        texts[group] = prompt_text(intensity)
        if echoes := letter_echoes(texts[group], test):
            raise InputError(f"the profile of {group} repeats the option {echoes[0]!r} of a test question, which is a leak")
    return Told(texts, shuffled(groups, config.seed) if "shuffled profile" in config.arms else {})


def _relevance(config: OpinionQaConfig, asked: _Asked) -> dict[str, float]:
    """How far each question concerns any value of the profiles."""
    if config.relevance.by == "none":
        raise InputError("arms: adaptive needs the relevance of questions; set relevance.by to head or hives, or leave it out")
    wording = {item.question_id: item.wording for item in (*asked.test, *asked.validation)}
    highest = np.nanmax(relevance_of(config, list(wording.values())), 1)
    return dict(zip(wording, highest.tolist(), strict=True))


def _prompts(config: OpinionQaConfig, asked: _Asked, told: Told) -> list[ChoicePrompt]:
    put = [prompt(arm, item, told) for arm in put_arms(config.arms) for item in asked.test]
    return put + [prompt(arm, item, told) for arm in TUNED_ARMS for item in asked.validation]


def _answers(
    config: OpinionQaConfig, asked: _Asked, told: Told, relevance: dict[str, float], answered: dict[str, Answered]
) -> tuple[dict[str, ArmAnswers], float | None]:
    """The answers of each arm on the test side, and the threshold of adaptive."""
    test: dict[str, ArmAnswers] = {a: arm_answers(a, asked.test, told, answered) for a in put_arms(config.arms)}
    if "adaptive" not in config.arms:
        return test, None
    default, profile = (arm_answers(arm, asked.validation, told, answered) for arm in TUNED_ARMS)
    of_test, of_validation = (np.array([relevance[item.question_id] for item in items]) for items in asked)
    threshold = tuned_threshold(asked.validation, of_validation, profile, default)
    test["adaptive"] = adaptive(of_test, threshold, test["profile"], test["default"])
    return {arm: test[arm] for arm in ARMS if arm in test}, threshold


def _damaged(sides: Sides) -> list[Row]:
    first = {item.question_id: item for item in reversed(sides.items.items)}
    return [
        {"question_id": q, "damage": kind, "side": sides.side_of[q], "question": first[q].wording,
         "options": " | ".join(first[q].options)}
        for q, kind in sorted(sides.items.damaged.items(), key=lambda entry: (entry[1], entry[0]))
    ]  # fmt: skip
