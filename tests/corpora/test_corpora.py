import itertools
import json
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from valueflow.corpora import CorpusConfig, check, read, reader
from valueflow.errors import InputError
from valueflow.records import SCHEMAS, ValueId, digest, text_id

DATA = Path(__file__).parents[2].parent / "shared" / "data"
GENERIC = {"format": "generic", "license": "MIT"}


def rows(path, **config):
    """The three tables of a small corpus as lists of rows."""
    chunks = list(read(CorpusConfig(path=str(path), **config)))
    return [[row for chunk in chunks for row in chunk[i].to_pylist()] for i in range(3)]


def counts(**config):
    """Rows per table, and the values, directions and reasons seen."""
    num, seen, directions, reasons = [0, 0, 0], Counter(), Counter(), Counter()
    for chunk in read(CorpusConfig(**config)):
        num = [n + table.num_rows for n, table in zip(num, chunk, strict=True)]
        seen.update(ValueId.of(row["theory"], row["node"]) for row in chunk[1].select(["theory", "node"]).to_pylist())
        directions.update(chunk[1]["direction"].to_pylist())
        reasons.update(chunk[2]["reason"].to_pylist())
    return num, seen, directions, reasons


def labels(label_rows):
    return [(ValueId.of(row["theory"], row["node"]), row["direction"], row["annotators"]) for row in label_rows]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def generic(folder, text, name="own.csv", columns=None, **config):
    path = write(folder, name, text)
    return rows(path, columns=columns or {"text": "text", "value": "value", "direction": "direction"}, **GENERIC | config)


def valueeval(folder, arguments, marks, categories=("Stimulation", "Universalism: objectivity", "Power: dominance")):
    head = "Argument ID\tConclusion\tStance\tPremise\n"
    path = write(folder, "arguments.tsv", head + "".join("\t".join(row) + "\n" for row in arguments))
    head = "\t".join(["Argument ID", *categories]) + "\n"
    labels = write(folder, "labels.tsv", head + "".join("\t".join(row) + "\n" for row in marks))
    return rows(path, format="valueeval", labels=str(labels))


def test_valueeval_joins_labels_by_argument_and_leaves_quotes_alone(tmp_path):
    arguments = [("A1", "We  should", "against", '"quoted" all  the way'), ("A2", "We should", "in favor of", 'an "open')]
    texts, label_rows, rejected = valueeval(tmp_path, arguments, [("A2", "0", "1", "1"), ("A1", "1", "0", "0")])
    assert rejected == []
    assert [row["text"] for row in texts] == ['"quoted" all the way', 'an "open']
    assert texts[0] == {
        "text_id": text_id('"quoted" all the way'), "text": '"quoted" all the way', "language": "en",
        "group_id": digest("We should"), "source": "valueeval", "source_id": "A1", "license": "CC-BY-4.0",
    }  # fmt: skip
    assert texts[0]["group_id"] == texts[1]["group_id"]
    assert labels(label_rows) == [("svt:stimulation", 1, None), ("svt:universalism", 1, None), ("svt:power-dominance", 1, None)]
    assert [row["text_id"] for row in label_rows] == [texts[0]["text_id"], texts[1]["text_id"], texts[1]["text_id"]]


def test_valueeval_refuses_arguments_without_good_labels(tmp_path):
    arguments = [(name, "C", "against", "a premise") for name in ("A1", "A2", "A3")]
    texts, _, rejected = valueeval(tmp_path, arguments, [("A1", "0", "0", "0"), ("A2", "0"), ("A3", "0", "7", "0")])
    assert [row["source_id"] for row in texts] == ["A1"]
    file = tmp_path / "labels.tsv"
    assert [(row["source_id"], row["reason"]) for row in rejected] == [
        ("A2", f"argument 'A2' has no well-formed row in {file}"),
        ("A3", f"'Universalism: objectivity' is '7' in {file}, not 0 or 1"),
    ]


def test_valueeval_takes_no_side_between_two_rows_of_an_argument(tmp_path):
    arguments = [(name, "C", "against", f"the premise {name}") for name in ("A1", "A2")]
    marks = [("A1", "1", "0", "0"), ("A2", "0", "1", "0"), ("A1", "0", "0", "0"), ("A2", "0", "1", "0")]
    texts, label_rows, rejected = valueeval(tmp_path, arguments, marks)
    assert [row["source_id"] for row in texts] == ["A2"]
    assert labels(label_rows) == [("svt:universalism", 1, None)]
    assert [row["reason"] for row in rejected] == [f"'Stimulation' is '1 and 0' in {tmp_path / 'labels.tsv'}, not 0 or 1"]


def test_valueeval_without_labels_gives_texts_alone(tmp_path):
    path = write(tmp_path, "arguments.tsv", "Argument ID\tConclusion\tStance\tPremise\nA1\tC\tagainst\ta premise\n")
    texts, label_rows, rejected = rows(path, format="valueeval")
    assert (len(texts), label_rows, rejected) == (1, [], [])


def test_valueeval_refuses_a_labels_file_of_other_categories(tmp_path):
    with pytest.raises(InputError, match=r"labels.tsv, column 'Be daring': unknown value 'svt:Be daring'"):
        valueeval(tmp_path, [], [], categories=("Be daring",))


MFRC = "ID\ttext\tEquality\tCare\tNon-Moral\tAuthority\tThin Morality\tLoyalty\tProportionality\tPurity\n"


def test_mfrc_counts_annotators_and_unescapes_entities(tmp_path):
    content = (
        MFRC + "7\tTrump&amp;#039;s &gt; R&amp;D\t2\t3\t1\t1\t1\t1\t1\t1\n"
        '8\t"say ""no"""\t0\t0\t3\t0\t2\t0\t0\t0\n9\tmany\t0\tfew\t3\t0\t2\t0\t0\t0\n'
    )
    texts, label_rows, rejected = rows(write(tmp_path, "mfrc.tsv", content), format="mfrc")
    assert [(row["source_id"], row["text"]) for row in texts] == [("7", "Trump's > R&D"), ("8", 'say "no"')]
    assert sorted(labels(label_rows)) == [
        ("mft:authority-subversion", None, 1), ("mft:care-harm", None, 3), ("mft:equality", None, 2),
        ("mft:loyalty-betrayal", None, 1), ("mft:proportionality", None, 1), ("mft:sanctity-degradation", None, 1),
    ]  # fmt: skip
    assert rejected[0]["reason"] == "'Care' is 'few', not a number of annotators"


def test_mfrc_reads_the_public_csv_of_one_row_per_annotator(tmp_path):
    content = (
        "text,subreddit,bucket,annotator,annotation,confidence\n"
        'that is cruel,a,b,annotator00,"Care,Purity",Confident\n'
        "that is cruel,a,b,annotator01,Care,Confident\n"
        "that is cruel,a,b,annotator02,Non-Moral,Confident\n"
        "that is cruel,a,b,annotator03,Thin Morality,Confident\n"
        "that is cruel,a,b,annotator04,,Confident\n"
        "that is cruel,a,b,annotator05,Caer,Confident\n"
    )
    texts, label_rows, rejected = rows(write(tmp_path, "mfrc.csv", content), format="mfrc")
    assert [row["source_id"] for row in texts] == [f"mfrc.csv:{line}" for line in range(2, 7)]
    assert {row["text_id"] for row in texts} == {text_id("that is cruel")} == {row["group_id"] for row in texts}
    assert labels(label_rows) == [("mft:care-harm", None, 1), ("mft:sanctity-degradation", None, 1), ("mft:care-harm", None, 1)]
    assert [row["reason"] for row in rejected] == ["unknown foundation 'Caer'; did you mean 'Care'?"]


@pytest.mark.parametrize("count", ["9" * 20, "9" * 5_000, "1e5", "1,000", "-1", "1.5", "²"])
def test_mfrc_rejects_what_is_no_number_of_annotators(tmp_path, count):
    content = MFRC + f"r1\twe go\t{count}\t0\t0\t0\t0\t0\t0\t0\nr2\twe stay\t2\t0\t0\t0\t0\t0\t0\t0\n"
    _, label_rows, rejected = rows(write(tmp_path, "mfrc.tsv", content), format="mfrc")
    assert labels(label_rows) == [("mft:equality", None, 2)]
    assert [row["reason"] for row in rejected] == [f"'Equality' is {count!r}, not a number of annotators"] or len(count) > 1000


def test_mfrc_knows_a_file_of_annotations_whose_first_one_is_late(tmp_path):
    lines = [{"text": f"text {i}"} | ({"annotation": "Care"} if i > 110 else {}) for i in range(115)]
    texts, label_rows, rejected = rows(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))), format="mfrc")
    assert (len(texts), len(label_rows), rejected) == (115, 4, [])


SOCIAL = """rot,action,situation,rot-id,rot-moral-foundations,action-moral-judgment
It's bad to lie.,lying,telling a lie,rot/1,care-harm|fairness-cheating,-2.0
It's fine to nap.,napping,telling a lie,rot/2,,
It's good to vote.,voting,voting late,rot/3,loyalty-betrayal,1
"""


@pytest.mark.parametrize(
    ("column", "texts", "directions"),
    [
        ("situation", ["telling a lie", "telling a lie", "voting late"], [None, None, None]),
        ("rot", ["It's bad to lie.", "It's fine to nap.", "It's good to vote."], [1, 1, 1]),
        ("action", ["lying", "napping", "voting"], [-1, -1, 1]),
    ],
)
def test_social_chemistry_direction_depends_on_the_text_chosen(tmp_path, column, texts, directions):
    texts_read, labels_read, rejected = rows(write(tmp_path, "s.csv", SOCIAL), format="social_chemistry", text=column)
    assert [row["text"] for row in texts_read] == texts
    assert [row["source_id"] for row in texts_read] == ["rot/1", "rot/2", "rot/3"]
    assert [row["group_id"] for row in texts_read] == [digest("telling a lie")] * 2 + [digest("voting late")]
    assert texts_read[0]["license"] == "CC-BY-SA-4.0"
    values = ["mft:care-harm", "mft:fairness-cheating", "mft:loyalty-betrayal"]
    assert labels(labels_read) == [(v, d, None) for v, d in zip(values, directions, strict=True)]
    assert rejected == []


def test_social_chemistry_refusals(tmp_path):
    content = SOCIAL + "r,a,s,rot/4,care-harm,bad\nr,a,s,rot/5,care-ham,1\nr,a,s,rot/6,null,\nr,a,s,rot/7,care-harm,\n"
    texts, label_rows, rejected = rows(write(tmp_path, "s.csv", content), format="social_chemistry", text="action")
    assert [(row["source_id"], row["reason"]) for row in rejected] == [
        ("rot/4", "'action-moral-judgment' is 'bad', not a number from -2 to 2"),
        ("rot/5", "unknown value 'mft:care-ham'; did you mean 'care-harm'?"),
    ]
    assert [row["source_id"] for row in texts[-2:]] == ["rot/6", "rot/7"]
    assert labels(label_rows)[-1] == ("mft:care-harm", None, None)


@pytest.mark.parametrize("judgment", ['"nan"', "inf", "-Infinity", "1_0", "1e5", "99", '"1,5"'])
def test_social_chemistry_takes_no_direction_from_what_is_no_judgment(tmp_path, judgment):
    path = write(tmp_path, "s.csv", SOCIAL + f"r,a,s,rot/4,care-harm,{judgment}\nr,b,s,rot/5,care-harm,nan\n")
    _, label_rows, rejected = rows(path, format="social_chemistry", text="action")
    assert [row["source_id"] for row in rejected] == ["rot/4"]
    assert labels(label_rows)[-1] == ("mft:care-harm", None, None)


def test_valuenet(tmp_path):
    content = (
        "id,scenario,label\n1,[SELF-DIRECTION] I chose my own path,1\n2,[POWER] I gave in.,-1\n3,[SECURITY] I ate,0\n"
        "4,I have no value,1\n5,[POWR] I gave in,1\n6,[POWER] I gave in,2\n7,[POWER] ,1\n"
    )
    texts, label_rows, rejected = rows(write(tmp_path, "v.csv", content), format="valuenet")
    assert [row["text"] for row in texts] == ["I chose my own path", "I gave in.", "I ate"]
    assert labels(label_rows) == [("svt:self-direction", 1, None), ("svt:power", -1, None), ("svt:security", 0, None)]
    assert [row["reason"] for row in rejected] == [
        "scenario does not start with a value in brackets, as in '[POWER] text'",
        "unknown value 'svt:POWR'; did you mean 'power'?",
        "direction '2' is not one of -1, 0, 1",
        "text is empty",
    ]


def test_valueprism_resolves_phrases_and_keeps_the_others_unlabelled(tmp_path):
    content = """situation,vrd,text,valence
Voting for a friend,Value,Universalism,Supports
Voting for a friend,Value,Honesty,Opposes
Voting for a friend,Right,Right to vote,Either
Voting for a friend,Right,The right to free speech,
Voting for a friend,Duty,Duty of Fidelity,Supports
Voting for a friend,Duty,duty to do no harm,Supports
Voting for a friend,Duty,Duty to tell your sister,Supports
Voting for a friend,Virtue,Honesty,Supports
Voting for a friend,Value,Honesty,Support
"""
    texts, label_rows, rejected = rows(write(tmp_path, "p.csv", content), format="valueprism")
    assert len(texts) == 7
    assert {row["group_id"] for row in texts} == {digest("Voting for a friend")}
    assert labels(label_rows) == [
        ("svt:universalism", 1, None), ("mft:honesty", -1, None), ("right:political-participation", 0, None),
        ("right:freedom-of-expression", None, None), ("duty:fidelity", 1, None), ("duty:non-maleficence", 1, None),
    ]  # fmt: skip
    assert [row["reason"] for row in rejected] == [
        "unknown vrd 'Virtue'; allowed: Value, Right, Duty",
        "unknown valence 'Support'; did you mean 'Supports'?",
    ]


def test_fulcra(tmp_path):
    lines = [
        {"dialogue": "Human: May I?\nBob: Yes.", "value_types": ["universalism: -1", "self-direction: +1", "power: 1"]},
        {"dialogue": "Human: May I?\nBob: No.", "value_types": []},
        {"dialogue": "Human: Hm\nBob: No.", "value_types": ["achievement: =1"]},
        {"dialogue": "Human: Hm\nBob: No.", "value_types": ["achievement"]},
        {"dialogue": "Human: Hm\nBob: No.", "value_types": "achievement: 1"},
        {"dialogue": ["Human: Hm"], "value_types": []},
    ]
    path = write(tmp_path, "dev.jsonl", "".join(json.dumps(line) + "\n" for line in lines) + '\n[1]\n{"dialogue": \n')
    texts, label_rows, rejected = rows(path, format="fulcra")
    assert [row["text"] for row in texts] == ["Human: May I? Bob: Yes.", "Human: May I? Bob: No."]
    assert {row["group_id"] for row in texts} == {digest("Human: May I?")}
    assert {row["license"] for row in texts} == {"unknown"}
    assert labels(label_rows) == [("svt:universalism", -1, None), ("svt:self-direction", 1, None), ("svt:power", 1, None)]
    assert [(row["source_id"], row["reason"]) for row in rejected] == [
        ("dev.jsonl:3", "direction '=1' is not one of -1, 0, 1"),
        ("dev.jsonl:4", "value type 'achievement' is not of the form 'name: +1'"),
        ("dev.jsonl:5", "'value_types' is not a list"),
        ("dev.jsonl:6", "'dialogue' holds a list, not a string"),
        ("dev.jsonl:8", "row is not a JSON object"),
        ("dev.jsonl:9", "row is not JSON: Expecting value: line 2 column 1 (char 14)"),
    ]


EVERY = {name: name for name in ("text", "theory", "value", "direction", "source_id", "group", "license", "language")}
USER_ROW = {
    "text": "Ich helfe", "theory": "schwartz", "value": "Benevolence", "direction": 1, "source_id": 5, "group": "g",
    "license": "CC0", "language": "de",
}  # fmt: skip


def delimited(sign):
    return (sign.join(USER_ROW) + "\n" + sign.join(map(str, USER_ROW.values())) + "\n").encode()


def parquet(**columns):
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), out)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.csv", delimited(",")),
        ("own.TSV", delimited("\t")),
        ("bom.csv", b"\xef\xbb\xbf" + delimited(",")),
        ("own.jsonl", (json.dumps(USER_ROW) + "\n").encode()),
        ("own.parquet", parquet(**{name: [value] for name, value in USER_ROW.items()}, vector=[[1.0, 2.0]])),
        ("large.parquet", parquet(**{n: pa.array([str(v)], pa.large_string()) for n, v in USER_ROW.items()})),
    ],
)
def test_generic_reads_every_kind_of_file_alike(tmp_path, name, content):
    texts, label_rows, rejected = rows(write(tmp_path, name, content), format="generic", columns=EVERY, source="mine")
    assert rejected == []
    assert texts == [
        {
            "text_id": text_id("Ich helfe"), "text": "Ich helfe", "language": "de", "group_id": digest("g"),
            "source": "mine", "source_id": "5", "license": "CC0",
        }
    ]  # fmt: skip
    assert label_rows == [
        {
            "text_id": text_id("Ich helfe"), "theory": "svt", "node": "benevolence", "direction": 1,
            "annotators": None, "source": "mine",
        }
    ]  # fmt: skip


def test_generic_values_with_and_without_a_theory(tmp_path):
    content = "text,theory,value,direction\nhe lies,,mft:Care/Harm,-1.0\nhe gives,duty,justice,\nhe rests,,,\n"
    columns = {name: name for name in ("text", "theory", "value", "direction")}
    texts, label_rows, rejected = generic(tmp_path, content, columns=columns)
    assert (len(texts), rejected) == (3, [])
    assert labels(label_rows) == [("mft:care-harm", -1, None), ("duty:justice", None, None)]
    assert [row["source_id"] for row in texts] == ["own.csv:2", "own.csv:3", "own.csv:4"]
    assert {row["license"] for row in texts} == {"MIT"}


def test_rows_of_files_of_one_name_in_two_folders_have_different_ids(tmp_path):
    for folder, text in (("a", "Words of a."), ("b", "Words of b.")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "own.csv", f"text\n{text}\n12\n")
    texts, _, rejected = rows(f"{tmp_path}/*/own.csv", columns={"text": "text"}, **GENERIC)
    assert [row["source_id"] for row in texts] == ["a/own.csv:2", "b/own.csv:2"]
    assert [row["source_id"] for row in rejected] == ["a/own.csv:3", "b/own.csv:3"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b",power,1", "text is empty"),
        (b' \t ,"power",1', "text is empty"),
        (b"12.5 % 300,power,1", "text has no letters, only numbers or signs"),
        (b"caf\xe9 time,power,1", "text has bytes that are not UTF-8, or lone surrogates"),
        (b"a\x00b,power,1", "text has the control character U+0000: binary data"),
        (b"PK\x03\x04,power,1", "text has the control character U+0003: binary data"),
        ("a\x9b2Jb,power,1".encode(), "text has the control character U+009B: binary data"),
        (b"fine,power", "row has 2 fields, the header has 3"),
        (b"fine,power,1,1", "row has 4 fields, the header has 3"),
        (b"fine,powr,1", "unknown value 'powr'; did you mean 'power'?"),
        (b"fine,justice,1", "value 'justice' is ambiguous; write one of mft:justice, duty:justice"),
        (b"fine,p\xffwer,1", "value has bytes that are not UTF-8, or lone surrogates"),
        (b"fine,power,2", "direction '2' is not one of -1, 0, 1"),
        (b"fine,power,up", "direction 'up' is not one of -1, 0, 1"),
        (b"fine,,1", "row has a theory or a direction but no value"),
        (b"x" * 200_000 + b",power,1", "row cannot be parsed: field larger than field limit (131072)"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_and_the_rest_is_read(tmp_path, line, reason):
    content = b"text,value,direction\nbefore,power,1\n" + line + b"\n\nafter,power,1\n"
    texts, label_rows, rejected = generic(tmp_path, content)
    assert [row["text"] for row in texts] == ["before", "after"]
    assert len(label_rows) == 2
    path = str(tmp_path / "own.csv")
    assert rejected == [{"source": "generic", "source_id": "own.csv:3", "file": path, "reason": reason}]


def test_an_unclosed_quote_says_how_much_it_swallowed(tmp_path):
    content = 'text,value\n"two\nlines",power\n"open,power\n' + "words,power\n" * 9
    texts, _, rejected = generic(tmp_path, content, columns={"text": "text", "value": "value"})
    assert [(row["text"], row["source_id"]) for row in texts] == [("two lines", "own.csv:2")]
    (row,) = rejected
    assert row["source_id"] == "own.csv:4"
    assert "lines 4 to 13" in row["reason"]


def test_rows_refused_in_columns_of_the_user(tmp_path):
    content = "text,theory,value,license\nfine,svtt,power,MIT\nfine,svt,power,\n"
    columns = {name: name for name in ("text", "theory", "value", "license")}
    _, _, rejected = generic(tmp_path, content, columns=columns, license="")
    assert [row["reason"] for row in rejected] == [
        "unknown theory 'svtt'; did you mean 'svt'?",
        "row has no license, and the corpus' config gives none",
    ]


def test_json_and_parquet_rows_that_are_not_text(tmp_path):
    lines = ['{"text": "\\ud800 x"}', '{"text": null}', '{"text": 12}', '{"text": {"a": 1}}', "{}", '{"text": "fine"}']
    texts, _, rejected = generic(tmp_path, "\n".join(lines), "own.jsonl", {"text": "text"})
    assert [row["text"] for row in texts] == ["fine"]
    assert [row["reason"] for row in rejected] == [
        "text has bytes that are not UTF-8, or lone surrogates", "text is empty", "text has no letters, only numbers or signs",
        "'text' holds a dict, not a string", "text is empty",
    ]  # fmt: skip
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"fine"]).buffers())
    texts, _, rejected = generic(tmp_path, parquet(text=bad), "own.parquet", {"text": "text"})
    assert [(row["text"], row["source_id"]) for row in texts] == [("fine", "own.parquet:2")]
    assert [row["reason"] for row in rejected] == ["text has bytes that are not UTF-8, or lone surrogates"]


def test_chunks_are_bounded_and_conform_and_keep_duplicates(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK", 4)
    path = write(tmp_path, "own.csv", "text\n" + "the same\n1\n" * 5)
    chunks = list(read(CorpusConfig(path=str(path), columns={"text": "text"}, **GENERIC)))
    assert [[table.num_rows for table in chunk] for chunk in chunks] == [[2, 0, 2], [2, 0, 2], [1, 0, 1]]
    for chunk in chunks:
        assert [table.schema for table in chunk] == [SCHEMAS[name] for name in ("texts", "source_labels", "rejected")]


def test_reading_is_lazy_and_max_rows_stops_it(tmp_path):
    path = write(tmp_path, "own.csv", "text\n" + "words\n" * 30_000)
    config = CorpusConfig(path=str(path), columns={"text": "text"}, max_rows=7, **GENERIC)
    assert [chunk[0].num_rows for chunk in read(config)] == [7]
    chunks = read(config.model_copy(update={"max_rows": None}))
    assert [chunk[0].num_rows for chunk in itertools.islice(chunks, 2)] == [5_000, 5_000]


def test_globs_and_other_file_systems(tmp_path):
    for number in (2, 1):
        write(tmp_path, f"part-{number}.csv", f"text\nfile {number}\n")
    texts, _, _ = rows(tmp_path / "part-*.csv", columns={"text": "text"}, **GENERIC)
    assert [(row["text"], row["source_id"]) for row in texts] == [("file 1", "part-1.csv:2"), ("file 2", "part-2.csv:2")]
    fsspec.filesystem("memory").pipe_file("/corpora/own.csv", b"text\nfar away\n1\n")
    for url in ("memory://corpora/own.csv", "memory://corpora/*.csv"):
        texts, _, rejected = rows(url, columns={"text": "text"}, **GENERIC)
        assert [row["text"] for row in texts] == ["far away"]
        assert [row["file"].partition("://")[0] for row in rejected] == ["memory"]


@pytest.mark.parametrize(
    ("name", "content", "config", "message"),
    [
        ("a.tsv", "Argument ID\tPremise\n", {"format": "valueeval"}, "['Conclusion']; it has ['Argument ID', 'Premise']"),
        ("a.tsv", "ID\ttext\tCare\tEquality\tPurity\n", {"format": "mfrc"}, "['Proportionality', 'Loyalty', 'Authority']"),
        ("a.csv", "situation,rot\n", {"format": "social_chemistry"}, "['rot-id', 'rot-moral-foundations']"),
        ("a.csv", "scenario\n", {"format": "valuenet"}, "['label']; it has ['scenario']"),
        ("a.csv", "situation,vrd\n", {"format": "valueprism"}, "['text']; it has ['situation', 'vrd']"),
        ("a.jsonl", '{"dialogue": ""}\n', {"format": "fulcra"}, "['value_types']; it has ['dialogue']"),
        ("a.csv", "", {**GENERIC, "columns": {"text": "t"}}, "['t']; it has []"),
        ("a.parquet", parquet(a=["x"]), {**GENERIC, "columns": {"text": "t"}}, "['t']; it has ['a']"),
    ],
)  # fmt: skip
def test_check_names_the_file_the_column_and_what_exists(tmp_path, name, content, config, message):
    path = write(tmp_path, name, content)
    config = CorpusConfig(path=str(path), **config)
    for refuse in (check, read):
        with pytest.raises(InputError) as error:
            refuse(config)
        assert f"{path} lacks column(s) {message}" in str(error.value)


def test_check_refuses_what_is_not_a_corpus_file(tmp_path):
    write(tmp_path, "a.xlsx", "")
    write(tmp_path, "a.parquet", "text")
    for path, message in [
        (tmp_path / "gone.csv", "gone.csv' does not exist"),
        (tmp_path / "*.csv", "*.csv' does not exist"),
        (tmp_path, f"is a folder; name a file or a glob such as {tmp_path}/*.csv"),
        (tmp_path / "a.xlsx", "a.xlsx' must end in one of .csv, .tsv, .jsonl, .parquet"),
        (tmp_path / "a.parquet", "a.parquet is not readable as parquet ("),
    ]:
        with pytest.raises(InputError) as error:
            check(CorpusConfig(path=str(path), format="valuenet"))
        assert message in str(error.value)
    write(tmp_path, "a.tsv", "Argument ID\tConclusion\tPremise\n")
    with pytest.raises(InputError, match=r"labels.tsv' does not exist"):
        check(CorpusConfig(path=str(tmp_path / "a.tsv"), format="valueeval", labels=str(tmp_path / "labels.tsv")))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"format": "generic", "columns": {"text": "t"}}, "license is required for format 'generic'"),
        ({**GENERIC}, "columns.text is required for format 'generic'"),
        ({**GENERIC, "columns": {"text": "t", "direction": "d"}}, "columns.theory and columns.direction need columns.value"),
        ({**GENERIC, "columns": {"txt": "t"}}, "columns.txt"),
        ({"format": "mfrc", "columns": {"text": "t"}}, "columns is for format 'generic' only, not for 'mfrc'"),
        ({"format": "mfrc", "labels": "l"}, "labels is for format 'valueeval' only, not for 'mfrc'"),
        ({"format": "mfrc", "text": "rot"}, "text is for format 'social_chemistry' only, not for 'mfrc'"),
    ],
)
def test_config_refuses_what_does_not_fit_the_format(config, message):
    with pytest.raises(ValidationError) as error:
        CorpusConfig(path="own.csv", **config)
    assert message in str(error.value)


def test_config_survives_being_written_down():
    config = CorpusConfig(format="mfrc", path="mfrc.tsv")
    assert CorpusConfig.model_validate(config.model_dump()) == config


@pytest.mark.skipif(not DATA.exists(), reason="the real corpora are missing")
class TestRealFiles:
    def test_valueeval(self):
        folder = f"{DATA}/valueeval23"
        num, seen, directions, _ = counts(
            format="valueeval", path=f"{folder}/arguments-training.tsv", labels=f"{folder}/labels-training.tsv"
        )
        assert num == [5393, 18370, 0]
        assert len(seen) == 20
        assert seen["svt:universalism"] == 1054
        assert seen["svt:universalism-concern"] == 2081
        assert directions == {1: 18370}
        both = counts(format="valueeval", path=f"{folder}/arguments-*.tsv", labels=f"{folder}/labels-*.tsv")
        assert both[0] == [5393 + 1896, 18370 + 6359, 0]

    def test_mfrc(self):
        num, seen, directions, reasons = counts(format="mfrc", path=f"{DATA}/mfrc/mfrc.tsv")
        assert num == [17456, 17488, 1]
        assert seen == {
            "mft:care-harm": 4555, "mft:authority-subversion": 3282, "mft:proportionality": 3139, "mft:equality": 2946,
            "mft:loyalty-betrayal": 1872, "mft:sanctity-degradation": 1694,
        }  # fmt: skip
        assert directions == {None: 17488}
        assert reasons == {"text has the control character U+0008: binary data": 1}

    @pytest.mark.parametrize(("text", "direction"), [("situation", None), ("rot", 1), ("action", 1)])
    def test_social_chemistry(self, text, direction):
        path = f"{DATA}/social_chemistry/obligatory.csv"
        num, seen, directions, _ = counts(format="social_chemistry", path=path, text=text)
        assert num == [8358, 10533, 0]
        assert seen == {
            "mft:care-harm": 5590, "mft:loyalty-betrayal": 2339, "mft:fairness-cheating": 1384,
            "mft:authority-subversion": 812, "mft:sanctity-degradation": 408,
        }  # fmt: skip
        assert directions == {direction: 10533}

    def test_fulcra(self):
        num, seen, directions, reasons = counts(format="fulcra", path=f"{DATA}/fulcra/dev.jsonl")
        assert num == [1037, 2637, 1]
        assert len(seen) == 11
        assert directions == {1: 2378, -1: 259}
        assert reasons == {"direction '=1' is not one of -1, 0, 1": 1}

    def test_generic_on_published_anchors(self):
        columns = {"text": "text", "theory": "theory", "value": "value"}
        num, seen, _, _ = counts(path=f"{DATA}/vidb_anchors/dev.jsonl", columns=columns, format="generic", license="mixed")
        assert num == [358, 358, 0]
        assert len(seen) == 30
