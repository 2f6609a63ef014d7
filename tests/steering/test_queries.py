"""Queries of users' files: datasets, repeated rows, refusals, and the 500 queries of the paper."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valueflow.errors import InputError
from valueflow.records import digest
from valueflow.steering.queries import read_queries


def test_the_dataset_is_a_column_or_the_name_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("query\nWhat now?\nAnd then?\n")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"query": q, "dataset": "own"}) for q in ("What now?", "Why?")))
    pq.write_table(pa.table({"query": ["Who?"]}), tmp_path / "c.parquet")
    queries = read_queries([f"{tmp_path}/a.csv", f"{tmp_path}/b.jsonl", f"{tmp_path}/c.parquet"])
    told = [("a", "What now?"), ("a", "And then?"), ("own", "What now?"), ("own", "Why?"), ("c", "Who?")]
    assert [query[1:] for query in queries] == told
    assert queries[0].query_id == digest("query", "a", "What now?")
    assert len({query.query_id for query in queries}) == 5


def test_a_limit_holds_for_each_dataset_and_repeated_rows_count_once(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("query,dataset\nq1,x\nq1,x\nq2,x\nq3,x\nq1,y\n")
    assert [query[1:] for query in read_queries(f"{tmp_path}/*.csv", 2)] == [("x", "q1"), ("x", "q2"), ("y", "q1")]
    assert "1 rows repeat" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"query\n", "no query"),
        ("a.csv", b"query,dataset\n,x\n", "no query"),
        ("a.csv", b"question\nWhy?\n", "lacks column"),
        ("a.csv", b"query\nWh\x07y?\n", "control character"),
        ("a.jsonl", b'{"query": ["a", "b"]}\n', "a.jsonl:1"),
    ],
)
def test_a_file_without_queries_is_refused_in_one_sentence(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason) as refused:
        read_queries(f"{tmp_path}/{name}")
    assert "\n" not in str(refused.value)
    assert name in str(refused.value)


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_queries([f"{tmp_path}/none.csv"])


def test_letters_of_windows_that_were_misread_are_dropped(tmp_path):
    (tmp_path / "a.csv").write_text("query\nLupo\x99 \x96 yes?\n", "utf-8")
    assert [query.text for query in read_queries(f"{tmp_path}/a.csv")] == ["Lupo yes?"]


def test_the_queries_of_the_paper_load_as_they_are(data):
    queries = read_queries(f"{data}/queries/*.csv")
    counts = {name: sum(query.dataset == name for query in queries) for name in {query.dataset for query in queries}}
    assert counts == dict.fromkeys(("gpv", "moral_choice", "moral_stories", "opinionqa", "valuebench"), 100)


def test_the_sample_queries_ship():
    assert len(read_queries("valueflow/samples/queries.csv")) == 20
