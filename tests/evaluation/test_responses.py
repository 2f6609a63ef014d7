"""Responses of files: one id each, one limit for all files, and rows that cannot be read are counted, not scored."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valueflow import store
from valueflow.errors import InputError
from valueflow.evaluation.official_files import scores_csv
from valueflow.evaluation.responses import COLUMNS, own_values, save_responses, texts_about
from valueflow.records import SCHEMAS, ValueId, digest, text_id
from valueflow.store import ResponsesDetails

HEADER = "query,dataset,response\n"
SAME = "q1,d,I cannot help with that.\n"


def written(path, *lines: str, encoding: str = "utf-8") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((HEADER + "".join(lines)).encode(encoding))
    return str(path)


def saved(url: str, root, limit: int | None = None) -> tuple[list[dict], tuple[int, int]]:
    """The stored rows, and the counts of responses and unreadable rows."""
    build = save_responses(url, str(root), limit)
    details = store.details_of(build, ResponsesDetails)
    return store.read_table(build).to_pylist(), (details.responses, details.unreadable)


def two_models(folder) -> str:
    for model, answer in (("a", "Share it."), ("b", "Keep it.")):
        written(folder / model / "answers.csv", SAME, f"q2,d,{answer}\n")
    return f"{folder}/*/answers.csv"


def test_files_of_one_name_have_different_ids_wherever_the_folders_lie(tmp_path):
    rows, counts = saved(two_models(tmp_path / "here"), tmp_path / "root")
    assert counts == (4, 0)
    assert len({row["response_id"] for row in rows}) == 4
    assert rows[0]["response_id"] == digest("a/answers.csv:2", "q1", "d", "I cannot help with that.")
    shutil.copytree(tmp_path / "here", tmp_path / "far" / "away")
    assert saved(f"{tmp_path}/far/away/*/answers.csv", tmp_path / "root")[0] == rows


def test_ids_of_one_file_and_of_files_of_different_names_begin_with_the_file_name(tmp_path):
    one = written(tmp_path / "x" / "one.csv", SAME)
    written(tmp_path / "y" / "two.csv", SAME)
    fields = ("q1", "d", "I cannot help with that.")
    assert [row["response_id"] for row in saved(one, tmp_path)[0]] == [digest("one.csv:2", *fields)]
    assert [row["response_id"] for row in saved(f"{tmp_path}/*/*.csv", tmp_path)[0]] == [
        digest("one.csv:2", *fields), digest("two.csv:2", *fields),
    ]  # fmt: skip


def test_a_limit_is_for_all_files_together(tmp_path):
    for part in range(3):
        written(tmp_path / f"part-{part}.csv", *(f"q,d,Answer {part}-{i}.\n" for i in range(3)))
    for limit, read in ((2, 2), (4, 4), (100, 9)):
        rows, counts = saved(f"{tmp_path}/part-*.csv", tmp_path / "root", limit)
        assert counts == (read, 0)
        assert [row["response"] for row in rows] == [f"Answer {i // 3}-{i % 3}." for i in range(read)]


def json_lines(*responses: object) -> bytes:
    rows = ({"query": f"q{number}", "dataset": "d", "response": response} for number, response in enumerate(responses, 1))
    return "\n".join(map(json.dumps, rows)).encode()


LATIN1 = "q1,d,Ich half der \xe4lteren Frau.\n"
BAD_ROWS = {
    "undecodable response": ("csv", (HEADER + LATIN1 + "q2,d,Fine.\n").encode("latin-1"), ".csv:2: response has bytes"),
    "undecodable query": ("csv", (HEADER + "caf\xe9,d,Fine.\nq2,d,Fine.\n").encode("latin-1"), ".csv:2: query has bytes"),
    "control character": ("csv", (HEADER + "q1,d,a\x1b[2Jb\nq2,d,Fine.\n").encode(), ".csv:2: response has the control"),
    "c1 control character": ("csv", (HEADER + "q1,d,a\x9b2Jb\nq2,d,Fine.\n").encode(), ".csv:2: response has the control"),
    "fields": ("csv", (HEADER + "q1\nq2,d,Fine.\n").encode(), ".csv:2: row has 1 fields"),
    "list": ("jsonl", json_lines(["I."], "Fine."), ".jsonl:1: 'response' holds a list"),
    "mapping": ("jsonl", json_lines({"role": "user"}, "Fine."), ".jsonl:1: 'response' holds a dict"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_counted_and_logged_with_its_place_and_the_others_are_read(tmp_path, caplog, case):
    extension, content, reason = BAD_ROWS[case]
    path = tmp_path / f"r.{extension}"
    path.write_bytes(content)
    rows, counts = saved(str(path), tmp_path / "root")
    assert [(row["query"], row["response"]) for row in rows] == [("q2", "Fine.")]
    assert counts == (1, 1)
    assert f"r{reason}" in caplog.text


def test_a_nested_column_of_parquet_is_the_same_bad_row(tmp_path):
    table = pa.table({"query": ["q"], "dataset": ["d"], "response": [["a", "b"]]})
    pq.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(InputError, match=r"r\.parquet:1: 'response' holds a list"):
        save_responses(str(tmp_path / "r.parquet"), str(tmp_path))


def test_a_file_in_another_encoding_is_refused_by_name_of_the_encoding_and_the_row(tmp_path):
    with pytest.raises(InputError, match=r"1 rows are unreadable, the first is r\.csv:2: .*UTF-8"):
        save_responses(written(tmp_path / "r.csv", LATIN1, encoding="latin-1"), str(tmp_path))
    with pytest.raises(InputError, match=r"r\.csv has no response$"):
        save_responses(written(tmp_path / "r.csv"), str(tmp_path))


def test_utf16_with_a_byte_order_mark_gives_the_same_responses(tmp_path):
    plain = saved(written(tmp_path / "a" / "r.csv", SAME, LATIN1), tmp_path / "root")
    assert saved(written(tmp_path / "b" / "r.csv", SAME, LATIN1, encoding="utf-16"), tmp_path / "root") == plain


def test_scores_of_texts_that_look_like_formulas_can_be_scored_again(tmp_path):
    texts = ["=1+1", "-- she said", "'=quoted", '@home, "and" away', "nan", "-5"]
    rows = [
        {
            "response_id": str(n),
            "query": text,
            "dataset": "d",
            "response": text,
            "theory": "svt",
            "value": "power",
            "intensity": -1.5,
        }
        for n, text in enumerate(texts)
    ]
    content = scores_csv([pa.Table.from_pylist(rows, SCHEMAS["evaluations"])], ["power"])
    assert content.split("\r\n")[1] == "'=1+1,d,'=1+1,-1.5"
    (tmp_path / "scores.csv").write_text(content, newline="")
    again, counts = saved(str(tmp_path / "scores.csv"), tmp_path)
    assert counts == (len(texts), 0)
    assert [(row["query"], row["response"]) for row in again] == [(text, text) for text in texts]


def test_a_control_character_in_the_query_does_not_lose_the_response(tmp_path):
    rows, counts = saved(written(tmp_path / "r.csv", "the project\x99s,d,Fine.\n"), tmp_path)
    assert counts == (1, 0)
    assert rows[0]["query"] == "the project\x99s"
    assert set(rows[0]) == {"response_id", *COLUMNS, "about"}


def test_the_own_value_and_side_of_a_response_are_read_where_its_author_says_them(tmp_path):
    path = tmp_path / "r.csv"
    lines = [
        "q,d,Share it.,Benevolence,2",
        "q,d,Keep it.,svt:power,-1",
        "q,d,a,,1",
        "q,d,b,nothing,1",
        "q,d,c,power,0",
        "q,d,e,power,x",
    ]
    path.write_text("\n".join(["query,dataset,response,about,stance", *lines]))
    own = own_values(str(path))
    assert own == {text_id("Share it."): ("svt:benevolence", 1), text_id("Keep it."): ("svt:power", -1)}
    assert own_values(written(tmp_path / "plain.csv", SAME)) == own_values("") == {}
    assert len(own_values("valueflow/samples/responses.csv")) == 48


ABOUT = """query,dataset,response,about
q,d,one,svt:power|svt:face
q,d,two,power
q,d,one,duty:fidelity
q,d,,svt:power
q,d,three,
"""


def test_responses_are_scored_on_the_values_that_they_name(tmp_path):
    (tmp_path / "r.csv").write_text(ABOUT)
    build = save_responses(str(tmp_path / "r.csv"), str(tmp_path), with_about=True)
    values = [ValueId("svt:power"), ValueId("svt:face"), ValueId("duty:fidelity"), ValueId("svt:hedonism")]
    one, two = text_id("one"), text_id("two")
    assert texts_about(build, values) == dict(zip(values, [sorted([one, two]), [one], [one], []], strict=True))
    assert save_responses(str(tmp_path / "r.csv"), str(tmp_path)) != build


def test_about_that_is_no_value_or_none_of_those_asked_for_is_refused(tmp_path):
    (tmp_path / "r.csv").write_text(ABOUT)
    build = save_responses(str(tmp_path / "r.csv"), str(tmp_path), with_about=True)
    with pytest.raises(InputError, match="names none of the values svt:hedonism"):
        texts_about(build, [ValueId("svt:hedonism")])
    (tmp_path / "w.csv").write_text(ABOUT.replace("duty:fidelity", "duty:nothing"))
    wrong = save_responses(str(tmp_path / "w.csv"), str(tmp_path), with_about=True)
    with pytest.raises(InputError, match="nothing"):
        texts_about(wrong, [ValueId("svt:power")])
    (tmp_path / "n.csv").write_text("query,dataset,response\nq,d,r\n")
    with pytest.raises(InputError, match="about"):
        save_responses(str(tmp_path / "n.csv"), str(tmp_path), with_about=True)
