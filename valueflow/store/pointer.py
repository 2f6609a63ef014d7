"""The pointer to the published VIDB version: read at job start, swapped only if unchanged."""

import logging
from datetime import UTC, datetime
from typing import NamedTuple

from valueflow.errors import DamageError, InputError
from valueflow.store.files import read_bytes, read_parsed
from valueflow.store.json_files import sealed, unsealed
from valueflow.store.layout import NAME, Build, pointer_url
from valueflow.store.manifests import require_manifest
from valueflow.store.swap import swap

log = logging.getLogger(__name__)


class Pointer(NamedTuple):
    """CURRENT as read at job start; `publish` succeeds only if it is unchanged (compare-and-swap)."""

    version: str | None
    sequence: int
    raw: bytes | None


def current(root: str) -> Pointer:
    """Return the published VIDB version; version None where nothing is published.

    Raises:
        DamageError: the pointer is damaged.
    """
    url = pointer_url(root)
    try:
        return read_parsed(url, _parse, (ValueError, KeyError, TypeError), "a pointer")
    except FileNotFoundError:
        return Pointer(None, 0, None)
    except DamageError as error:
        raise DamageError(f"{error}; publish a version again, for example by the command that built it") from error


def replaceable(root: str) -> Pointer:
    """Return the published version as `current` does, for a job that will publish: it replaces a damaged pointer."""
    try:
        return current(root)
    except DamageError as error:
        log.warning("%s", error)
        return Pointer(None, 0, read_bytes(pointer_url(root)))


def _parse(raw: bytes) -> Pointer:
    content = unsealed(raw).content
    version, sequence = content["version"], content["sequence"]
    if type(sequence) is not int or sequence < 0 or not NAME.fullmatch(version):
        raise ValueError(f"version {version!r}, sequence {sequence!r}")
    return Pointer(version, sequence, raw)


def publish(root: str, version: str, seen: Pointer) -> None:
    """Point CURRENT at a finished version with one write, only if nobody has published since `seen` was read.

    Another attempt of the same command may have published this very version: then it is done.

    Raises:
        InputError: another version was published meanwhile; this one stays readable by its id.
    """
    if seen.version == version:
        return
    require_manifest(Build(root, "vidb", version))
    content = {"version": version, "sequence": seen.sequence + 1, "published": datetime.now(UTC).isoformat()}
    if swap(pointer_url(root), sealed(content), seen.raw):
        return
    published = current(root).version
    if published != version:
        happened = f"VIDB {published!r} was published" if published else "the pointer to the published version was removed"
        raise InputError(
            f"{happened} while {version!r} was being built; {version!r} is kept but not "
            f"made current. Rerun the command to publish it, or use it with vidb={version}"
        )
