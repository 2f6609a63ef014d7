"""The lint of the wordings: rules that a text must keep so that it says what its level means, and nothing else.

    python -m valueflow.steering.lint

prints what breaks the rules of this file and ends with 1 if anything does. They read the words alone; the rules that need the
encoder judge are in `judged_lint`. Numbers are those of docs/steering-wording.md.
"""

import re
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

from valueflow.console import say
from valueflow.records import ValueId
from valueflow.steering.wording import LEVELS, VARIANTS, ValueTexts, WordingTable, wording_table
from valueflow.theories import theories

MAX_TEMPLATE = 0.6  # share of words in order that a positive and a negative text of one value may have in common
MAX_OVERLAP = 0.1  # Jaccard index of a text and the other pole's own words
MIN_EDITS = 4  # words in which |1| and |2| differ at least, degree words aside
MAX_LENGTH = 0.15  # relative difference of the lengths of the four levels from their mean

WORD = re.compile(r"[a-z]+(?:[-'’][a-z]+)*")
SENTENCE = re.compile(r"[^.!?]+[.!?]")
# Rule 2. A clause behind the statement keeps its praise when the statement is turned round.
TAIL = re.compile(r",\s+(?:which|that|who|whose|where|based on|rooted in|grounded in|associated with|reflecting|seen as)\b"
                  r"|\bwhich (?:is|are|rests?|comes?)\b|\bbased on the\b")  # fmt: skip
# Rule 3. A verb of rejection before "A and B" leaves open whether B is rejected; a contrast holds two polarities.
REJECTION = re.compile(r"\b(?:reject|oppos|dislik|disvalu|devalu|disregard|disapprov|repudiat|renounc|do(?:es)? not)\w*\b"
                       r"[^.;]*\b(?:and|or)\b")  # fmt: skip
CONTRAST = re.compile(r"\b(?:but|although|though|however|yet|whereas|despite|unless)\b")
# Rule 4. Whoever rejects the avoidance of a thing does not oppose the value; a negation says indifference, not opposition.
AVOIDANCE = re.compile(r"\b(?:avoid|refrain|resist|prevent|protect|escap|abstain)\w*\b"
                       r"|\b(?:defend\w*|free|freedom|guard\w*|shield\w*) (?:\w+ ){0,2}(?:from|against)\b"
                       r"|\b(?:keep|stay|steer)\w* (?:away|clear)\b|\b(?:hold|held|holding) back\b")  # fmt: skip
NEGATOR = re.compile(r"\b(?:not|no|never|without|hardly|barely|nothing|nobody|nowhere|none|nor|neither|cannot)\b|n['’]t\b")
DEGREE_WORDS = """
a bit little rather quite somewhat slightly mildly very strongly extremely deeply highly really truly fairly mostly
usually always often completely totally utterly absolutely entirely"""
DEGREE = frozenset(DEGREE_WORDS.split())  # rule 6: models hardly tell them apart
# Rule 7. Persons other than the second.
OTHER_PERSON = re.compile(r"\b(?:i|me|my|we|us|our|ours|he|him|his|she|her|hers)\b")
# Rule 11. Violence, contempt of persons, and what makes models refuse.
VIOLENCE = re.compile(
    r"\b(?:kill|murder|tortur|rapist|raping|enslav|slave|bomb|weapon|shoot|stabb|massacr|genocid|exterminat|suicid|"
    r"self-harm|terroris|lynch|nazi|vermin|subhuman|scum|savage|poison|threaten|beat up|assault|abus|molest|illegal|hate|"
    r"hatred|drug|as an ai)\w*\b"
)
FUNCTION_WORDS = """
a an and any anyone are as at be because been before being by can do does each even every everyone everybody for from
get gets give gives go good had has have having how if in into is it its itself just like made make makes may more most
much must of off on one one's oneself only onto or other others out over own people person put rather say says should so
some somebody someone such take takes than that the their them themselves then there these they thing things this those
to too until up upon urge urges want was well what when where which while who will with would you your yours yourself"""
STOPWORDS = frozenset(FUNCTION_WORDS.split())
ENDINGS = """
ations ation ities ments iness fully ings ness ence ance ment less ity ing ies ied ful ent ant ion ism ist ous al ty ly
ed es er y s e"""
SUFFIXES = ENDINGS.split()


class Finding(NamedTuple):
    """A rule that a text breaks: the place, and what is wrong."""

    rule: int
    value: str
    level: int
    variant: int
    reason: str

    def __str__(self) -> str:
        return f"rule {self.rule}: {self.value} {self.level:+d} variant {self.variant}: {self.reason}"


def lint(table: WordingTable) -> list[Finding]:
    """Return what breaks the rules 1, 2, 4 to 8, 11 and the textual part of 3; that all cells are there the table checks."""
    return [finding for value, entry in table.values.items() for finding in lint_value(ValueId(value), entry)]


def lint_value(value: ValueId, entry: ValueTexts) -> list[Finding]:
    """Return what breaks the rules in the texts of one value."""
    findings = [
        Finding(rule, value, level, variant, reason)
        for level, texts in entry.texts.items()
        for variant, text in enumerate(texts)
        for rule, reason in (*_single(text, level), *_poles(value, entry.name, text, level))
    ]
    for variant in range(VARIANTS):
        texts = {level: entry.texts[level][variant] for level in LEVELS}
        for rules in (_degree(texts), _frame(texts), _name(texts, entry.name, variant < VARIANTS - 1)):
            findings += [Finding(rule, value, level, variant, reason) for rule, level, reason in rules]
    findings += [Finding(1, value, level, variant, reason) for level, variant, reason in _templates(entry)]
    return sorted(findings)


def _single(text: str, level: int) -> Iterator[tuple[int, str]]:
    """What one text shows alone: rules 2, 3, 4, 11."""
    lower = text.lower()
    patterns = [(2, TAIL, "a relative or participial tail"), (3, CONTRAST, "a contrast of two polarities"),
                (11, VIOLENCE, "violence or a word that models refuse")]  # fmt: skip
    if level < 0:
        patterns += [(3, REJECTION, "a verb of rejection over a coordination"), (4, AVOIDANCE, "an avoidance"),
                     (4, NEGATOR, "a negation")]  # fmt: skip
    for rule, pattern, reason in patterns:
        if match := pattern.search(lower):
            yield rule, f"{reason}: {match.group()!r}"


def _poles(value: ValueId, name: str, text: str, level: int) -> Iterator[tuple[int, str]]:
    """Rule 5: a text holds next to no words of the other pole that are not words of its own pole too."""
    node = theories()[value.theory].node(value.node)
    own, other = (node.supports, node.opposes) if level > 0 else (node.opposes, node.supports)
    words, foreign = stems(text) - stems(name), stems(other) - stems(own) - stems(name)
    common = words & foreign
    if len(common) > MAX_OVERLAP * len(words | foreign):
        yield 5, f"words of the other pole: {', '.join(sorted(common))}"


def _templates(entry: ValueTexts) -> Iterator[tuple[int, int, str]]:
    """Rule 1: a negative text is no positive text with another verb."""
    positive = [text.lower().split() for level in (1, 2) for text in entry.texts[level]]
    for level in (-2, -1):
        for variant, text in enumerate(entry.texts[level]):
            share = max(SequenceMatcher(None, words, text.lower().split(), autojunk=False).ratio() for words in positive)
            if share > MAX_TEMPLATE:
                yield level, variant, f"{share:.0%} of the words are those of a positive text"


def _degree(texts: dict[int, str]) -> Iterator[tuple[int, int, str]]:
    """Rule 6: the degrees of a polarity differ in more than words of degree."""
    for slight, strong in ((1, 2), (-1, -2)):
        edits = _edit_distance(*([w for w in WORD.findall(texts[at].lower()) if w not in DEGREE] for at in (slight, strong)))
        if edits < MIN_EDITS:
            yield 6, strong, f"differs from level {slight} in {edits} words besides those of degree"


def _frame(texts: dict[int, str]) -> Iterator[tuple[int, int, str]]:
    """Rule 7: the four levels have one length, one sequence of sentence openings and the second person."""
    lengths = {level: len(text.split()) for level, text in texts.items()}
    mean = sum(lengths.values()) / len(lengths)
    openings = {level: [s.split()[0] for s in SENTENCE.findall(text)] for level, text in texts.items()}
    for level, text in texts.items():
        if abs(lengths[level] - mean) > MAX_LENGTH * mean:
            yield 7, level, f"{lengths[level]} words, where the mean of the levels is {mean:.1f}"
        if openings[level] != openings[LEVELS[0]]:
            yield 7, level, f"its sentences begin with {openings[level]}, those of level {LEVELS[0]} with {openings[LEVELS[0]]}"
        if match := OTHER_PERSON.search(text.lower()):
            yield 7, level, f"another person than the second: {match.group()!r}"
        if "you" not in WORD.findall(text.lower()):
            yield 7, level, "does not address anybody"


def _name(texts: dict[int, str], name: str, named: bool) -> Iterator[tuple[int, int, str]]:
    """Rule 8: all four levels name the value, or none does, in any form of the word."""
    for level, text in texts.items():
        words = [stem(word) for word in WORD.findall(text.lower())]
        parts = [stem(word) for word in WORD.findall(name)]
        present = any(words[i : i + len(parts)] == parts for i in range(len(words)))
        if present != named:
            yield 8, level, f"{'does not name' if named else 'names'} {name!r}"


def stems(text: str) -> set[str]:
    """Return the stems of the content words of a text."""
    return {stem(word) for word in WORD.findall(text.lower()) if word not in STOPWORDS}


def stem(word: str) -> str:
    """Return a word without its endings: enough to see that fair, fairly and fairness are one."""
    word = re.sub(r"['’]s?$", "", word)
    while end := next((e for e in SUFFIXES if word.endswith(e) and len(word) - len(e) >= 4), ""):
        word = word.removesuffix(end)
    return word


def _edit_distance(first: list[str], second: list[str]) -> int:
    """Words that are to be inserted, deleted or replaced."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def main() -> int:
    """Print what breaks the rules; return the exit code."""
    findings = lint(wording_table())
    for finding in findings:
        say(str(finding))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
