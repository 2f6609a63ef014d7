"""Damage of finished builds: it is looked for where a build is used again, set aside, and made again by the build's stage."""

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from valueflow.errors import DamageError
from valueflow.store.files import read_parsed, set_aside
from valueflow.store.layout import Build
from valueflow.store.manifests import (
    MAKE_AGAIN,
    UNLISTED,
    File,
    Flaw,
    Manifest,
    check_bytes,
    flaws,
    read_manifest,
    require_manifest,
)

log = logging.getLogger(__name__)
# Tables whose rows may have cost money.
ANSWERS = {"rankings", "votes", "names"}
# Tables that have as many rows as the input of this table.
PLANS = {"rankings": "windows", "utilities": "candidates", "vidb": "utilities", "embeddings": "texts"}


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
    damaged = list(flaws(build, existing))
    seen = {flaw.path for flaw in damaged}
    damaged += _other_bytes(build, [file for file in existing.files if file.path not in seen])
    for path, reason in damaged:
        log.warning("%s/%s %s; it is set aside and made again", build.url, path, reason)
        # Answers that a manifest without a digest does not list may be its own: they are not asked again.
        if path and (existing.digest or build.table not in ANSWERS or reason != UNLISTED):
            withdraw(build, path)
    if not damaged:
        damaged = _other_inputs(build, existing)
    if damaged:
        set_aside(build.manifest_url)
    return None if damaged else existing


def _other_inputs(build: Build, existing: Manifest) -> list[Flaw]:
    """Inputs that are finished and not what the build was made from.

    Raises:
        DamageError: the build is a version, which must not change.
    """
    changed = []
    for source in existing.inputs:
        made_from = source.build
        try:
            now = read_manifest(made_from) if made_from else None
        except DamageError:  # for the stage that makes it
            continue
        if now is None:
            continue
        other_rows = PLANS.get(build.table) == now.table and now.num_rows != existing.num_rows
        if other_rows or source.content not in ("", now.content):
            what = (
                f"has {existing.num_rows} rows, {now.num_rows} were planned" if other_rows else "is not what it was made from"
            )
            changed.append(Flaw(f"{now.table}/{now.build_id}", what))
    for path, reason in changed:
        if build.table == "vidb":
            raise DamageError(
                f"{build.url} is whole, but {path} {reason}: restore that folder, or rename {build.url} to make the version "
                "again, with other numbers"
            )
        log.warning("%s: %s %s; it is made again", build.url, path, reason)
    return changed


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


def _other_bytes(build: Build, listed: Sequence[File]) -> list[Flaw]:
    """Those of the listed files that have another hash than in the manifest."""

    def differs(file: File) -> bool:
        try:
            read_parsed(f"{build.url}/{file.path}", functools.partial(check_bytes, file), (ValueError,), "what was written")
        except (DamageError, FileNotFoundError):
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        bad = pool.map(differs, listed)
        return [Flaw(file.path, "differs from its manifest's hash") for file, b in zip(listed, bad, strict=True) if b]


def verify(build: Build) -> None:
    """Read every byte of a finished build and compare it with the manifest's hashes.

    Raises:
        DamageError: a file is missing or differs.
    """
    for path, reason in _other_bytes(build, require_manifest(build).files):
        raise DamageError(f"{build.url}/{path} {reason}; {MAKE_AGAIN}")
