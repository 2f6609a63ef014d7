"""What raters sent back: CSV and other tables, JSON exports of Label Studio and of Argilla. Nothing is left out silently."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from valueflow import store
from valueflow.decoding import decode
from valueflow.errors import InputError
from valueflow.people.formats import ANSWER
from valueflow.people.tasks import CHOICES, Kind, Task
from valueflow.records import LIMIT, flaw, text_id
from valueflow.tabular import columns, number, row_error, strict_rows

NUM_PLACES = 5  # places that a message lists for each reason
RATERS, SECONDS = ("rater", "annotator"), ("seconds", "lead_time")  # the latter as Label Studio's CSV names them


class Answer(NamedTuple):
    """One person's answer: a rating, or 1, -1 or 0 where the first text, the second or neither supports the value more."""

    task: Task
    rater: str
    number: float
    seconds: float | None
    place: str


class Answers(NamedTuple):
    """All answers of all files.

    Attributes:
        answers: one for each rater and task.
        empty: tasks without an answer, by rater.
        repeated: answers that were there twice, the same each time.
        changed: rows whose text is no longer that of the task; they are matched by their id.
    """

    answers: list[Answer]
    empty: dict[str, int]
    repeated: int
    changed: int


class _Raw(NamedTuple):
    place: str
    kind: Kind
    fields: Mapping[str, Any]  # task_id, text_id, text, the answer, rater, seconds


def read_answers(urls: list[str], tasks: Mapping[str, Task]) -> Answers:
    """Return the answers in files that raters sent back, each matched with its task by id.

    Raises:
        InputError: a file cannot be read, no task has an answer, or answers cannot be used: of unknown tasks, outside the
            scale, with the text_id of another task, or two different ones of one rater. All are counted, with file and line.
    """
    answers: dict[tuple[str, str], Answer] = {}
    empty: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    repeated = changed = total = 0
    texts = {i for task in tasks.values() for i in (task.text_id, task.other_id)} - {""}
    for raw in (raw for url in urls for raw in _read(url)):
        total += 1
        task = tasks.get(_string(raw.fields.get("task_id")).strip())
        rater = _string(raw.fields.get("rater")).strip()
        answer = raw.fields.get(ANSWER[raw.kind])
        if task is None or task.kind != raw.kind:
            wrong.setdefault("of no task of this export", []).append(raw.place)
        elif not rater or flaw(rater):
            wrong.setdefault("of a rater without a readable name", []).append(raw.place)
        elif answer is None or not str(answer).strip():
            empty[rater] += 1
        elif (parsed := _parsed(raw.kind, answer)) is None:
            allowed = f"numbers in [{-LIMIT:g}, {LIMIT:g}]" if raw.kind == "rating" else f"one of {', '.join(CHOICES)}"
            wrong.setdefault(f"not {allowed}", []).append(f"{raw.place} has {str(answer)[:20]!r}")
        elif _is_of_another(raw, task, texts):
            wrong.setdefault("beside the text of another task (were columns sorted on their own?)", []).append(raw.place)
        else:
            changed += "text" in raw.fields and text_id(_string(raw.fields["text"])) != task.text_id
            read = Answer(task, rater, parsed, number(raw.fields.get("seconds")), raw.place)
            before = answers.setdefault((rater, task.task_id), read)
            if before.number != parsed:
                wrong.setdefault("another answer of a rater to the same task", []).append(f"{raw.place} and {before.place}")
            repeated += before is not read
    if wrong:
        reasons = "; ".join(f"{len(places)} {why} ({_some(places)})" for why, places in wrong.items())
        count = sum(map(len, wrong.values()))
        raise InputError(
            f"{count} of {total} answers cannot be used, and nothing was written: {reasons}. Mend the files and rerun"
        )
    if not answers:
        raise InputError(f"{', '.join(urls)}: none of {total} tasks has an answer; fill in the column rating or more")
    return Answers(list(answers.values()), dict(empty), repeated, changed)


def _some(places: list[str]) -> str:
    return ", ".join(places[:NUM_PLACES]) + (", …" if len(places) > NUM_PLACES else "")


def _parsed(kind: Kind, answer: object) -> float | None:
    """A rating, or the sign of a choice; None where it is none."""
    if isinstance(answer, bool):
        return None
    if kind == "pair":
        return dict(zip(CHOICES, (1.0, -1.0, 0.0), strict=True)).get(str(answer).strip().lower())
    parsed = number(answer)
    return None if parsed is None or abs(parsed) > LIMIT else parsed


def _is_of_another(raw: _Raw, task: Task, texts: set[str]) -> bool:
    """Whether the id or the text beside an answer is that of another task; a spreadsheet may have changed one of them."""
    beside = {_string(raw.fields.get("text_id")).strip()}
    if "text" in raw.fields:
        beside.add(text_id(_string(raw.fields["text"])))
    return bool(beside & texts - {task.text_id, task.other_id})


def _string(value: object) -> str:
    return "" if value is None else str(value)


def _read(url: str) -> Iterator[_Raw]:
    """The rows of a file of any format; a rater without a name is named by the file."""
    name = url.rpartition("/")[2].rpartition(".")[0]
    for raw in _array(url) if _is_array(url) else _table(url):
        yield raw._replace(fields={**raw.fields, "rater": _string(raw.fields.get("rater")).strip() or name})


def _table(url: str) -> Iterator[_Raw]:
    existing = columns(url, wanted=tuple(ANSWER.values()))
    kinds = [kind for kind, column in ANSWER.items() if column in existing]
    if len(kinds) != 1:
        which = "both columns" if kinds else "neither column"
        raise InputError(f"{url} has {which} 'rating' and 'more'; a file of raters has one, and the column task_id")
    kind = kinds[0]
    optional = [name for name in ("text_id", "text", *RATERS, *SECONDS) if name in existing]
    for row in strict_rows(url, ["task_id", ANSWER[kind]], optional=optional):
        if error := row_error(row, ["task_id", ANSWER[kind], *optional]):
            raise InputError(f"{row.location}: {error}")
        fields = dict(row.fields)
        for to, names in (("rater", RATERS), ("seconds", SECONDS)):
            fields[to] = next((fields[name] for name in names if fields.get(name) not in (None, "")), None)
        yield _Raw(row.location, kind, fields)


def _is_array(url: str) -> bool:
    if not url.lower().endswith(".json"):
        return False
    return decode(store.read_input(url)[:4096].rstrip(b"\xff\xfe") or b" ", url).lstrip()[:1] == "["


def _array(url: str) -> Iterator[_Raw]:
    try:
        items = json.loads(decode(store.read_input(url), url))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{url} is not JSON: {error}") from None
    for position, item in enumerate(items, 1):
        place = f"{url}: item {position}"
        if not isinstance(item, dict):
            raise InputError(f"{place} is no object; export the project as JSON")
        if "annotations" in item and "data" in item:
            yield from _label_studio(place, item)
        elif "responses" in item and "fields" in item:
            yield from _argilla(place, item)
        else:
            raise InputError(
                f"{place} is neither a task of Label Studio (export as JSON, not JSON-MIN) nor a record of Argilla "
                "(dataset.records.to_json); CSV and JSON lines need a name that ends in .csv or .jsonl"
            )


def _label_studio(place: str, item: dict[str, Any]) -> Iterator[_Raw]:
    """The annotations of a task of Label Studio; one that was skipped has no answer."""
    data, annotations = _object(place, item, "data"), _list(place, item["annotations"], "annotations")
    for annotation in annotations:
        by = annotation.get("completed_by")
        by = by.get("email") or by.get("id") if isinstance(by, dict) else by
        results = [] if annotation.get("was_cancelled") else _list(place, annotation.get("result") or [], "result")
        answers = [(r["from_name"], r.get("value")) for r in results if r.get("from_name") in ANSWER.values()]
        if len(answers) > 1:
            raise InputError(f"{place} has {len(answers)} answers in one annotation; delete all but one")
        kind, answer = _kind_of(data), None
        if answers:
            kind = next(kind for kind, column in ANSWER.items() if column == answers[0][0])
            answer = answers[0][1].get("number") if isinstance(answers[0][1], dict) else answers[0][1]
            if kind == "pair" and isinstance(answers[0][1], dict):
                choices = answers[0][1].get("choices")
                answer = choices[0] if isinstance(choices, list) and len(choices) == 1 else choices
        fields = {**_texts(data), ANSWER[kind]: answer, "rater": by, "seconds": annotation.get("lead_time")}
        yield _Raw(place, kind, fields)


def _argilla(place: str, item: dict[str, Any]) -> Iterator[_Raw]:
    """The responses to a record of Argilla; drafts and what was discarded, where the export tells, are no answers."""
    shown, meta, responses = (_object(place, item, name) for name in ("fields", "metadata", "responses"))
    data = {**shown, **meta, "task_id": item.get("id") or meta.get("task_id")}
    for kind, question in ANSWER.items():
        for response in _list(place, responses.get(question) or [], question):
            user = response.get("user_id")
            answer = response.get("value") if response.get("status") in (None, "submitted") else None
            yield _Raw(place, kind, {**_texts(data), ANSWER[kind]: answer, "rater": None if user == "None" else user})


def _kind_of(data: Mapping[str, Any]) -> Kind:
    return "pair" if "second" in data else "rating"


def _texts(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("task_id", "text_id", "text") if name in data}


def _object(place: str, item: dict[str, Any], name: str) -> dict[str, Any]:
    value = item.get(name) or {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: {name!r} is no object")
    return value


def _list(place: str, value: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{place}: {name!r} is no list of objects")
    return value
