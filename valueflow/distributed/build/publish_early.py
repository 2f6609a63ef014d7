"""Publish the values of a build that are done, while the judges still work on the others."""

import logging
from collections.abc import Callable, Mapping

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import digest
from valueflow.store import Build, FitSummary, UtilitiesDetails

log = logging.getLogger(__name__)
# Writes a version of the values of these utilities.
WriteVersion = Callable[[Build, Build], store.Manifest]


class EarlyVersions:
    """Publishes a version whenever so many more values are done; each has an id of its own, and the whole replaces them.

    Attributes:
        pointer: CURRENT as it is after the last of them.
    """

    def __init__(
        self, every: int, candidates: Build, utilities: Build, version: Build, planned: int, write: WriteVersion,
        pointer: store.Pointer,
    ) -> None:  # fmt: skip
        """Publish nothing yet.

        Args:
            every: number of values; 0: none is published.
            candidates: the texts.
            utilities: the unfinished build of all values; those of values that are done are in it.
            version: the version of the whole build.
            planned: number of values of the whole build.
            write: writes a version.
            pointer: CURRENT as it is.
        """
        self.every, self.candidates, self.utilities, self.version = every, candidates, utilities, version
        self.planned, self.write, self.pointer = planned, write, pointer
        self._published = 0

    def __call__(self, fits: Mapping[str, FitSummary]) -> None:
        """Publish the values of these fits, by folder, if there are enough new ones and others are still open."""
        if not self.every or len(fits) < self._published + self.every or len(fits) == self.planned:
            return
        self._published, folders = len(fits), sorted(fits)
        utilities = self.utilities._replace(build_id=digest(self.utilities.build_id, folders))
        version = self.version._replace(build_id=f"v-{digest(self.version.build_id, folders)}")
        if not store.reusable(utilities):
            for folder in folders:
                for path in store.part_paths(self.utilities, folder):
                    store.write_part(utilities, store.read_part(self.utilities, path), digest(folder), folder)
            store.commit(utilities, UtilitiesDetails(fits={fits[f].value: fits[f] for f in folders}), [self.candidates])
        self.write(utilities, version)
        try:
            store.publish(self.version.root, version.build_id, self.pointer)
        except InputError as error:  # somebody else publishes here; the whole version is built all the same
            log.warning("no early version: %s", error)
            self.every = 0
            return
        self.pointer = store.current(self.version.root)
        log.info("publish: version %s of the first %d of %d values", version.build_id, len(fits), self.planned)
