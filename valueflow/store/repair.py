"""Damage of finished builds: it is looked for where a build is used again, set aside, and made again by the build's stage."""

import functools
import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from valueflow.errors import DamageError
from valueflow.store.files import read_parsed, set_aside, sizes
from valueflow.store.layout import Build
from valueflow.store.manifests import MAKE_AGAIN, File, Manifest, read_manifest, require_manifest

log = logging.getLogger(__name__)


def finished_manifest(build: Build, stage: str, rows: str) -> Manifest | None:
    """Return the manifest of a build that an earlier run finished, and log it; None where there is work to do."""
    finished_before = reusable(build)
    if finished_before:
        log.info("%s: %s %s, done before", stage, f"{finished_before.num_rows:,}", rows)
    return finished_before


def reusable(build: Build) -> Manifest | None:
    """Return the manifest of a build that an earlier run finished, None where there is work to do.

    For the stage that makes the build. A build of which a file is missing or damaged becomes unfinished: the file and the
    manifest are set aside, never deleted, and the stage makes what is lost again. Answers that are whole stay.

    Raises:
        StorageError: a file cannot be read, or the damage cannot be set aside.
    """
    try:
        existing = read_manifest(build)
    except DamageError as error:
        log.warning("%s", error)
        set_aside(build.manifest_url)
        return None
    if existing is None:
        return None
    damaged = _damaged(build, existing)
    for path in damaged:
        log.warning("%s/%s is missing or differs from its manifest; it is set aside and made again", build.url, path)
        withdraw(build, path)
    return None if damaged else existing


def reusable_together(builds: Sequence[Build]) -> Manifest | None:
    """Return the manifest of the first of builds that one stage writes together; None where one of them is to be made.

    The stage makes all of them again, so that none is written into while it is finished.
    """
    manifests = [reusable(build) for build in builds]
    if all(manifests):
        return manifests[0]
    for build in builds:
        set_aside(build.manifest_url)
    return None


def withdraw(build: Build, path: str) -> None:
    """Set a damaged file aside; a build that lists it becomes unfinished first."""
    set_aside(build.manifest_url)
    set_aside(f"{build.url}/{path}")


def _damaged(build: Build, listed: Manifest) -> list[str]:
    """The files of a build that are missing or have another hash."""
    actual = sizes(build.url)

    def damaged(file: File) -> bool:
        if actual.get(file.path) != file.size:
            return True
        try:
            read_parsed(f"{build.url}/{file.path}", functools.partial(_check_hash, file), (ValueError,), "what was written")
        except (DamageError, FileNotFoundError):
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        return [file.path for file, bad in zip(listed.files, pool.map(damaged, listed.files), strict=True) if bad]


def _check_hash(file: File, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ValueError("its hash is not that of its manifest")


def verify(build: Build) -> None:
    """Read every byte of a finished build and compare it with the manifest's hashes.

    Raises:
        DamageError: a file is missing or differs.
    """
    damaged = _damaged(build, require_manifest(build))
    if damaged:
        raise DamageError(f"{build.url}/{damaged[0]} differs from its manifest's hash; {MAKE_AGAIN}")
