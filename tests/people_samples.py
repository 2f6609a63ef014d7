"""Tasks and what raters make of their files, as the tools write them."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from valueflow.people.tasks import Place, Task
from valueflow.records import ValueId, text_id

TEXTS = [
    "We share everything.",
    "=1+1",
    '"Quoted", he\nsaid',
    "nan",
    "-5",
    "'tis",
    "Größe 🙂",
    "+1 for him",
    "I lead.",
    "\tTabs",
]
VALUES = [ValueId("svt:power"), ValueId("mft:purity")]


def sample_tasks(texts: list[str] = TEXTS) -> list[Task]:
    """Two values; a rating task of each text and a pair of it and the next; every second one is drawn at random."""
    tasks = []
    for value in VALUES:
        for n, text in enumerate(texts):
            basis, place = ("random", "chosen")[n % 2], Place(n - 4.0, n - 6.0, n - 2.0)
            tasks.append(Task("rating", value, text_id(text), text, basis, "why", place))
            other = texts[(n + 1) % len(texts)]
            if text_id(other) != text_id(text):
                tasks.append(Task("pair", value, text_id(text), text, basis, "why", place, text_id(other), other, 0.5))
    return tasks


Answers = Mapping[tuple[str, str], str]  # (rater, task id) -> rating or choice; "" where it is open


def raters_of(answers: Answers) -> list[str]:
    return list(dict.fromkeys(rater for rater, _ in answers))


def fill_csv(exported: Mapping[str, str], answers: Answers, folder: Path) -> list[str]:
    """One CSV for each rater and kind, from the sheet that was exported."""
    paths = []
    for rater in raters_of(answers):
        for kind, column in (("rate", "rating"), ("compare", "more")):
            if f"{kind}.csv" not in exported:
                continue
            rows = list(csv.DictReader(io.StringIO(exported[f"{kind}.csv"], newline="")))
            filled = [row | {column: answers.get((rater, row["task_id"]), ""), "rater": rater} for row in rows]
            path = folder / f"{kind}-{rater}.csv"
            with path.open("w", newline="", encoding="utf-8-sig") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(filled)
            paths.append(str(path))
    return paths


def fill_jsonl(exported: Mapping[str, str], answers: Answers, folder: Path) -> list[str]:
    paths = []
    for kind, column in (("rate", "rating"), ("compare", "more")):
        if f"{kind}.csv" not in exported:
            continue
        rows = csv.DictReader(io.StringIO(exported[f"{kind}.csv"], newline=""))
        ids = [row["task_id"] for row in rows]
        lines = [
            {"task_id": i, "rater": rater, column: answers.get((rater, i)) or None} for rater in raters_of(answers) for i in ids
        ]
        (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
        paths.append(str(folder / f"{kind}.jsonl"))
    return paths


def fill_label_studio(exported: Mapping[str, str], answers: Answers, folder: Path) -> list[str]:
    """As Label Studio's export `JSON` has it: tasks with annotations, by user id or by email."""
    paths = []
    for kind in ("rate", "compare"):
        if f"label-studio-{kind}.json" not in exported:
            continue
        tasks = json.loads(exported[f"label-studio-{kind}.json"])
        for n, task in enumerate(tasks):
            task |= {"id": n, "project": 1, "predictions": [], "annotations": []}
            for rater in raters_of(answers):
                answer = answers.get((rater, task["data"]["task_id"]), "")
                value = {"number": float(answer)} if kind == "rate" and answer else {"choices": [answer]}
                name, tag = ("rating", "number") if kind == "rate" else ("more", "choices")
                result = [{"from_name": name, "to_name": "text", "type": tag, "value": value, "id": "x", "origin": "manual"}]
                task["annotations"].append(
                    {"id": n, "completed_by": {"id": 3, "email": rater}, "result": result if answer else [],
                     "was_cancelled": not answer, "lead_time": 12.5}
                )  # fmt: skip
        (folder / f"{kind}.json").write_text(json.dumps(tasks), "utf-8")
        paths.append(str(folder / f"{kind}.json"))
    return paths


def fill_argilla(exported: Mapping[str, str], answers: Answers, folder: Path) -> list[str]:
    """As `dataset.records.to_json` has it: responses by question."""
    paths = []
    for kind, question in (("rate", "rating"), ("compare", "more")):
        if f"argilla-{kind}.json" not in exported:
            continue
        records = json.loads(exported[f"argilla-{kind}.json"])
        for record in records:
            given = [(rater, answers.get((rater, record["id"]), "")) for rater in raters_of(answers)]
            record["responses"] = {question: [{"value": answer, "user_id": rater} for rater, answer in given if answer]}
        (folder / f"{kind}.json").write_text(json.dumps(records), "utf-8")
        paths.append(str(folder / f"{kind}.json"))
    return paths


FILLERS: dict[str, Callable[[Mapping[str, str], Answers, Path], list[str]]] = {
    "csv": fill_csv, "jsonl": fill_jsonl, "label studio": fill_label_studio, "argilla": fill_argilla,
}  # fmt: skip
