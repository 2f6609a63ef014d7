"""One parser for every tabular file: both readers see the same rows, the strict one raises where the lenient one reports."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import within

from valueflow.errors import InputError
from valueflow.tabular import Row, cell, columns, number, require, row_error, row_names, rows, strict_rows, urls

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
    "quotes after backslashes": ("a.csv", b'text,rating\nfine,1\n"He said \\"no\\" twice",2\n', "3: row cannot be parsed: "),
    "words after a quote": ("a.csv", b'text,rating\nfine,1\n"no" he said,2\n', "3: row cannot be parsed: "),
    "the header again": ("a.csv", b"text,rating\nfine,1\ntext,rating\n", "3: row repeats the header"),
    "a key twice": (
        "a.jsonl",
        b'{"text": "a", "rating": 1}\n{"rating": 1, "text": "b", "rating": 2}',
        "2: 'rating' occurs twice",
    ),
    "fewer fields": ("a.csv", b"text,rating\nfine,1\nshort\n", "3: row has 1 fields, the header has 2"),
    "more fields": ("a.csv", b"text,rating\nfine,1\nlong,1,2\n", "3: row has 3 fields, the header has 2"),
    "unclosed quote": ("a.csv", b'text,rating\n"open,1\nb,2\n', "2: row cannot be parsed: "),
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
    for read in (lambda: require([url], ["text"]), lambda: list(strict_rows(url, ["text"]))):
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


def cells(url: str, name: str = "text") -> list[str]:
    return [cell(row.fields, name) for row in strict_rows(url, [name])]


WORDS = ["nan", "NaN", "null", "NA", "None", "N/A"]


def test_nan_is_null_and_the_words_for_it_are_texts_in_every_format(tmp_path):
    text = json.dumps
    files = {
        "a.csv": "text,n\n" + "".join(f'"{word}",1\n' for word in WORDS) + "nan,1\nNaN,1\n,1\n",
        "a.tsv": "n\ttext\n" + "".join(f'1\t"{word}"\n' for word in WORDS) + "1\tnan\n1\tNaN\n1\t\n",
        "a.jsonl": "".join(f'{{"text": {text(word)}}}\n' for word in WORDS) + '{"text": NaN}\n{"text": null}\n{"text": ""}\n',
    }
    for name, content in files.items():
        assert cells(saved(tmp_path, name, content.encode())) == [*WORDS, "", "", ""], name
    column = pa.array([*WORDS, None, "", ""])
    assert cells(saved(tmp_path, "a.parquet", parquet(pa.table({"text": column})))) == [*WORDS, "", "", ""]
    for width in (pa.float16(), pa.float32(), pa.float64()):
        url = saved(tmp_path, "n.parquet", parquet(pa.table({"text": pa.array([0.5, float("nan"), None], width)})))
        assert cells(url) == ["0.5", "", ""]


def test_only_a_whole_bare_cell_is_null(tmp_path):
    content = b'n,text\n1,nan and "nan"\n"1","x\n""nan"",nan"\nnan,"nan"\n"a,",nan\n'
    url = saved(tmp_path, "a.csv", content)
    assert cells(url) == ['nan and "nan"', 'x\n"nan",nan', "nan", ""]
    assert [row.fields["n"] for row in rows(url, ["n"])] == ["1", "1", None, "a,"]
    assert [row.fields for row in rows(saved(tmp_path, "a.tsv", b'n\tt\nnan\t"nan"\n'), [], quoted=False)] == [
        {"n": None, "t": '"nan"'}
    ]


@pytest.mark.parametrize(
    ("value", "kind"), [("true", "bool"), ("[1]", "list"), ('{"a": 1}', "dict"), ("Infinity", "inf"), ('"\\ud800"', "UTF-8")]
)
def test_a_cell_that_is_no_text_is_an_error_for_both_readers(tmp_path, value, kind):
    url = saved(tmp_path, "a.jsonl", f'{{"text": "a"}}\n{{"text": {value}}}'.encode())
    with pytest.raises(InputError, match=rf"a\.jsonl:2: .*{kind}"):
        list(strict_rows(url, ["text"]))
    assert [bool(row_error(row, ["text"])) for row in rows(url, ["text"])] == [False, True]
    assert not any(row_error(row, ["other"]) for row in rows(url, ["other"]))


DUPLICATES = {
    "a.csv": b"id,text,label,text,label\n1,right,a,wrong,b\n",
    "a.tsv": b"id\ttext\ttext\tlabel\tlabel\n1\tright\twrong\ta\tb\n",
    "a.parquet": parquet(
        pa.Table.from_arrays([pa.array([w]) for w in "1abcd"], names=["id", "text", "text", "label", "label"])
    ),
}


@pytest.mark.parametrize("name", DUPLICATES)
def test_a_column_that_occurs_twice_is_refused_only_where_it_is_read(tmp_path, name):
    url = saved(tmp_path, name, DUPLICATES[name])
    for read in (
        lambda url, names: require([url], names),
        lambda url, names: list(rows(url, names)),
        lambda url, names: list(strict_rows(url, names)),
    ):
        with pytest.raises(InputError, match=rf"{name} has 2 columns 'text'"):
            read(url, ["id", "text"])
    assert cells(url, "id") == ["1"]


def test_a_key_that_occurs_twice_is_an_error_only_where_it_is_read(tmp_path):
    url = saved(tmp_path, "a.jsonl", b'{"text": "a", "n": 1, "n": 2}\n')
    assert cells(url) == ["a"]
    assert [bool(row.error) for row in rows(url, ["n"])] == [True]


def test_a_line_of_many_keys_is_read_in_the_time_that_its_length_takes(tmp_path):
    keys = ",".join(f'"k{i}":1' for i in range(20_000))
    url = saved(tmp_path, "a.jsonl", f'{{"text": "a", {keys}, "k1": 2}}\n'.encode())
    with within(5):
        assert cells(url) == ["a"]
    assert [bool(row.error) for row in rows(url, ["k1"])] == [True]


def test_the_header_of_a_file_that_was_joined_to_another_is_no_row(tmp_path):
    url = saved(tmp_path, "a.csv", b"\xef\xbb\xbftext,n\na,1\n\xef\xbb\xbftext,n\nb,2\n")
    assert [(row.fields.get("text"), row.error) for row in rows(url, ["text"])] == [
        ("a", ""), (None, "row repeats the header"), ("b", ""),
    ]  # fmt: skip


def test_a_changed_byte_in_a_page_of_parquet_with_checksums_is_no_other_number(tmp_path):
    numbers = [i / 7 for i in range(1000)]
    buffer = io.BytesIO()
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.table({"text": numbers}), buffer, **options)
    content = bytearray(buffer.getvalue())
    content[4000] ^= 1
    with pytest.raises(InputError, match=r"a\.parquet is not readable as parquet"):
        list(strict_rows(saved(tmp_path, "a.parquet", bytes(content)), ["text"]))


@pytest.mark.parametrize("value", ["5,5", "1_0", "nan", "inf", "1e400", "0x1F", "", "1 000", "1.000,5", True, None, "--1"])
def test_what_is_no_finite_decimal_number_is_no_number(value):
    assert number(value) is None
    assert (number(" -2.5 "), number("1e1"), number(3), number("+.5")) == (-2.5, 10.0, 3.0, 0.5)


def test_empty_cells_beyond_the_header_and_blank_rows_are_no_error(tmp_path):
    url = saved(tmp_path, "a.csv", b"text,n\na,1,,\n,,,\n,\n\nb,2\n,3\n")
    assert [(row.number, row.fields) for row in rows(url, ["text"])] == [
        (2, {"text": "a", "n": "1"}),
        (6, {"text": "b", "n": "2"}),
        (7, {"text": "", "n": "3"}),
    ]
    assert cells(saved(tmp_path, "one.csv", b'text\n""\na\n')) == ["", "a"]


def test_no_line_of_a_broken_row_is_taken_for_a_row(tmp_path):
    lines = b'"She said \\"stop,\nthen left, quite\ncalm, really",1\n'
    long = b'"' + b"word " * 40_000 + b'\nanother, line\nend, of text",1\n'
    for broken, end in ((lines, 5), (long, 5)):
        url = saved(tmp_path, "a.csv", b"text,n\na,0\n" + broken + b"b,2\n")
        first, bad, last = rows(url, ["text"])
        assert (first.fields["text"], last.fields["text"], last.number) == ("a", "b", 6)
        assert f"lines 3 to {end}" in bad.error


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_utf_16_with_its_mark_is_read(tmp_path, name):
    content = "text,n\nÆrlighet,1\n" if name == "a.csv" else '{"text": "Ærlighet", "n": 1}\n'
    for encoding in ("utf-16", "utf-8-sig"):
        assert cells(saved(tmp_path, name, content.encode(encoding))) == ["Ærlighet"]


@pytest.mark.parametrize(
    "content", [gzip.compress(b"text\na\n", mtime=0), "text\na\n".encode("utf-16-le"), b"PK\x03\x04", b"t\xe9xt,text\n"]
)
def test_a_file_that_does_not_begin_with_text_is_refused_in_words(tmp_path, content):
    with pytest.raises(InputError, match=r"a\.csv .*UTF-8"):
        require([saved(tmp_path, "a.csv", content)], ["text"])


@pytest.mark.parametrize("content", [b'[{"text": "a"}]', b'\n [\n{"text": "a"}\n]\n'])
def test_a_json_array_is_refused_in_words(tmp_path, content):
    url = saved(tmp_path, "a.json", content)
    for read in (columns, lambda url: list(rows(url, ["text"])), lambda url: list(strict_rows(url, ["text"]))):
        with pytest.raises(InputError, match=r"a\.json holds a JSON array"):
            read(url)


def test_a_key_may_occur_in_one_of_several_files_only(tmp_path):
    first, second = (
        saved(tmp_path, name, content)
        for name, content in (("a.jsonl", b'{"text": "a"}\n'), ("b.jsonl", b'{"text": "b", "late": 1}\n'))
    )
    require([first, second], ["text", "late"])
    with pytest.raises(InputError, match=r"a\.jsonl lacks column\(s\) \['late'\]"):
        require([first], ["text", "late"])
    table = saved(tmp_path, "c.csv", b"text\nc\n")
    with pytest.raises(InputError, match=r"c\.csv lacks column\(s\) \['late'\]"):
        require([first, second, table], ["text", "late"])


def test_a_key_that_first_occurs_late_is_a_column(tmp_path):
    lines = [{"text": f"line {i}"} | ({"late": 1} if i > 300 else {}) for i in range(400)]
    url = saved(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert columns(url) == ["text"]
    require([url], ["text", "late"])
    with pytest.raises(InputError, match=r"lacks column\(s\) \['never'\]; it has \['text', 'late'\]"):
        require([url], ["text", "never"])


@pytest.mark.parametrize("content", [b"text;rating\nx;1\n", b"sep=;\ntext;rating\n", b"text\trating\n"])
def test_other_delimiters_are_told_from_the_header(tmp_path, content):
    with pytest.raises(InputError, match=r"cells of a \.csv are separated by ','"):
        require([saved(tmp_path, "a.csv", content)], ["text"])


def test_lines_may_end_in_carriage_returns_alone(tmp_path):
    assert cells(saved(tmp_path, "a.csv", b"text,n\rone,1\rtwo,2\r")) == ["one", "two"]


def test_parquet_categories_and_other_shapes_of_strings_are_texts(tmp_path):
    words = pa.array(["a", None, "b", "a"])
    for column in (
        words.dictionary_encode(),
        words.cast(pa.large_string()),
        words.cast(pa.string_view()),
        words.cast(pa.binary()),
    ):
        assert cells(saved(tmp_path, "a.parquet", parquet(pa.table({"text": column})))) == ["a", "", "b", "a"]
    bad = pa.DictionaryArray.from_arrays(pa.array([0, 1]), UNDECODABLE_COLUMN)
    with pytest.raises(InputError, match=r"a\.parquet is not readable as parquet"):
        list(rows(saved(tmp_path, "a.parquet", parquet(pa.table({"text": bad}))), ["text"]))


def test_a_damaged_parquet_file_is_one_sentence(tmp_path):
    content = bytearray(parquet(pa.table({"text": [f"text number {i}" for i in range(5000)]})))
    content[len(content) // 3 : len(content) // 2] = b"\xff" * (len(content) // 2 - len(content) // 3)
    with pytest.raises(InputError, match=r"a\.parquet is not readable as parquet"):
        list(rows(saved(tmp_path, "a.parquet", bytes(content)), ["text"]))
