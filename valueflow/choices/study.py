"""What a study of answers to questions with options found."""

from typing import Any, NamedTuple

Row = dict[str, Any]


class ChoiceStudy(NamedTuple):
    """The results of a study.

    Attributes:
        study_id: hash of the answers and of the settings that change their evaluation.
        root: folder or URL of the tables.
        settings: of the job, as they are saved.
        tables: rows by name.
        facts: numbers for the page.
    """

    study_id: str
    root: str
    settings: dict[str, Any]
    tables: dict[str, list[Row]]
    facts: dict[str, Any]
