"""One parser for every tabular file: both readers see the same rows, the strict one raises where the lenient one reports."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valueflow.errors import InputError
from valueflow.tabular import Row, cell, columns, require, row_names, rows, strict_rows, urls

ROWS = [
    {"text": 'two\nlines, "quoted"', "rating": "1"},
    {"text": "Ærlighet 诚实", "rating": "-2.5"},
    {"text": "", "rating": "0"},
]


def delimited(sign: str) -> bytes:
    lines = [["text", "rating"], *([row["text"], row["rating"]] for row in ROWS)]
    lines = [[f'"{field.replace(chr(34), chr(34) * 2)}"' for field in line] for line in lines]
    return "".join(sign.join(line) + "\r\n" for line in lines).encode()


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def saved(folder, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


FILES = {
    "a.csv": (delimited(","), [2, 4, 5]),
    "bom.csv": (b"\xef\xbb\xbf" + delimited(","), [2, 4, 5]),
    "a.tsv": (delimited("\t"), [2, 4, 5]),
    "A.TSV": (delimited("\t"), [2, 4, 5]),
    "a.jsonl": ("\n\n".join(map(json.dumps, ROWS)).encode(), [1, 3, 5]),
    "bom.json": (b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, ROWS)).encode(), [1, 2, 3]),
    "a.parquet": (parquet(pa.Table.from_pylist(ROWS)), [1, 2, 3]),
}


@pytest.mark.parametrize("name", FILES)
def test_both_readers_return_the_same_rows_and_numbers_of_every_format(tmp_path, name):
    content, numbers = FILES[name]
    url = saved(tmp_path, name, content)
    assert sorted(columns(url)) == ["rating", "text"]
    strict, lenient = list(strict_rows(url, ["text", "rating"])), list(rows(url, ["text", "rating"]))
    assert [row.fields for row in strict] == ROWS
    assert [row.number for row in strict] == numbers
    assert [{name: cell(row.fields, name) for name in row.fields} for row in lenient] == ROWS
    assert [row._replace(fields={}) for row in strict] == [row._replace(fields={}) for row in lenient]
    assert (strict[0].row_id, strict[0].location) == (f"{name}:{numbers[0]}", f"{url}:{numbers[0]}")


UNDECODABLE_COLUMN = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"caf\xe9"]).buffers())
BAD = {
    "fewer fields": ("a.csv", b"text,rating\nfine,1\nshort\n", "3: row has 1 fields, the header has 2"),
    "more fields": ("a.csv", b"text,rating\nfine,1\nlong,1,2\n", "3: row has 3 fields, the header has 2"),
    "unclosed quote": ("a.csv", b'text,rating\n"open,1\nb,2\n', "2: row has 1 fields, the header has 2; it spans lines 2 to 3"),
    "huge field": ("a.csv", b"text,rating\n" + b"x" * 200_000 + b",1\n", "2: row cannot be parsed: field larger"),
    "no JSON": ("a.jsonl", b'{"text": "a", "rating": 1}\n{"text": \n', "2: row is not JSON: "),
    "no object": ("a.jsonl", b'{"text": "a", "rating": 1}\n[1]\n', "2: row is not a JSON object"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_an_error_with_its_line_or_data_with_the_same_reason(tmp_path, case):
    name, content, message = BAD[case]
    url = saved(tmp_path, name, content)
    with pytest.raises(InputError) as refused:
        list(strict_rows(url, ["text", "rating"]))
    assert str(refused.value).startswith(f"{url}:{message}")
    (bad,) = (row for row in rows(url, ["text", "rating"]) if row.error)
    assert str(refused.value) == f"{bad.location}: {bad.error}"
    assert bad.fields == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,other\nfine,1\ncaf\xe9,1\n"),
        ("a.csv", b"text,other\nfine,1\nx,caf\xe9\n"),
        ("a.jsonl", b'{"text": "fine"}\n\n{"text": "caf\xe9"}\n'),
        ("a.jsonl", b'{"text": "fine"}\n\n{"text": "\\ud800"}\n'),
        ("a.parquet", parquet(pa.table({"text": UNDECODABLE_COLUMN}))),
    ],
)
def test_strings_of_strict_rows_are_valid_unicode(tmp_path, name, content):
    url = saved(tmp_path, name, content)
    number = 2 if name == "a.parquet" else 3
    with pytest.raises(InputError, match=rf"{name}:{number}: row has bytes that are not UTF-8, or lone surrogates"):
        list(strict_rows(url, ["text"]))
    assert not any(row.error for row in rows(url, ["text"]))


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b"text,n\na\x1bb,1\n"), ("a.jsonl", b'{"text": "a\\u0000b", "n": 1}\n')]
)
def test_strict_rows_refuse_control_characters_in_the_columns_that_are_read(tmp_path, name, content):
    url = saved(tmp_path, name, content)
    with pytest.raises(InputError, match=rf"{name}:[12]: 'text' has the control character U\+00"):
        list(strict_rows(url, ["text"]))
    assert len(list(strict_rows(url, ["n"]))) == 1


@pytest.mark.parametrize("name", ["utf16.csv", "utf16.tsv", "utf16.jsonl"])
def test_utf16_with_a_byte_order_mark_is_read_like_utf8(tmp_path, name):
    content = FILES[f"a.{name.rpartition('.')[2]}"][0].decode().encode("utf-16")
    url = saved(tmp_path, name, content)
    assert sorted(columns(url)) == ["rating", "text"]
    assert [row.fields for row in strict_rows(url, ["text"])] == ROWS


def test_utf16_without_a_byte_order_mark_is_refused_by_every_reader(tmp_path):
    url = saved(tmp_path, "a.csv", delimited(",").decode().encode("utf-16-le"))
    for read in (lambda: columns(url), lambda: list(rows(url, ["text"])), lambda: list(strict_rows(url, ["text"]))):
        with pytest.raises(InputError, match=r"a\.csv is not UTF-8"):
            read()


def test_rows_of_files_of_one_name_have_their_path_below_the_shared_folder():
    names = {"one.csv": "one.csv", "a/r.csv": "a/r.csv", "b/r.csv": "b/r.csv", "b/c/r.csv": "b/c/r.csv", "a/two.csv": "two.csv"}
    for root in ("", "/some/where/", "s3://bucket/a/"):
        assert row_names([root + path for path in names]) == {root + path: name for path, name in names.items()}
    assert row_names(["x/y/r.csv"]) == {"x/y/r.csv": "r.csv"}
    assert row_names(["x/r.csv", "x/y/r.csv"]) == {"x/r.csv": "r.csv", "x/y/r.csv": "y/r.csv"}


def test_columns_of_json_lines_are_checked_row_by_row(tmp_path):
    url = saved(tmp_path, "a.jsonl", b'{"text": "a", "rating": null}\n{"text": "b"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2 lacks 'rating'; a row needs text, rating"):
        list(strict_rows(url, ["text", "rating"]))
    assert [row.fields["rating"] for row in strict_rows(saved(tmp_path, "b.jsonl", b'{"rating": null}'), ["rating"])] == [None]


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_a_nested_value_is_refused_in_the_columns_that_are_read(tmp_path, value):
    url = saved(tmp_path, "a.jsonl", json.dumps({"text": "a", "other": value}).encode())
    assert [cell(row.fields, "text") for row in strict_rows(url, ["text"])] == ["a"]
    with pytest.raises(InputError, match=rf"a\.jsonl:1: 'other' holds a {type(value).__name__}, not a string"):
        list(strict_rows(url, ["other"]))
    (row,) = rows(url, ["other"])
    with pytest.raises(InputError, match="'other' holds a"):
        cell(row.fields, "other")


def test_quotes_are_plain_characters_where_the_format_has_none(tmp_path):
    url = saved(tmp_path, "a.tsv", b'text\tn\n"open\t1\n')
    assert [row.fields for row in strict_rows(url, ["text"], quoted=False)] == [{"text": '"open', "n": "1"}]


def test_a_missing_column_is_named_with_the_existing_ones(tmp_path):
    url = saved(tmp_path, "a.csv", b"text;rating\n")
    for read in (lambda: require(url, ["text"]), lambda: list(strict_rows(url, ["text"]))):
        with pytest.raises(InputError, match=r"a\.csv lacks column\(s\) \['text'\]; it has \['text;rating'\]"):
            read()


@pytest.mark.parametrize("name", ["gone.csv", "gone.jsonl", "gone.parquet", "folder.csv"])
def test_a_missing_file_is_named_by_every_reader(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    url = str(tmp_path / name)
    for read in (lambda: columns(url), lambda: list(rows(url, ["text"])), lambda: list(strict_rows(url, ["text"]))):
        with pytest.raises(InputError, match=rf"{name} does not exist or is not a file"):
            read()
    with pytest.raises(InputError, match=name):
        urls(url)


def test_a_file_of_another_format_is_refused_by_extension(tmp_path):
    with pytest.raises(InputError, match=r"a\.xlsx' must end in one of \.csv, \.tsv, \.jsonl, \.parquet"):
        list(strict_rows(saved(tmp_path, "a.xlsx", b""), ["text"]))


def test_strict_reading_is_lazy(tmp_path):
    url = saved(tmp_path, "a.csv", b"text\n" + b"words\n" * 1000 + b"a,b\n")
    reader = strict_rows(url, ["text"])
    assert next(reader) == Row(url, 2, {"text": "words"})
    with pytest.raises(InputError, match=r"a\.csv:1002: "):
        list(reader)
