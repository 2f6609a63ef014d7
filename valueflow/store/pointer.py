"""The pointer to the published VIDB version: read at job start, swapped only if unchanged."""

import json
from datetime import UTC, datetime
from typing import NamedTuple

from valueflow.errors import InputError
from valueflow.store.files import read_bytes, swap
from valueflow.store.layout import NAME, Build, pointer_url
from valueflow.store.manifests import require_manifest


class Pointer(NamedTuple):
    """CURRENT as read at job start; `publish` succeeds only if it is unchanged (compare-and-swap)."""

    version: str | None
    sequence: int
    raw: bytes | None


def current(root: str) -> Pointer:
    """Return the published VIDB version; version None where nothing is published."""
    url = pointer_url(root)
    try:
        raw = read_bytes(url)
        content = json.loads(raw)
        version, sequence = content["version"], content["sequence"]
        if not isinstance(sequence, int) or not NAME.fullmatch(version):
            raise ValueError(f"version {version!r}, sequence {sequence!r}")
        return Pointer(version, sequence, raw)
    except FileNotFoundError:
        return Pointer(None, 0, None)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url} is corrupt ({error!r}); delete it and publish a version again") from error


def publish(root: str, version: str, seen: Pointer) -> None:
    """Point CURRENT at a finished version with one write, only if nobody has published since `seen` was read.

    Raises:
        InputError: another job published meanwhile; the version stays readable by its id.
    """
    if seen.version == version:
        return
    require_manifest(Build(root, "vidb", version))
    content = {"version": version, "sequence": seen.sequence + 1, "published": datetime.now(UTC).isoformat()}
    if not swap(pointer_url(root), json.dumps(content).encode(), seen.raw):
        raise InputError(
            f"VIDB {current(root).version!r} was published while {version!r} was being built; {version!r} is kept but not "
            f"made current. Rerun the command to publish it, or use it with vidb={version}"
        )
