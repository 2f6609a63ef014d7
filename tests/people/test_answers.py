"""What raters send back is matched with its task in every format, and what cannot be matched is refused with its place."""

import csv
import json
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people_samples import FILLERS, TEXTS, sample_tasks

from valueflow.errors import InputError
from valueflow.people.answers import read_answers
from valueflow.people.formats import files
from valueflow.people.tasks import CHOICES
from valueflow.records import flaw, text_id
from valueflow.tabular import strict_rows

SIGNS = {"first": 1.0, "second": -1.0, "equal": 0.0}
TASKS = {task.task_id: task for task in sample_tasks()}
EXPORTED = dict(files(list(TASKS.values()), [], 0))
RATINGS = [i for i, task in TASKS.items() if task.kind == "rating"]
SAFE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: text.strip() and not flaw(text))


@st.composite
def exports(draw):
    """Tasks of arbitrary texts, with answers of some raters to some of them."""
    texts = draw(st.lists(SAFE, min_size=2, max_size=4, unique_by=text_id))
    tasks = sample_tasks(texts)
    raters = draw(st.lists(st.sampled_from(["anna", "ben", "c-3"]), min_size=1, max_size=3, unique=True))
    answers = {}
    for task in tasks:
        for rater in raters:
            number = st.integers(-10, 10).map(str)
            options = number if task.kind == "rating" else st.sampled_from(CHOICES)
            answers[rater, task.task_id] = draw(st.one_of(st.just(""), options))
    answers[raters[0], tasks[0].task_id] = "3"
    return tasks, answers


@pytest.mark.parametrize("form", FILLERS)
@settings(max_examples=25)
@given(export=exports())
def test_what_was_exported_and_filled_in_comes_back(form, export):
    tasks, answers = export
    by_id = {task.task_id: task for task in tasks}
    with tempfile.TemporaryDirectory() as folder:
        read = read_answers(FILLERS[form](dict(files(tasks, [], 0)), answers, Path(folder)), by_id)
    expected = {key: SIGNS[a] if a in SIGNS else float(a) for key, a in answers.items() if a}
    assert {(a.rater, a.task.task_id): a.number for a in read.answers} == expected
    assert all(a.task == by_id[a.task.task_id] for a in read.answers)
    assert (read.repeated, read.changed) == (0, 0)
    if form != "argilla":  # its records say nothing of who has not answered
        assert sum(read.empty.values()) == len(answers) - len(expected)


def test_the_sheet_shows_the_texts_and_not_why_they_were_chosen(tmp_path):
    (tmp_path / "rate.csv").write_bytes(EXPORTED["rate.csv"].encode())
    rows = [row.fields for row in strict_rows(str(tmp_path / "rate.csv"), ["text", "scale", "definition"])]
    assert {row["text"] for row in rows} == set(TEXTS)
    assert all(row["rating"] is None or row["rating"] == "" for row in rows)
    for name, content in EXPORTED.items():
        assert "chosen" not in content, name
        assert "interval" not in content, name
    two = dict(files(list(TASKS.values()), ["anna", "ben"], 0))
    orders = [[row["task_id"] for row in csv.DictReader(two[f"rate-{rater}.csv"].splitlines())] for rater in ("anna", "ben")]
    assert orders[0] != orders[1]
    assert {"rate.csv"} & set(two) == set()


def test_the_configurations_name_what_the_data_has():
    for kind in ("rate", "compare"):
        view = ElementTree.fromstring(EXPORTED[f"label-studio-{kind}.xml"])
        data = [task["data"] for task in json.loads(EXPORTED[f"label-studio-{kind}.json"])]
        shown = {tag.get("value", "")[1:] for tag in view if tag.get("value", "").startswith("$")}
        assert shown
        assert all(shown <= set(task) for task in data)
        names = {tag.get("name") for tag in view}
        assert all(tag.get("toName") in names for tag in view if tag.get("toName"))
        settings = json.loads(EXPORTED[f"argilla-{kind}-settings.json"])
        fields = {field["name"] for field in settings["fields"]}
        assert all(set(record["fields"]) == fields for record in json.loads(EXPORTED[f"argilla-{kind}.json"]))


def write(path: Path, header: str, *rows: tuple) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(), *rows])
    return str(path)


def test_a_spreadsheet_may_change_the_text_or_its_id_but_not_both_for_others(tmp_path):
    first, second = (TASKS[i] for i in RATINGS[:2])
    header = "task_id text_id text rating"
    rows = [(first.task_id, "1.23E+15", first.text, 3), (second.task_id, second.text_id, "\u2019 another", "-2.5")]
    read = read_answers([write(tmp_path / "ben.csv", header, *rows)], TASKS)
    assert [(a.rater, a.number) for a in read.answers] == [("ben", 3.0), ("ben", -2.5)]
    assert read.changed == 1
    for sorted_alone in (
        (first.task_id, first.text_id, second.text, 3),
        (first.task_id, second.text_id, first.text, 3),
        (first.task_id, second.text_id, second.text, 3),
    ):
        with pytest.raises(InputError, match=r"1 of 1 .*ben\.csv:2.*|sorted on their own"):
            read_answers([write(tmp_path / "ben.csv", header, sorted_alone)], TASKS)


def test_a_repeated_answer_counts_once_and_two_different_ones_are_refused(tmp_path):
    url = write(tmp_path / "a.csv", "task_id rating", (RATINGS[0], 3), (RATINGS[0], "3.0"), (RATINGS[1], ""))
    read = read_answers([url], TASKS)
    assert (len(read.answers), read.repeated, read.empty) == (1, 1, {"a": 1})
    other = write(tmp_path / "b.csv", "task_id rating rater", (RATINGS[0], 4, "a"))
    with pytest.raises(InputError, match=r"b\.csv:2 and .*a\.csv:2"):
        read_answers([url, other], TASKS)
    assert len(read_answers([url, write(tmp_path / "b.csv", "task_id rating", (RATINGS[0], 4))], TASKS).answers) == 2


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("task_id rating", [("r-none", 3), (RATINGS[0], 2)], r"1 of 2 answers.*no task.*a\.csv:2\)"),
        ("task_id rating", [("", 3)] * 7, r"7 of 7 answers.*a\.csv:2, .*a\.csv:6, …"),
        ("task_id rating", [(RATINGS[0], 11), (RATINGS[1], "-10.5")], r"2 of 2 .*a\.csv:2 has '11', .*a\.csv:3 has '-10\.5'"),
        ("task_id rating", [(RATINGS[0], "5,5"), (RATINGS[1], "seven")], r"numbers in \[-10, 10\].*'5,5'.*'seven'"),
        ("task_id rating", [(RATINGS[0], "")], r"none of 1 tasks has an answer"),
        ("task_id rating", [], r"none of 0 tasks"),
        ("task_id more", [(RATINGS[0], "first")], r"no task of this export"),
        ("task_id more", [(next(i for i in TASKS if i[0] == "p"), "left")], r"first, second, equal.*'left'"),
        ("task_id rating more", [(RATINGS[0], 1, "")], r"has both columns 'rating' and 'more'"),
        ("task_id score", [(RATINGS[0], 1)], r"has neither column 'rating' and 'more'"),
        ("id rating", [(RATINGS[0], 1)], r"lacks column\(s\) \['task_id'\]"),
        ("task_id;rating", [("r;1",)], r"neither column"),
    ],
)
def test_answers_that_cannot_be_used_are_counted_with_their_lines(tmp_path, header, rows, message):
    with pytest.raises(InputError, match=message) as error:
        read_answers([write(tmp_path / "a.csv", header, *rows)], TASKS)
    assert "\n" not in str(error.value)


def test_a_quoted_word_and_parquet_and_times_of_label_studio(tmp_path):
    rows = [{"task_id": i, "rating": n / 2, "annotator": "7", "lead_time": 8.0} for n, i in enumerate(RATINGS[:3])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    read = read_answers([str(tmp_path / "x.parquet")], TASKS)
    assert [(a.rater, a.number, a.seconds) for a in read.answers] == [("7", n / 2, 8.0) for n in range(3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "item 1 is no object"),
        ("[", "is not JSON"),
        ("[" * 5_000, "is not JSON"),
        ('[{"task_id": "r-1", "rating": 3}]', "JSON, not JSON-MIN"),
        ('[{"data": [], "annotations": [3]}]', "'annotations' is no list of objects"),
        ('[{"data": {}, "annotations": 3}]', "'annotations' is no list of objects"),
        ('[{"data": 3, "annotations": []}]', "'data' is no object"),
        ('[{"fields": {}, "responses": {"rating": 3}}]', "'rating' is no list of objects"),
        (
            '[{"data": {"task_id": "r-1"}, "annotations": [{"result": [{"from_name": "rating", "value": 3}]}]}]',
            "no task of this",
        ),
        ('[{"data": {}, "annotations": [{"result": [{"from_name": "rating"}, {"from_name": "more"}]}]}]', "2 answers in one"),
        ("[]", "none of 0 tasks"),
    ],
)
def test_exports_that_are_none(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match=message) as error:
        read_answers([str(tmp_path / "x.json")], TASKS)
    assert "\n" not in str(error.value)


def test_drafts_and_what_was_discarded_are_no_answers(tmp_path):
    records = json.loads(EXPORTED["argilla-rate.json"])[:3]
    for record, status in zip(records, ("submitted", "draft", "discarded"), strict=True):
        record["responses"] = {"rating": [{"value": "2", "user_id": "None", "status": status}]}
    (tmp_path / "x.json").write_text(json.dumps(records), "utf-8")
    read = read_answers([str(tmp_path / "x.json")], TASKS)
    assert [a.rater for a in read.answers] == ["x"]
    assert read.empty == {"x": 2}
