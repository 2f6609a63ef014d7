"""A finished version of the Value Intensity DataBase, and its texts as anchors."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow import store
from valueflow.errors import InputError, allowed
from valueflow.ranking.calibration import Calibration
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId
from valueflow.store import Build, VidbDetails
from valueflow.theories import theories


class Anchors(NamedTuple):
    """One value's anchor texts, sorted by theta, its calibration, and how far the judge's intensity is from people's."""

    theory: str
    value: str
    text_ids: np.ndarray
    theta_A: np.ndarray
    calibration: Calibration
    content_error: ContentError = ContentError()
    neutral_ids: frozenset[str] = frozenset()  # only where they are asked for


class Vidb(NamedTuple):
    """A finished version."""

    build: Build
    manifest: store.Manifest
    details: VidbDetails
    calibrations: dict[ValueId, Calibration]

    @property
    def judge_fingerprint(self) -> str:
        """The judge whose scale theta is on; empty for an imported version."""
        return self.details.judge_fingerprint

    def sharpness(self, judged_by: str, value: str) -> float | None:
        """Return a judge's nats per unit of theta: 1 for the only one that built the version; None for one that did not."""
        several = self.details.judges
        if judged_by in several:
            return several[judged_by].sharpness.get(value) or None
        return 1.0 if not several and self.judge_fingerprint == judged_by else None

    def content_error(self, value: str) -> ContentError:
        """Return how far intensities on the version's axis are from people's; exact for a version that does not say."""
        return ContentError.model_validate(self.details.content_errors.get(value, {}))

    def anchors(self, value: str, with_neutral: bool = False) -> Anchors:
        """Return a value's texts as anchors, sorted by theta; `with_neutral`: and which of them are neutral.

        Raises:
            InputError: the version does not hold the value.
        """
        if value not in self.calibrations:
            raise InputError(f"VIDB {self.build.build_id} has no {value!r}; {allowed(value, self.calibrations)}")
        value_id = ValueId(value)
        rows = store.read_table(self.build, ["text_id", "theta"], store.value_folder(value_id))
        anchors = self.anchors_of(value_id, rows)
        return anchors._replace(neutral_ids=self.neutral_ids(value_id)) if with_neutral else anchors

    def neutral_ids(self, value: ValueId) -> frozenset[str]:
        """Return the ids of a value's neutral texts; none for a version whose candidates are not under its root."""
        candidates = self.details.builds.get("candidates")
        if candidates is None or candidates not in store.finished(self.build.root, "candidates"):
            return frozenset()
        build = Build(self.build.root, "candidates", candidates)
        pool = store.read_table(build, ["text_id", "neutral"], store.value_folder(value))
        return frozenset(pool.filter(pool["neutral"])["text_id"].to_pylist())

    def anchors_of(self, value: ValueId, rows: pa.Table) -> Anchors:
        """Return the anchors of a value from its rows in the order of the build."""
        by_theta = rows.select(["text_id", "theta"]).sort_by("theta")
        text_ids, theta_A = by_theta["text_id"].to_numpy(), by_theta["theta"].to_numpy()
        return Anchors(value.theory, value.node, text_ids, theta_A, self.calibrations[value], self.content_error(value))


def load(root: str, version: str = "current") -> Vidb:
    """Return a version by id, or the published one.

    Raises:
        InputError: there is no such version, or it is damaged.
    """
    chosen = store.current(root).version if version == "current" else version
    if chosen is None:
        raise InputError(f"nothing is published under {root}; run python -m jobs.build_vidb or jobs.import_vidb first")
    build = Build(root, "vidb", chosen)
    manifest = store.require_manifest(build)
    details = manifest.details(VidbDetails)
    # A version may come from somebody else.
    for value in details.calibrations:
        theory, _, node = value.partition(":")
        if theory not in theories() or node not in theories()[theory]:
            raise InputError(f"manifest of vidb/{chosen}: calibrations: {value!r} is no value of this version of ValueFlow")
    for value, error in details.content_errors.items():
        manifest.nested(ContentError, error, f"content_errors.{value}")
    calibrations = {ValueId(v): manifest.nested(Calibration, c, f"calibrations.{v}") for v, c in details.calibrations.items()}
    return Vidb(build, manifest, details, calibrations)


def licenses(vidb: Vidb) -> dict[str, int]:
    """Return the number of rows under each licence."""
    column = store.read_table(vidb.build, ["license"])["license"]
    return {str(row["values"]): row["counts"] for row in pc.value_counts(column).to_pylist()}
