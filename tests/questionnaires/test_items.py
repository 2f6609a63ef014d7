"""Items of a questionnaire from users' files."""

import pytest

from valueflow.errors import InputError
from valueflow.questionnaires.items import read_items


def write(tmp_path, *lines):
    path = tmp_path / "items.csv"
    path.write_text("\n".join(["item,text,scale,key", *lines]), "utf-8")
    return str(path)


def test_rows_of_one_item_are_its_paraphrases(tmp_path):
    items = read_items(
        write(tmp_path, "a,I help.,care,+", "b,I do not care.,care,reverse", "a,I am helpful.,care,1", "a,I help.,care,+")
    )
    assert [(i.item_id, i.texts, i.key) for i in items] == [
        ("a", ("I help.", "I am helpful."), 1),
        ("b", ("I do not care.",), -1),
    ]


def test_the_sample_is_balanced():
    items = read_items("valueflow/samples/questionnaire.csv")
    assert sum(item.key for item in items) == 0
    assert {item.scale for item in items} == {"benevolence", "power"}


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a,I help.,care,maybe", r"items.csv:2: key is 'maybe'; \+ and - are allowed"),
        ("a,,care,+", "text is empty"),
        ("a,I help.,,+", "scale is empty"),
        ("a,I help.,care,+\na,I assist.,care,-", "rows of one item are its paraphrases"),
        ("", "no row"),
    ],
)
def test_a_bad_row_is_one_sentence(tmp_path, line, match):
    with pytest.raises(InputError, match=match):
        read_items(write(tmp_path, line))


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item,text,key\na,b,+\n", "utf-8")
    with pytest.raises(InputError, match="scale"):
        read_items(str(path))
