"""Human ratings of single texts: read from a file, and matched with the texts of a build's candidates."""

import logging
from collections.abc import Collection
from typing import NamedTuple

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import ValueId, text_id
from valueflow.store import Build
from valueflow.tabular import cell, strict_rows
from valueflow.theories import resolve
from valueflow.vidb.anchor_files import intensity_of

log = logging.getLogger(__name__)
COLUMNS, ID = ("theory", "value", "text", "rating"), "text_id"
NUM_PLACES = 5  # places of ratings without a text that a message lists
Means = dict[ValueId, dict[str, float]]


class Rating(NamedTuple):
    """One rating by a person. A spreadsheet may have changed the text or the id, so both are compared with the candidates."""

    value: ValueId
    written_id: str  # of the column text_id; "" without one
    text: str
    rating: float
    place: str


class HumanRatings(NamedTuple):
    """Mean ratings by value and text id, and how many ratings are of no text of the candidates."""

    means: Means = {}
    unmatched: int = 0


def read_ratings(url: str) -> list[Rating]:
    """Return the ratings of a file with the columns theory, value, text, rating; rows with an empty rating are skipped.

    Raises:
        InputError: a column is missing, a value is unknown, or a rating is not a number in [-10, 10].
    """
    ratings = []
    for row in strict_rows(url, list(COLUMNS), optional=[ID]):
        theory, node, text, rating = (cell(row.fields, name) for name in COLUMNS)
        if not rating.strip():
            continue
        try:
            value = resolve(node, theory)
        except InputError as error:
            raise InputError(f"{row.location}: {error}") from None
        number = intensity_of(rating, f"{row.location} rating")
        ratings.append(Rating(value, cell(row.fields, ID).strip(), text, number, row.location))
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
    unmatched = []
    for value in dict.fromkeys(rating.value for rating in ratings):
        ids = _text_ids(candidates, value)
        for rating in (rating for rating in ratings if rating.value == value):
            text = _match(rating, ids)
            if text:
                numbers.setdefault(value, {}).setdefault(text, []).append(rating.rating)
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
    means = {value: {i: sum(of_text) / len(of_text) for i, of_text in texts.items()} for value, texts in numbers.items()}
    return HumanRatings(means, len(unmatched))


def _match(rating: Rating, ids: Collection[str]) -> str | None:
    """The id of the rated text among `ids`, by the column text_id or by the text; InputError where the two contradict."""
    matches = dict.fromkeys(i for i in (rating.written_id, text_id(rating.text)) if i in ids)
    if len(matches) > 1:
        raise InputError(f"{rating.place}: text_id {rating.written_id} is another text's; were columns sorted on their own?")
    return next(iter(matches), None)


def _text_ids(candidates: Build, value: ValueId) -> set[str]:
    return set(store.read_table(candidates, ["text_id"], store.value_folder(value))["text_id"].to_pylist())
