"""Versions that garbage collection keeps, and the way back to an earlier version."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from valueflow.errors import InputError
from valueflow.store.attempts import wait_for_collector
from valueflow.store.files import entries, exists, remove_file, write_bytes
from valueflow.store.layout import Build, pin_url, pins_url
from valueflow.store.manifests import finished, require_manifest
from valueflow.store.pointer import Pointer, current, repoint
from valueflow.store.repair import verify


def pinned(root: str) -> list[str]:
    """Return the pinned versions."""
    return sorted(path.removesuffix(".json") for path in entries(pins_url(root)) if path.endswith(".json"))


def pin(root: str, version: str) -> None:
    """Keep a finished version, and all that it was made from, whatever is published.

    Raises:
        InputError: there is no such version.
    """
    build, before = Build(root, "vidb", version), exists(pin_url(root, version))
    _ = build.url  # refuses what is no name
    write_bytes(pin_url(root, version), json.dumps({"version": version, "pinned": datetime.now(UTC).isoformat()}).encode())
    try:
        # The pin first: a collector that has begun before it is over now, and any other sees it.
        wait_for_collector(root)
        require_manifest(build)
    except BaseException:
        if not before:
            remove_file(pin_url(root, version))
        raise


def unpin(root: str, version: str) -> None:
    """Let a version go.

    Raises:
        InputError: it is not pinned.
    """
    if version not in pinned(root):
        raise InputError(f"version {version!r} is not pinned under {root} (pinned: {', '.join(pinned(root)) or 'none'})")
    remove_file(pin_url(root, version))


@contextlib.contextmanager
def _held(root: str, version: str) -> Iterator[None]:
    before = version in pinned(root)
    pin(root, version)
    try:
        yield
    finally:
        if not before:
            remove_file(pin_url(root, version))


def rollback(root: str, version: str = "") -> Pointer:
    """Publish a finished version again, and return what was published before.

    Every byte of the version is read first, and CURRENT is swapped only if nobody publishes meanwhile.

    Args:
        root: folder or URL of all tables.
        version: by default, the one that was published before the present one.

    Raises:
        InputError: nothing is published, there is no such version or it is published now, or another was published meanwhile.
        DamageError: a file of the version is missing or differs; CURRENT is as it was.
    """
    seen = current(root)
    if not seen.version:
        raise InputError(f"nothing is published under {root}, so there is nothing to go back from")
    target = version or next((v for v in seen.previous if v in finished(root, "vidb")), "")
    if not target:
        raise InputError(
            f"no version that was published before {seen.version!r} is left under {root}; name a finished one "
            f"({', '.join(finished(root, 'vidb')) or 'none'})"
        )
    if target == seen.version:
        raise InputError(f"version {target!r} is the published one already")
    with _held(root, target):
        verify(Build(root, "vidb", target))
        if not repoint(root, target, seen):
            now = current(root).version
            raise InputError(f"version {now!r} was published meanwhile; nothing was changed. Look at the versions and rerun")
    return seen
