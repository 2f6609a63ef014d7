"""The validity record of a judge: how far its intensities are from people's, measured on rated texts by an audit."""

from collections.abc import Mapping

from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.errors import DamageError
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId, digest
from valueflow.vidb.version import Vidb


class ValidityRecord(Config):
    """A judge's regression of people's ratings, by value, as an audit on rated texts saved it."""

    judge: str
    fingerprint: str = Field(description="of the judge")
    created: str
    vidb_version: str = Field(description="the version whose scale the judge's intensities are on")
    ratings: str = Field(description="file of the rated texts")
    num_texts: int
    num_values: int = Field(description="values with rated texts")
    held_out_coverage: float | None = Field(
        None, description="share of rated texts whose interval, fitted without them, contains the rating; null below 100 texts"
    )
    content_errors: dict[str, ContentError] = Field(description="by value")

    @property
    def by_value(self) -> dict[ValueId, ContentError]:
        """The content errors by value id."""
        return {ValueId(value): error for value, error in self.content_errors.items()}

    @property
    def rank(self) -> int:
        """How good its basis is: that of `ContentError.rank`."""
        return max((error.rank for error in self.content_errors.values()), default=0)

    @property
    def id(self) -> str:
        """Hash of everything that changes scores."""
        return digest({value: error.model_dump() for value, error in self.content_errors.items()})


def save(root: str, record: ValidityRecord) -> str:
    """Write the record of a judge, in place of an earlier one, and return its URL."""
    url = store.validity_url(root, record.fingerprint)
    store.write_record(url, record)
    return url


def load(root: str, fingerprint: str) -> ValidityRecord | None:
    """Return the record of the judge with this fingerprint; None without one.

    Raises:
        DamageError: the file is no record.
    """
    url = store.validity_url(root, fingerprint)
    try:
        return store.read_record(url, ValidityRecord, "a validity record")
    except FileNotFoundError:
        return None
    except DamageError as error:
        raise DamageError(
            f"{error}; run python -m jobs.audit_judge with its rated texts again: its answers are kept"
        ) from error


def content_errors(version: Vidb, fingerprint: str, record: ValidityRecord | None) -> dict[ValueId, ContentError]:
    """Return the content error of a judge that scores texts against a version, by value.

    The better basis counts (`ContentError.rank`): a known truth and human ratings of the version's own texts before the record
    of rated texts, then that of texts of known direction, then the rest.
    """
    errors: Mapping[str, ContentError] = record.content_errors if record else {}
    same = fingerprint == version.judge_fingerprint
    result = {}
    for value in version.calibrations:
        own = version.content_error(value)
        if value in errors and not (same and own.rank > errors[value].rank):
            result[value] = errors[value]
        elif same or own.basis == "none":
            result[value] = own
        else:
            result[value] = own.model_copy(update={"source": f"{own.source}; of judge {version.details.judge}, which built it"})
    return result


def of_judge(version: Vidb, fingerprint: str) -> dict[ValueId, ContentError]:
    """Return the content error of a judge against a version by value, with its validity record under the version's root."""
    return content_errors(version, fingerprint, load(version.build.root, fingerprint))
