"""An export under the root, and what is written when its answers have come back."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.people import pool
from valueflow.people.agreement import (
    JudgeCheck,
    PairCheck,
    RaterCheck,
    ValueAgreement,
    by_value,
    judge_check,
    pair_checks,
    rater_checks,
)
from valueflow.people.answers import Answer, Answers, read_answers
from valueflow.people.formats import files
from valueflow.people.pool import Pool
from valueflow.people.selection import RatingTasksConfig, rating_tasks
from valueflow.people.tasks import Task, read_register, register_csv
from valueflow.records import ValueId
from valueflow.store.layout import NAME
from valueflow.tabular import csv_text, urls
from valueflow.theories import expand
from valueflow.vidb.candidates import ALL

REGISTER, RATINGS, SUMMARY = "tasks.csv", "ratings.csv", "agreement.json"
RATING_COLUMNS = ("theory", "value", "text_id", "text", "rating", "rater", "basis")


class ImportRatingsConfig(Config):
    """Which answers are read, to the tasks of which export."""

    root: str = Field(description="folder or URL of all tables")
    name: str = Field(pattern=f"^{NAME.pattern}$", description="of the export, as in export_rating_tasks")
    files: list[str] = Field(
        min_length=1, description="paths or globs: CSV, TSV, JSON lines, Parquet, or JSON exports of Label Studio or Argilla"
    )


class Summary(NamedTuple):
    """What people said, and where it is."""

    values: list[ValueAgreement]
    raters: list[RaterCheck]
    judges: JudgeCheck
    pairs: list[PairCheck]
    num_tasks: int
    num_unrated: int  # rating tasks that nobody rated
    empty: dict[str, int]
    repeated: int
    changed: int
    ratings_url: str  # "" without ratings


def export_tasks(config: RatingTasksConfig) -> tuple[list[Task], list[str]]:
    """Choose tasks and write them with the files for raters; return the tasks and the URLs of the files.

    Raises:
        InputError: there is no text, or the folder holds other tasks.
    """
    values, pool_of = _source(config)
    chosen = values if config.values == ALL else expand(config.values, values)
    if unknown := [value for value in chosen if value not in values]:
        raise InputError(f"values: {unknown[0]} has no texts here; there are {', '.join(values)}")
    tasks = rating_tasks(chosen, pool_of, config)
    if not tasks:
        raise InputError(f"{', '.join(chosen)}: there is no text to rate")
    folder, register = store.people_url(config.root, config.name), register_csv(tasks).encode()
    content = {**dict(files(tasks, config.raters, config.seed)), REGISTER: register.decode()}
    if store.exists(f"{folder}/{REGISTER}") and store.read_bytes(f"{folder}/{REGISTER}") != register:
        raise InputError(
            f"{folder} holds other tasks, which people may be rating; set name to another one than {config.name!r}"
        )
    for name, text in content.items():
        if not store.exists(f"{folder}/{name}"):  # somebody may have begun to fill it in
            store.write_bytes(f"{folder}/{name}", text.encode())
    return tasks, [f"{folder}/{name}" for name in content]


def _source(config: RatingTasksConfig) -> tuple[list[ValueId], Callable[[ValueId], Pool]]:
    if config.evaluations:
        evaluations, values = pool.evaluation_values(config.root, config.evaluations)
        return values, lambda value: pool.evaluation_pool(evaluations, value)
    version, values = pool.version_values(config.root, config.vidb)
    return values, lambda value: pool.version_pool(version, value)


def import_ratings(config: ImportRatingsConfig) -> Summary:
    """Read answers, check them, and write the ratings and the summary beside the tasks.

    Raises:
        InputError: there is no such export, or answers cannot be used (see `read_answers`).
    """
    folder = store.people_url(config.root, config.name)
    if not store.exists(f"{folder}/{REGISTER}"):
        raise InputError(
            f"name: {config.name!r} has no tasks under {config.root}; run python -m jobs.export_rating_tasks first"
        )
    tasks = read_register(f"{folder}/{REGISTER}")
    answers = read_answers([file for url in config.files for file in urls(url)], tasks)
    summary = _summary(answers, tasks, f"{folder}/{RATINGS}")
    if summary.ratings_url:
        store.write_bytes(summary.ratings_url, ratings_csv(_of_kind(answers, "rating")).encode())
    store.write_bytes(f"{folder}/{SUMMARY}", (json.dumps(_plain(summary), indent=1, ensure_ascii=False) + "\n").encode())
    return summary


def ratings_csv(ratings: list[Answer]) -> str:
    """Return ratings as builds (`human.ratings`, `calibrate.ratings`) and audits (`anchors`) read them."""
    rows = (
        [a.task.value.theory, a.task.value.node, a.task.text_id, a.task.text, f"{a.number:g}", a.rater, a.task.basis]
        for a in sorted(ratings, key=lambda a: (a.task.value, a.task.text_id, a.rater))
    )
    return csv_text(RATING_COLUMNS, rows)


def _summary(answers: Answers, tasks: dict[str, Task], url: str) -> Summary:
    ratings, pairs = (_of_kind(answers, kind) for kind in ("rating", "pair"))
    num_tasks = sum(task.kind == "rating" for task in tasks.values())
    num_unrated, agreement = num_tasks - len({answer.task.task_id for answer in ratings}), by_value(ratings) if ratings else []
    return Summary(
        agreement, rater_checks(ratings, num_tasks), judge_check(ratings), pair_checks(pairs), num_tasks, num_unrated,
        answers.empty, answers.repeated, answers.changed, url if ratings else "",
    )  # fmt: skip


def _of_kind(answers: Answers, kind: str) -> list[Answer]:
    return [answer for answer in answers.answers if answer.task.kind == kind]


def _plain(value: Any) -> Any:
    """A value for JSON, with null for nan."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
