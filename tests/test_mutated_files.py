"""Every reader of users' files gets mutated ones (`mutations`): rows whose numbers the bytes hold, or one sentence."""

import contextlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from mutations import Mutation, cells_at, mutated, mutations, reading
from people_samples import sample_tasks
from pydantic_core import from_json

from serve.settings import HttpConfig
from valueflow import corpora, vidb
from valueflow.cli.backend import read_judge
from valueflow.cli.texts import read_texts
from valueflow.config import load
from valueflow.corpora import CorpusConfig
from valueflow.evaluation.official_files import score_rankings
from valueflow.evaluation.responses import save_responses
from valueflow.evaluation.scoring import EvaluatorConfig
from valueflow.hives.examples import OFFICIAL_COLUMNS, read_official
from valueflow.people.answers import read_answers
from valueflow.people.tasks import read_register, register_csv
from valueflow.records import ValueId
from valueflow.tabular import Row, columns, rows, strict_rows
from valueflow.vidb.ratings import read_ratings
from valueflow.voting.human import read_decisions

POWER = ValueId("svt:power")
TASKS = {task.task_id: task for task in sample_tasks()}
RATING_IDS = [i for i, task in TASKS.items() if task.kind == "rating"]


class Format(NamedTuple):
    """A reader, and the rows of a file that it reads; of other files their content by name."""

    read: Callable[[Path], object]
    rows: list[dict] = []
    files: dict[str, str] = {}


def corpus(format_: str, **config) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        settings = {"labels": str(path)} | config if format_ == "labels" else {"path": str(path)} | config
        name = "valueeval" if format_ == "labels" else format_
        return list(corpora.read(CorpusConfig(format=name, **settings)))

    return read


def table(path: Path) -> object:
    columns(str(path), wanted=["text"])
    lenient = list(rows(str(path), ["text", "rating"]))
    for row in lenient:
        if not row.error:
            check_cells(path, row)
    return list(strict_rows(str(path), ["text", "rating"])) and lenient


def check_cells(path: Path, row: Row) -> None:
    """Compare a row of text with another parser's."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        return
    if path.suffix == ".jsonl":
        line = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")[row.number - 1]
        with contextlib.suppress(ValueError):  # that parser refuses lone surrogates and deep nesting
            fields = from_json(line, allow_inf_nan=True)
            for name in {"text", "rating"} & fields.keys():
                other, value = fields[name], row.fields[name]
                assert not isinstance(other, str | float) or other == value or (value is None and math.isnan(other))
    elif path.suffix != ".parquet":
        header, cells = (cells_at(content, "," if path.suffix == ".csv" else "\t", number) for number in (1, row.number))
        assert header
        assert cells
        for name, other in dict(zip(header, cells, strict=False)).items():
            value = row.fields[name]
            assert value == other or (value is None and other in ("nan", "NaN")) or "'" + value == other


EVERY = {
    "text": "text",
    "theory": "theory",
    "value": "value",
    "direction": "direction",
    "source_id": "id",
    "license": "license",
}
RATED = [
    {"theory": "svt", "value": value, "text": f'A text, "{value}", {i}.', "rating": i / 4 - 2, "intensity": i / 4 - 2}
    for i, value in enumerate(("power", "face", "security", "power"))
]
OFFICIAL = dict.fromkeys(OFFICIAL_COLUMNS, "") | {"text": "We share.", "theory": "svt", "level_1": "growth", "direction": "1"}
CORPORA: dict[str, tuple[list[dict], dict]] = {
    "generic": (
        [{"id": f"{i:04d}", "text": f"Words, {i}", "theory": "svt", "value": "power", "direction": i % 3 - 1, "license": "MIT"}
         for i in range(5)],
        {"columns": EVERY},
    ),
    "mfrc": ([{"ID": str(i), "text": "We &amp; you", "Care": 1, "Equality": 2, "Proportionality": 0, "Loyalty": 0,
               "Authority": 0, "Purity": 3} for i in range(3)], {}),
    "social_chemistry": (
        [{"rot-id": f"r{i}", "situation": "A day", "rot": "One helps", "action": "helping",
          "rot-moral-foundations": "care-harm", "action-moral-judgment": i - 2} for i in range(4)],
        {"text": "action"},
    ),
    "valuenet": ([{"scenario": "[POWER] I lead.", "label": label} for label in ("-1", "0", "1")], {}),
    "valueprism": ([{"situation": "Feeding a dog", "vrd": "Value", "text": "Power", "valence": "Supports"}] * 2, {}),
    "ethics": ([{"label": "1", "scenario": "He kept his word. [SEP] honest"}] * 3, {}),
}  # fmt: skip
FORMATS: dict[str, Format] = {
    "table": Format(table, RATED),
    "anchors": Format(lambda path: vidb.read_anchors(str(path)), [{**row} for row in RATED]),
    "official anchors": Format(
        lambda path: vidb.read_anchors(str(path.rename(path.with_name(f"power_svt{path.suffix}")))),
        [{"text": row["text"], "final_rating": row["rating"]} for row in RATED],
    ),
    "ratings": Format(lambda path: read_ratings(str(path)), RATED),
    "answers of raters": Format(
        lambda path: read_answers([str(path)], TASKS),
        [{"task_id": i, "text_id": TASKS[i].text_id, "text": "Words", "rating": n - 4.5, "rater": "a"}
         for n, i in enumerate(RATING_IDS[:4])],
    ),
    "exports of raters": Format(
        lambda path: read_answers([str(path)], TASKS),
        files={
            "label-studio.json": json.dumps(
                [{"data": {"task_id": i}, "annotations": [{"completed_by": 3, "lead_time": 4.5, "result": [
                    {"from_name": "rating", "value": {"number": 2.5}}]}]} for i in RATING_IDS[:3]]
            ),
            "argilla.json": json.dumps(
                [{"id": i, "fields": {"text": TASKS[i].text}, "metadata": {},
                  "responses": {"rating": [{"value": "-3", "user_id": "u"}]}} for i in RATING_IDS[:3]]
            ),
        },
    ),
    "register of raters' tasks": Format(
        lambda path: read_register(str(path)), files={"a.csv": register_csv(list(TASKS.values())[:5])}
    ),
    "decisions": Format(
        lambda path: read_decisions([str(path)], ["svt"]),
        [{"text_id": f"0{i}", "theory": "svt", "node": "power", "direction": "opposes"} for i in range(3)],
    ),
    "responses": Format(
        lambda path: save_responses(str(path), str(path.parent / "root")),
        [{"query": f"q{i}", "dataset": "d", "response": f"Words, {i}\nand more"} for i in range(3)],
    ),
    "rankings": Format(
        lambda path: score_rankings(str(path), POWER, EvaluatorConfig()),
        [{"row_idx": "1", "target_text": "t", "db_text_1": "a", "db_text_2": "b", "db_score_1": 2.5, "db_score_2": -4,
          "ranking": ranking} for ranking in ("[2, 1, 3]", "1,2,3", "3,2,1")],
    ),
    "labels of valueeval": Format(
        corpus("labels", path=str(Path(__file__).with_name("arguments.tsv"))),
        [{"Argument ID": f"A{i}", "Stimulation": i % 2, "Power: dominance": 1} for i in range(3)],
    ),
    "official texts": Format(lambda path: read_official(str(path)), [OFFICIAL, OFFICIAL | {"text": "We win."}]),
    "texts": Format(lambda path: read_texts(str(path), "text"), RATED),
    **{name: Format(corpus(name, **config), lines) for name, (lines, config) in CORPORA.items()},
    "fulcra": Format(
        corpus("fulcra"),
        files={"a.jsonl": '{"dialogue": "A: Hi\\nBob: Ho", "value_types": ["power: -1", "face: +1"]}\n' * 2},
    ),
    "lines": Format(lambda path: read_texts(str(path), "text"), files={"a.txt": "One text.\r\nEin Größerer.\n\nLast\n"}),
    "job": Format(
        lambda path: load(CorpusConfig, str(path), ["max_rows=3"]),
        files={"a.yaml": "format: generic\npath: a.csv\nlicense: MIT\ncolumns: {text: body}\nmax_rows: 10\n"},
    ),
    "judge": Format(
        lambda path: read_judge(str(path)),
        files={"a.yaml": "judge:\n  kind: simulated\n  sharpness: 2.5\n  seed: 3\n", "b.yaml": "{kind: encoder, bag: 7}\n"},
    ),
    "keys": Format(
        lambda path: HttpConfig(keys_file=str(path)).all_keys(),
        files={
            "a.yaml": f"- name: one\n  sha256: {'ab' * 32}\n  requests_per_minute: 100\n- {{name: two, sha256: {'0f' * 32}}}\n",
            "b.json": json.dumps([{"name": "one", "sha256": "0" * 64, "concurrency": 3}]),
        },
    ),
}  # fmt: skip


def delimited(lines: list[dict], sign: str) -> bytes:
    def cell(value: object) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in (sign, '"', "\n")) else text

    return "".join(sign.join(map(cell, row)) + "\n" for row in [list(lines[0]), *map(dict.values, lines)]).encode()


def contents(lines: list[dict]) -> dict[str, bytes]:
    """A file of every tabular format with these rows."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(lines), buffer, write_page_checksum=True)
    return {
        "a.csv": delimited(lines, ","),
        "a.tsv": delimited(lines, "\t"),
        "a.jsonl": "\n".join(map(json.dumps, lines)).encode(),
        "a.parquet": buffer.getvalue(),
    }


FILES = [
    pytest.param(format_.read, file, content, id=f"{name}-{file}")
    for name, format_ in FORMATS.items()
    for file, content in (contents(format_.rows) if format_.rows else {f: c.encode() for f, c in format_.files.items()}).items()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mutated")


def read_mutated(read: Callable[[Path], object], folder: Path, file: str, content: bytes) -> None:
    path = folder / file
    path.write_bytes(content)
    reading(lambda: read(path))


@pytest.mark.parametrize(("read", "file", "content"), FILES)
def test_the_files_before_mutation_are_read(tmp_path, read, file, content):
    (tmp_path / file).write_bytes(content)
    assert read(tmp_path / file)


@pytest.mark.parametrize(("read", "file", "content"), FILES)
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_a_mutated_file_is_read_or_refused(folder, read, file, content, operations: list[Mutation]):
    read_mutated(read, folder, file, mutated(content, operations))


@pytest.mark.slow
@pytest.mark.parametrize(("read", "file", "content"), FILES)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(operations=mutations)
def test_many_mutated_files_are_read_or_refused(folder, read, file, content, operations: list[Mutation]):
    read_mutated(read, folder, file, mutated(content, operations))
