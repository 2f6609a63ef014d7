"""A validity record belongs to one judge, and is used where nothing better is known."""

import pytest

from valueflow.errors import DamageError
from valueflow.ranking.calibration import Calibration
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId
from valueflow.store import Build, VidbDetails, validity_url
from valueflow.vidb import validity
from valueflow.vidb.version import Vidb

POWER, CARE = ValueId("svt:power"), ValueId("mft:care-harm")
RATED = ContentError(slope=0.4, sd=5.0, basis="record", n=120, source="content error from 120 rated texts")


def record(fingerprint: str = "77aa") -> validity.ValidityRecord:
    return validity.ValidityRecord(
        judge="j", fingerprint=fingerprint, created="2026-01-01", vidb_version="v-1", ratings="r.csv", num_texts=120,
        num_values=1, content_errors={POWER: RATED},
    )  # fmt: skip


def version(**errors: ContentError) -> Vidb:
    saved = {ValueId(name): error.model_dump() for name, error in errors.items()}
    details = VidbDetails(judge="builder", judge_fingerprint="77aa", content_errors=saved)
    identity = Calibration.identity()
    return Vidb(Build("root", "vidb", "v-1"), None, details, {POWER: identity, CARE: identity})  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert validity.load(str(tmp_path), "77aa") is None
    validity.save(str(tmp_path), record())
    loaded = validity.load(str(tmp_path), "77aa")
    assert loaded == record()
    assert loaded.by_value == {POWER: RATED}
    assert validity.load(str(tmp_path), "other") is None


def test_a_damaged_record_is_refused(tmp_path):
    validity.save(str(tmp_path), record())
    path = validity_url(str(tmp_path), "77aa")
    with open(path, "w") as file:
        file.write('{"judge": "j"}')
    with pytest.raises(DamageError, match=r"audit_judge"):
        validity.load(str(tmp_path), "77aa")


@pytest.mark.parametrize(
    ("basis", "uses_record"), [("known", False), ("ratings", False), ("record", False), ("neutral", True), ("judges", True)]
)
def test_known_directions_are_better_than_neutral_texts_and_worse_than_any_rating(basis, uses_record):
    directed = RATED.model_copy(update={"basis": "direction"})
    own = ContentError(slope=0.7, sd=1.0, basis=basis, source="own")
    errors = validity.content_errors(
        version(**{POWER: own}), "77aa", record().model_copy(update={"content_errors": {POWER: directed}})
    )
    assert errors[POWER] == (directed if uses_record else own)


@pytest.mark.parametrize(("basis", "uses_record"), [("known", False), ("ratings", False), ("neutral", True), ("record", True)])
def test_a_record_is_better_than_neutral_texts_and_human_ratings_of_the_version_are_better(basis, uses_record):
    own = ContentError(slope=0.7, sd=1.0, basis=basis, source="own")
    errors = validity.content_errors(version(**{POWER: own, CARE: own}), "77aa", record())
    assert errors == {POWER: RATED if uses_record else own, CARE: own}


def test_another_judge_has_its_own_record_and_else_says_whose_error_it_borrows():
    own = ContentError(slope=0.7, sd=1.0, basis="ratings", source="content error from 30 human ratings")
    errors = validity.content_errors(version(**{POWER: own, CARE: own}), "other", record("other"))
    assert errors[POWER] == RATED
    assert errors[CARE].slope == 0.7
    assert "builder" in errors[CARE].source


def test_the_id_of_a_record_changes_with_what_changes_scores_only():
    later = record().model_copy(update={"created": "2027-01-01"})
    other = record().model_copy(update={"content_errors": {POWER: RATED.model_copy(update={"sd": 4.0})}})
    assert record().id == later.id != other.id
