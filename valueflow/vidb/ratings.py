"""Ratings of single texts: read from a file, and matched with the texts of a build's candidates or with given texts."""

import logging
from collections.abc import Collection
from typing import NamedTuple

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import ValueId, text_id
from valueflow.store import Build
from valueflow.tabular import cell, columns, strict_rows
from valueflow.theories import resolve
from valueflow.vidb.anchor_files import BASIS, RANDOM, intensity_of

log = logging.getLogger(__name__)
THEORY, VALUE, TEXT, ID, RATING, INTENSITY = "theory", "value", "text", "text_id", "rating", "intensity"
NUM_PLACES = 5  # places of ratings without a text that a message lists
SHOWN_CHARS = 60  # of a text in a message
Means = dict[ValueId, dict[str, float]]


class Rating(NamedTuple):
    """One rating by a person or judge. A spreadsheet may change the text or the id, so both are compared with the texts."""

    value: ValueId
    written_id: str  # of the column text_id; "" without one
    text: str  # "" without a column text
    rating: float
    place: str
    basis: str  # of the column basis: random, chosen, "" without one


class HumanRatings(NamedTuple):
    """Mean ratings by value and text id, and how many ratings are of no text of the candidates.

    `unselected` are the means of texts that nobody chose because of what judges say of them: chosen ones would make a
    calibration, or the judge's error, that of the hard texts.
    """

    means: Means = {}
    unmatched: int = 0
    unselected: Means = {}


def read_ratings(url: str) -> list[Rating]:
    """Return the ratings of a file; rows with an empty rating are skipped.

    Args:
        url: a file with the columns value (svt:power, or power beside a column theory), text or text_id or both, and rating or,
            where there is none, intensity, as `valueflow score` writes it.

    Raises:
        InputError: a column is missing, a value is unknown, or a rating is not a number in [-10, 10].
    """
    available = columns(url, wanted=[TEXT, RATING])
    text_name = ID if ID in available and TEXT not in available else TEXT
    rating_name = INTENSITY if INTENSITY in available and RATING not in available else RATING
    ratings = []
    for row in strict_rows(url, [VALUE, text_name, rating_name], optional=[THEORY, ID, BASIS]):
        theory, node, text, rating = (cell(row.fields, name) for name in (THEORY, VALUE, TEXT, rating_name))
        if not rating.strip():
            continue
        try:
            value = resolve(node, theory or None)
        except InputError as error:
            raise InputError(f"{row.location}: {error}") from None
        number = intensity_of(rating, f"{row.location} {rating_name}")
        ratings.append(Rating(value, cell(row.fields, ID).strip(), text, number, row.location, cell(row.fields, BASIS).strip()))
    return ratings


def human_ratings(url: str, candidates: Build) -> HumanRatings:
    """Return the ratings in a file of the texts of a build; none for "". Ratings of other texts are counted and logged.

    Raises:
        InputError: as `read_ratings`; the file has no rating, or none of a text of the build; or a row's text_id is that of
            another text than the row's.
    """
    if not url:
        return HumanRatings()
    ratings = read_ratings(url)
    if not ratings:
        raise InputError(f"{url} has no rating; fill in the column rating, or leave the setting ratings out")
    numbers: dict[ValueId, dict[str, list[float]]] = {}
    chosen: dict[ValueId, set[str]] = {}
    unmatched = []
    for value in dict.fromkeys(rating.value for rating in ratings):
        ids = _text_ids(candidates, value)
        chosen[value] = set()
        for rating in (rating for rating in ratings if rating.value == value):
            text = _match(rating, ids)
            if text:
                numbers.setdefault(value, {}).setdefault(text, []).append(rating.rating)
                chosen[value] |= {text} if rating.basis not in ("", RANDOM) else set()
            else:
                unmatched.append(rating.place)
    if unmatched:
        places = ", ".join(unmatched[:NUM_PLACES]) + (", …" if len(unmatched) > NUM_PLACES else "")
        message = (
            f"{url}: {len(unmatched)} of {len(ratings)} ratings are of no text of candidates {candidates.build_id} ({places}); "
            "a spreadsheet may have changed the texts: keep the column text_id of human_queue.csv"
        )
        if not numbers:
            raise InputError(message)
        log.warning("%s. They are left out", message)
    means = _means(numbers)
    unselected = {
        value: {i: mean for i, mean in of_value.items() if i not in chosen[value]} for value, of_value in means.items()
    }
    return HumanRatings(means, len(unmatched), {value: of_value for value, of_value in unselected.items() if of_value})


def ratings_of(url: str, text_ids: Collection[str]) -> Means:
    """Return the mean ratings by value and text id in a file whose ratings are all of given texts.

    Raises:
        InputError: as `read_ratings`; the file has no rating, or one of another text.
    """
    ratings = read_ratings(url)
    if not ratings:
        raise InputError(f"{url} has no rating; fill in the column {RATING} or {INTENSITY}")
    numbers: dict[ValueId, dict[str, list[float]]] = {}
    strays = []
    for rating in ratings:
        if text := _match(rating, text_ids):
            numbers.setdefault(rating.value, {}).setdefault(text, []).append(rating.rating)
        else:
            strays.append(rating)
    if strays:
        first = f"{strays[0].place}: {(strays[0].text or strays[0].written_id)[:SHOWN_CHARS]!r}"
        raise InputError(
            f"{len(strays)} of {len(ratings)} ratings are of none of the {len(text_ids)} texts (first: {first}); rate some of "
            "these texts, and keep them or their text_id unchanged"
        )
    return _means(numbers)


def _means(numbers: dict[ValueId, dict[str, list[float]]]) -> Means:
    return {value: {i: sum(of_text) / len(of_text) for i, of_text in texts.items()} for value, texts in numbers.items()}


def _match(rating: Rating, ids: Collection[str]) -> str | None:
    """The id of the rated text among `ids`, by the column text_id or by the text; InputError where the two contradict."""
    matches = dict.fromkeys(i for i in (rating.written_id, text_id(rating.text)) if i in ids)
    if len(matches) > 1:
        raise InputError(f"{rating.place}: text_id {rating.written_id} is another text's; were columns sorted on their own?")
    return next(iter(matches), None)


def _text_ids(candidates: Build, value: ValueId) -> set[str]:
    return set(store.read_table(candidates, ["text_id"], store.value_folder(value))["text_id"].to_pylist())
