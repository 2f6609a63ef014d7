"""Human ratings: matched by id or by text with the texts of the candidates; what matches nothing is counted, or refused."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valueflow import store
from valueflow.errors import InputError
from valueflow.judging.audit.rated_texts import rated_texts
from valueflow.records import SCHEMAS, ValueId, text_id
from valueflow.store import Build, CandidatesDetails
from valueflow.vidb import read_anchors
from valueflow.vidb.ratings import human_ratings, read_ratings

TEXTS = ["The owner's cousins helped.", "It's raining here as well.", "We share everything."]
CURLY = [text.replace("'", "\u2019") for text in TEXTS]
IDS = [text_id(text) for text in TEXTS]
POWER, FACE = ValueId("svt:power"), ValueId("svt:face")


@pytest.fixture
def candidates(tmp_path) -> Build:
    """Candidates of two values; the last text is one of svt:power only."""
    build = Build(str(tmp_path), "candidates", "c")
    for value, texts in ((POWER, TEXTS), (FACE, TEXTS[:2])):
        rows = [{"theory": value.theory, "value": value.node, "text_id": text_id(text), "text": text} for text in texts]
        store.write_part(build, pa.Table.from_pylist(rows, SCHEMAS["candidates"]), "0", store.value_folder(value))
    store.commit(build, CandidatesDetails())
    return build


def rated(folder, columns: str, *rows: tuple) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([columns.split(), *rows])
    (folder / "rated.csv").write_text(text.getvalue(), "utf-8")
    return str(folder / "rated.csv")


def test_ratings_of_a_text_are_averaged_and_empty_ones_are_skipped(tmp_path, candidates, caplog):
    rows = [("svt", "power", f"  {TEXTS[0]} ", 4), ("Schwartz", "Power", TEXTS[0], 7), ("svt", "face", TEXTS[0], -1)]
    url = rated(tmp_path, "theory value text rating", *rows, ("svt", "power", TEXTS[1], ""))
    means, unmatched = human_ratings(url, candidates)[:2]
    assert (means, unmatched) == ({POWER: {IDS[0]: 5.5}, FACE: {IDS[0]: -1.0}}, 0)
    assert not caplog.records
    assert [rating.place for rating in read_ratings(url)] == [f"{url}:{line}" for line in (2, 3, 4)]


def test_a_text_that_a_spreadsheet_changed_is_known_by_its_id(tmp_path, candidates, caplog):
    rows = [("svt", "power", i, text, n) for n, (i, text) in enumerate(zip(IDS, CURLY, strict=True))]
    means, unmatched = human_ratings(rated(tmp_path, "theory value text_id text rating", *rows), candidates)[:2]
    assert (means, unmatched) == ({POWER: {IDS[0]: 0.0, IDS[1]: 1.0, IDS[2]: 2.0}}, 0)
    assert not caplog.records


@pytest.mark.parametrize("spoiled", ["1.23457E+15", "", " "])
def test_an_id_that_a_spreadsheet_changed_leaves_the_text(tmp_path, candidates, spoiled):
    url = rated(tmp_path, "text_id theory value text rating", (spoiled, "svt", "power", TEXTS[0], 3))
    assert human_ratings(url, candidates)[:2] == ({POWER: {IDS[0]: 3.0}}, 0)


def test_the_id_is_read_in_every_format(tmp_path, candidates):
    rows = [
        {"theory": "svt", "value": "power", "text_id": i, "text": text, "rating": 3} for i, text in zip(IDS, CURLY, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    for name in ("r.parquet", "r.jsonl"):
        assert human_ratings(str(tmp_path / name), candidates)[:2] == ({POWER: dict.fromkeys(IDS, 3.0)}, 0)


def test_two_columns_of_ids_and_an_id_that_is_no_text_are_refused(tmp_path):
    url = rated(tmp_path, "theory value text rating text_id text_id", ("svt", "power", TEXTS[0], 1, IDS[0], IDS[1]))
    with pytest.raises(InputError, match=r"rated\.csv has 2 columns 'text_id'"):
        read_ratings(url)
    row = {"theory": "svt", "value": "power", "text_id": True, "text": "a", "rating": 3}
    (tmp_path / "r.jsonl").write_text(json.dumps(row), "utf-8")
    with pytest.raises(InputError, match=r"r\.jsonl:1: 'text_id' holds a bool"):
        read_ratings(str(tmp_path / "r.jsonl"))


def test_an_id_of_another_text_is_refused(tmp_path, candidates):
    rows = [(i, "svt", "power", text, 1) for i, text in zip(IDS, [TEXTS[0], *TEXTS[:0:-1]], strict=True)]
    with pytest.raises(InputError, match=rf"rated\.csv:3: text_id {IDS[1]} is another text's"):
        human_ratings(rated(tmp_path, "text_id theory value text rating", *rows), candidates)


def test_ratings_without_a_text_are_counted_with_their_lines(tmp_path, candidates, caplog):
    rows = [
        ("svt", "power", CURLY[0], 9),
        ("svt", "power", TEXTS[0], 2),
        ("svt", "face", TEXTS[2], 1),
        ("mft", "purity", "x", 0),
    ]
    url = rated(tmp_path, "theory value text rating", *rows)
    assert human_ratings(url, candidates)[:2] == ({POWER: {IDS[0]: 2.0}}, 3)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "3 of 4 ratings" in record.getMessage()
    assert all(f"{url}:{line}" in record.getMessage() for line in (2, 4, 5))
    assert f"{url}:3" not in record.getMessage()


def test_a_file_whose_ratings_are_of_no_text_is_refused(tmp_path, candidates):
    for rows, message in (
        ([("svt", "power", text, 9) for text in [*CURLY[:2], *"abcdefg"]], r"9 of 9 ratings .*rated\.csv:2.*text_id"),
        ([("svt", "power", TEXTS[0], " ")], r"rated\.csv has no rating"),
        ([], r"rated\.csv has no rating"),
        ([("svt", "powr", TEXTS[0], 1)], r"rated\.csv:2: unknown value 'svt:powr'; did you mean 'power'\?"),
    ):
        with pytest.raises(InputError, match=message):
            human_ratings(rated(tmp_path, "theory value text rating", *rows), candidates)
    assert human_ratings("", candidates)[:2] == ({}, 0)


def test_calibrations_and_audits_use_the_texts_that_were_drawn_at_random(tmp_path, candidates):
    rows = [
        ("svt", "power", text, rating, rater, basis)
        for text, rating, basis in ((TEXTS[0], 4, "random"), (TEXTS[1], -9, "chosen"), (TEXTS[2], 1, "random"))
        for rater in ("a", "b")
    ]
    rows[0] = (*rows[0][:3], 6, *rows[0][4:])
    url = rated(tmp_path, "theory value text rating rater basis", *rows)
    assert human_ratings(url, candidates).means == {POWER: {IDS[0]: 5.0, IDS[1]: -9.0, IDS[2]: 1.0}}
    assert human_ratings(url, candidates).unselected == {POWER: {IDS[0]: 5.0, IDS[2]: 1.0}}
    assert read_anchors(url) == [(POWER, TEXTS[0], 5.0), (POWER, TEXTS[1], -9.0), (POWER, TEXTS[2], 1.0)]
    audited = rated_texts(url, []).to_pylist()
    assert {row["text"]: row["rating"] for row in audited} == {TEXTS[0]: 5.0, TEXTS[2]: 1.0}
    one = rated(tmp_path, "theory value text rating basis", ("svt", "power", TEXTS[0], 1, "chosen"))
    assert human_ratings(one, candidates) == ({POWER: {IDS[0]: 1.0}}, 0, {})
