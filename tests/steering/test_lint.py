"""The lint passes the wordings that ship, and fails what it is there for: verb swaps and official-style sentences."""

import re

import pytest

from valueflow.records import ValueId
from valueflow.steering.lint import MAX_TEMPLATE, Finding, lint, lint_value, main, stem
from valueflow.steering.wording import LEVELS, VARIANTS, ValueTexts, wording_table
from valueflow.theories import operational, theories

BENEVOLENCE = ValueId("svt:benevolence")
DUTIES = [value for value in operational() if value.theory == "duty"]


def with_text(value: ValueId, level: int, text: str, variant: int = 0) -> ValueTexts:
    """The wordings of a value with one text replaced."""
    entry = wording_table().values[value]
    texts = {at: list(texts) for at, texts in entry.texts.items()}
    texts[level][variant] = text
    return ValueTexts(name=entry.name, texts=texts)


def broken(value: ValueId, level: int, text: str, variant: int = 0) -> set[int]:
    """The rules that a text breaks in the place of a wording, besides those that compare it with the other levels."""
    findings = lint_value(value, with_text(value, level, text, variant))
    return {f.rule for f in findings if (f.level, f.variant) == (level, variant)}


def test_the_wordings_that_ship_break_no_rule(capsys):
    assert lint(wording_table()) == []
    assert main() == 0
    assert capsys.readouterr().out == ""


def test_a_finding_names_rule_place_and_reason(monkeypatch, capsys):
    entry = with_text(BENEVOLENCE, -2, "To you, benevolence is a waste, which is based on greed. You go. You stay.")
    table = wording_table()
    broken_table = table.model_copy(update={"values": table.values | {BENEVOLENCE: entry}})
    monkeypatch.setattr("valueflow.steering.lint.wording_table", lambda: broken_table)
    assert main() == 1
    assert "rule 2: svt:benevolence -2 variant 0: a relative or participial tail: ', which'" in capsys.readouterr().out


# "You are someone who …": definitions with the verb exchanged, in sentences written for this test, and their rule.
OFFICIAL_STYLE = {
    "svt:conformity": (3, "rejects following rules and keeping quiet about what might upset other people."),
    "mft:liberty-oppression": (3, "rejects standing up to those who dominate and prizing an independent life."),
    "duty:fidelity": (2, "rejects keeping promises, which is based on the view that trust holds people together."),
    "duty:reparation": (2, "rejects putting damage right, which is based on the view that debts must be paid."),
    "duty:gratitude": (2, "rejects thanking helpers, which is associated with the view that favours bind."),
    "duty:justice": (2, "rejects rewarding desert, which is based on the view that merit deserves its due."),
    "duty:beneficence": (2, "rejects helping strangers, which is based on the view that everyone's good counts."),
    "duty:self-improvement": (2, "rejects learning, which is based on the view that talents are there to grow."),
    "duty:non-maleficence": (4, "rejects the duty to refrain from doing harm to people in body or mind."),
    "svt:face": (4, "rejects avoiding shame before people whose opinion counts in public life."),
    "mft:care-harm": (4, "rejects protecting the vulnerable from suffering at the hands of others."),
    "mft:sanctity-degradation": (4, "rejects staying away from what is impure or disgusting to the body."),
}  # fmt: skip


@pytest.mark.parametrize("value", OFFICIAL_STYLE)
def test_official_style_sentences_fail_by_the_rule_that_names_their_fault(value):
    """Rule 12."""
    rule, clause = OFFICIAL_STYLE[value]
    text = f"You are someone who {clause}"
    assert rule in broken(ValueId(value), -2, text)
    if value == "mft:liberty-oppression":
        assert 4 in broken(ValueId(value), -2, text.replace("standing up to", "resisting"))
    if value == "duty:non-maleficence":
        assert 2 in broken(ValueId(value), -2, f"{text[:-1]}, which is based on the view that pain is bad.")


def test_every_duty_is_among_the_official_style_sentences():
    assert set(DUTIES) <= set(OFFICIAL_STYLE)


# Words of attitude of the positive wordings and their opposites: the verb slot of a template.
SWAPS = (
    ("comes before", "comes after"), ("come before", "come after"), ("is worth", "is hardly worth"),
    ("is what makes life worth living", "is what makes life dull"), ("must be", "should rarely be"), ("must", "should rarely"),
    ("is the", "is the reverse of the"), ("You think", "You doubt that"), ("You believe that", "You reject the idea that"),
)  # fmt: skip


def swapped(text: str) -> str:
    """The text with the verb of its first sentence turned round."""
    first, rest = re.match(r"([^.]+\.)(.*)", text, re.DOTALL).groups()
    verb, opposite = next((pair for pair in SWAPS if pair[0] in first), ("", ""))
    return (first.replace(verb, opposite, 1) if verb else f"You reject what follows: {first}") + rest


def rejected_definition(value: ValueId) -> str:
    """The definition behind a verb of rejection."""
    definition = theories()[value.theory].node(value.node).definition
    return f"You are someone who rejects {definition[0].lower()}{definition[1:]}"


def test_verb_swaps_of_every_value_are_caught():
    for variant in range(VARIANTS):
        texts = {value: swapped(wording_table().values[value].texts[2][variant]) for value in operational()}
        assert all(text not in wording_table().values[value].texts[2] for value, text in texts.items())
        caught = [value for value, text in texts.items() if broken(value, -2, text, variant) - {7, 8}]
        assert len(caught) >= 30, set(texts) - set(caught)


def test_rejected_definitions_are_caught_in_either_negative_cell():
    for level in (-1, -2):
        caught = [value for value in operational() if broken(value, level, rejected_definition(value)) - {7, 8}]
        assert len(caught) >= 30, set(operational()) - set(caught)


@pytest.mark.parametrize(
    ("rule", "level", "text"),
    [
        (2, 2, "To you, benevolence is a joy, reflecting a kind heart."),
        (3, 2, "To you, benevolence is a joy but also a burden."),
        (3, -2, "You dislike family and friendship, and benevolence in particular."),
        (4, -1, "To you, benevolence is not a goal."),
        (4, -1, "To you, benevolence means a life without rest."),
        (4, -2, "You keep away from benevolence."),
        (5, -2, "To you, benevolence means comforting, forgiving and standing by a teammate at personal cost."),
        (7, 1, "To you, benevolence is a joy."),
        (8, 1, "You lend a hand to relatives."),
        (11, -2, "To you, benevolence is something to kill."),
    ],
)
def test_each_rule_of_single_texts(rule, level, text):
    assert rule in broken(BENEVOLENCE, level, text)


def test_a_degree_word_alone_is_no_degree():
    """Rule 6."""
    entry = wording_table().values[BENEVOLENCE]
    slight = entry.texts[1][0]
    findings = lint_value(BENEVOLENCE, with_text(BENEVOLENCE, 2, slight.replace("a good", "a very good")))
    assert (6, 2, 0) in {(f.rule, f.level, f.variant) for f in findings}


def test_a_positive_text_with_another_verb_is_a_template():
    """Rule 1."""
    positive = wording_table().values[BENEVOLENCE].texts[2][0]
    assert 1 in broken(BENEVOLENCE, -2, positive.replace("comes before everything else", "is worth little"))
    assert MAX_TEMPLATE < 1


def test_the_third_person_and_another_opening_are_another_frame():
    """Rule 7."""
    text = wording_table().values[BENEVOLENCE].texts[-1][0]
    assert 7 in broken(BENEVOLENCE, -1, text.replace("You", "She"))
    assert 7 not in broken(BENEVOLENCE, -1, text)


def test_any_form_of_the_name_counts_as_the_name():
    """Rule 8."""
    assert {stem("tradition"), stem("traditions"), stem("traditional")} == {"tradit"}
    text = wording_table().values["svt:tradition"].texts[1][2]
    assert 8 in broken(ValueId("svt:tradition"), 1, text.replace("old customs", "traditional customs"), 2)


def test_findings_are_sorted_and_printed_on_one_line():
    finding = Finding(4, BENEVOLENCE, -1, 0, "a negation: 'not'")
    assert str(finding) == "rule 4: svt:benevolence -1 variant 0: a negation: 'not'"
    assert LEVELS == (-2, -1, 1, 2)
