"""The files beside the page of a study: its tables as CSV, and all of it as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from valueflow import store
from valueflow.choices.study import ChoiceStudy
from valueflow.tabular.csv_writer import csv_text


def write_tables(
    folder: str, study_id: str, tables: Mapping[str, Sequence[Mapping[str, Any]]], facts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a CSV file per table and `study.json` into a folder.

    Args:
        folder: URL.
        study_id: of the study.
        tables: rows by name; a row may lack columns.
        facts: numbers about the study.
        settings: of the job, as they are saved.
    """
    for name, rows in tables.items():
        header = list(dict.fromkeys(key for row in rows for key in row))
        cells = ([row.get(key) for key in header] for row in rows)
        store.write_bytes(f"{folder}/{name}.csv", csv_text(header or ["empty"], cells).encode())
    content = {"study": study_id, "facts": dict(facts), "config": dict(settings), "tables": dict(tables)}
    store.write_bytes(f"{folder}/study.json", store.sealed(content))


def write_choice_study(result: ChoiceStudy, name: str, page: str) -> str:
    """Write the tables of a study of answers, and its page under this name; return the URL of the page."""
    folder = store.answers_url(result.root, result.study_id)
    write_tables(folder, result.study_id, result.tables, result.facts, result.settings)
    url = store.report_url(result.root, f"{name}-{result.study_id}")
    store.write_bytes(url, page.encode())
    return url
