"""Files for raters: a CSV, and what Label Studio and Argilla import.

Label Studio: a project's labeling configuration (XML) and tasks (JSON array of `data`). Argilla 2: settings for
`Settings.from_json` and records for `dataset.records.from_json`; its ratings end at 0, so the scale is a question of labels.
None of them shows why a text was chosen: raters should not know.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from valueflow.people.tasks import CHOICES, GUIDELINES, Kind, Task, wording
from valueflow.records import LIMIT, digest
from valueflow.tabular import csv_text

ANSWER: dict[Kind, str] = {"rating": "rating", "pair": "more"}  # column, from_name and question of the answer
SHEETS: dict[Kind, str] = {"rating": "rate", "pair": "compare"}


def files(tasks: list[Task], raters: list[str], seed: int) -> Iterator[tuple[str, str]]:
    """Yield name and content of every file for raters."""
    yield "guidelines.txt", GUIDELINES.replace(". ", ".\n") + "\n"
    for kind, sheet in SHEETS.items():
        of_kind = [task for task in tasks if task.kind == kind]
        if of_kind:
            for rater in raters or [""]:
                yield f"{sheet}{rater and f'-{rater}'}.csv", sheet_csv(shuffled(of_kind, rater, seed), rater)
            mixed = shuffled(of_kind, "", seed)
            yield f"label-studio-{sheet}.json", _json([{"data": _shown(task)} for task in mixed])
            yield f"label-studio-{sheet}.xml", label_studio_config(kind)
            yield f"argilla-{sheet}.json", _json([argilla_record(task) for task in mixed])
            yield f"argilla-{sheet}-settings.json", _json(argilla_settings(kind))


def shuffled(tasks: Iterable[Task], rater: str, seed: int) -> list[Task]:
    """Return tasks value by value, as a definition is read once, in an order of the rater within each."""
    return sorted(tasks, key=lambda task: (task.value, digest(seed, rater, task.task_id)))


def sheet_csv(tasks: list[Task], rater: str) -> str:
    """Return a CSV with an empty column for the answers."""
    rows = [_shown(task) | {ANSWER[task.kind]: "", "rater": rater} for task in tasks]
    return csv_text(list(rows[0]), [row.values() for row in rows])


def _shown(task: Task) -> dict[str, str]:
    words = wording(task)
    texts = {"text": task.text} if task.kind == "rating" else {"first": task.text, "second": task.other_text}
    return {
        "task_id": task.task_id, "text_id": task.text_id, "theory": task.value.theory, "value": task.value.node,
        "value_name": words.name, "definition": words.definition, "scale": words.scale, "question": words.question, **texts,
    }  # fmt: skip


def label_studio_config(kind: Kind) -> str:
    """Return the labeling configuration of a Label Studio project."""
    texts = ("text",) if kind == "rating" else ("first", "second")
    lines = [f'  <Header value="${name}"/>' for name in ("value_name", "definition", "scale", "question")]
    lines += [f'  <Text name="{name}" value="${name}"/>' for name in texts]
    if kind == "rating":
        lines += [f'  <Number name="rating" toName="text" min="{-LIMIT:g}" max="{LIMIT:g}" step="0.5" required="true"/>']
    else:
        choices = "".join(f'<Choice value="{choice}"/>' for choice in CHOICES)
        lines += [f'  <Choices name="more" toName="first" choice="single-radio" required="true">{choices}</Choices>']
    return "\n".join(["<View>", f'  <Header value={quoteattr(GUIDELINES)} size="6"/>', *lines, "</View>", ""])


def argilla_record(task: Task) -> dict[str, Any]:
    """Return a task as a record of Argilla, as its own export writes one."""
    shown = _shown(task)
    hidden = ("task_id", "text_id", "theory", "value")
    return {
        "id": task.task_id, "fields": {name: text for name, text in shown.items() if name not in hidden},
        "metadata": {name: shown[name] for name in hidden}, "suggestions": {}, "responses": {}, "vectors": {},
        "status": "pending", "_server_id": None,
    }  # fmt: skip


def argilla_settings(kind: Kind) -> dict[str, Any]:
    """Return the settings of a dataset of Argilla."""
    texts = ("text",) if kind == "rating" else ("first", "second")
    fields = ("value_name", "definition", "scale", "question", *texts)
    labels = [f"{n:g}" for n in np.arange(-LIMIT, LIMIT + 1)] if kind == "rating" else CHOICES
    options = [{"value": label, "text": label} for label in labels]
    question = {
        "name": ANSWER[kind], "title": "Answer", "description": "See the question and the scale above.", "required": True,
        "settings": {"type": "label_selection", "options": options, "visible_options": len(options)},
    }  # fmt: skip
    return {
        "guidelines": GUIDELINES,
        "fields": [_field(name) for name in fields],
        "questions": [question],
        "vectors": [],
        "metadata": [],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 3},
        "mapping": None,
    }


def _field(name: str) -> dict[str, Any]:
    title = name.replace("_", " ").capitalize()
    return {"name": name, "title": title, "required": True, "settings": {"type": "text", "use_markdown": False}}


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
