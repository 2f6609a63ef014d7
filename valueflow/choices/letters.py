"""The option that a free reply chooses: strict, so that "As a Democrat, B" is B and a reply of two letters is none."""

import re
from collections.abc import Sequence
from typing import NamedTuple

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_REFUSAL = re.compile(
    r"\b(as an ai\b|i (?:can(?:no|')t|am unable to|won't|do not|don't) (?:answer|choose|pick|select|take|have|provide|express)|"
    r"i(?:'m| am) (?:sorry|unable|not able)|no (?:personal )?opinion|prefer not to|decline to)",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"(?:answer|choice|option|choose|select|pick|go with)\b[\s:*is\"'`-]*[\(\[]?\b([A-Z])\b[\)\]]?(?!['’]\w)", re.IGNORECASE
)
# Two letters side by side are no choice.
_TWO = re.compile(r"(?<!\w)[\(\[]?([A-Z])[\)\]]?\s*(?:or|and|,|/|&)\s*[\(\[]?([A-Z])[\)\]]?(?!\w)")
# A letter alone, in brackets, or with a sign after it; "A" and "I" before a word are words.
_MARKED = re.compile(r"(?:^|[\s\"'`*:,;.-])[\(\[\"'`*]*([A-Z])(?=[\)\]:.\"'`*,;!]|\s*$|\n)[\)\]:.\"'`*,;!]*")


class Choice(NamedTuple):
    """The number of the chosen option, or why there is none."""

    option: int | None
    error: str = ""


def parse_letter(reply: str, options: Sequence[str]) -> Choice:
    """Return the choice of a reply to a question with these options, lettered from A."""
    text = reply.strip()
    if not text:
        return Choice(None, "the reply is empty")
    allowed = LETTERS[: len(options)]
    exact = re.fullmatch(r"[\(\[\"'`*]*([A-Za-z])[\)\]\"'`*.:,]*", text)
    if exact:
        return _checked({exact[1].upper()}, allowed)
    two = _TWO.search(text)
    if two and two[1] != two[2] and {two[1], two[2]} <= set(allowed):
        return _checked({two[1], two[2]}, allowed)
    final = {letter.upper() for letter in _FINAL.findall(text) if letter.isupper()}
    if len(final & set(allowed)) == 1:
        return _checked(final & set(allowed), allowed)
    marked = set(_MARKED.findall(text)) | final
    if marked & set(allowed):
        return _checked(marked & set(allowed), allowed)
    if _REFUSAL.search(text):
        return Choice(None, "a refusal")
    # "Not important" also contains "Important": the longest counts.
    named = [i for i, option in enumerate(options) if _contains(text, option)]
    named = [i for i in named if not any(i != j and options[i].lower() in options[j].lower() for j in named)]
    if len(named) == 1 and _says(text, options[named[0]]):
        return Choice(named[0])
    if marked:
        return _checked(marked, allowed)
    return Choice(None, f"{len(named)} options are named" if named else "no letter and no option")


def _contains(text: str, option: str) -> bool:
    return re.search(rf"(?<!\w){_words(option)}(?!\w)", text.lower()) is not None


def _says(text: str, option: str) -> bool:
    """Whether a reply that contains an option says it; one word of it begins or ends the reply: "no idea" is not "No"."""
    words = _words(option)
    return " " in option or re.search(rf"^\W*{words}(?=\W*$|\s*[.,;:!–—-])|{words}\W*$", text.lower()) is not None


def _words(option: str) -> str:
    return re.escape(option.lower().rstrip("."))


def _checked(letters: set[str], allowed: str) -> Choice:
    if len(letters) > 1:
        return Choice(None, f"{len(letters)} letters: {', '.join(sorted(letters))}")
    (letter,) = letters
    return Choice(allowed.index(letter)) if letter in allowed else Choice(None, f"letter {letter} is no option")
