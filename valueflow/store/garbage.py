"""Garbage under a root: what nobody needs any more.

Kept, with all that it was made from (the `inputs` of manifests, transitively):

- the published version, those published before it (`Rules.versions` in all), and pinned versions;
- what a running attempt names in its lease, and what an attempt named whose lease was written less than `days` ago;
- builds of which a file was written less than `days` ago, finished or not;
- results: evaluations, generations, labels and queues, anchors, extractions, encoders (by `result_days`, where that is set);
- the newest ingest, which `texts: latest` means.

Reports, audits, validity records, what people wrote, and anything that no stage writes are never garbage.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pydantic import Field

from valueflow.config import Config
from valueflow.errors import DamageError
from valueflow.records import SCHEMAS
from valueflow.store.attempts import RUNNING, is_dead, parse
from valueflow.store.details import VidbDetails
from valueflow.store.files import SET_ASIDE, TEMPORARY, Entry, entries, filesystem, folders, is_link, is_local, read_bytes
from valueflow.store.layout import MANIFEST, Build, attempts_url, cache_url, file_texts_root, pins_url, under
from valueflow.store.manifests import FILE_TABLES, Manifest, unused_manifest
from valueflow.store.pointer import current

log = logging.getLogger(__name__)

DAY = 86_400.0
# Seconds by which the time of a file may be wrong: object stores tell whole seconds.
MARGIN = 2.0
TABLES = (*SCHEMAS, *FILE_TABLES)
# Tables that one stage writes under one id.
COMPANIONS = (("texts", "source_labels", "rejected"), ("anchors", "anchored"), ("labels", "queue"))
RESULTS = (
    "evaluations", "generations", "labels", "queue", "anchors", "anchored", "individuals", "extracted", "hives", "profiles",
    "choices",
)  # fmt: skip
# Made again from what it belongs to: kept as long as that is.
DERIVED = "fast"
# Rows that cost calls: said in the listing.
CALLS = ("rankings", "votes", "names", "generations", "choices")
FOR_PEOPLE = "human_queue.csv"

Key = tuple[str, str]  # table, build id


class Rules(Config):
    """What counts as garbage; ages in days."""

    days: float = Field(30, ge=0, description="nothing that was written or used more recently is garbage")
    cache_days: float | None = Field(90, ge=0, description="older replies of the call cache are garbage; null: never")
    result_days: float | None = Field(None, ge=0, description="older evaluations, labels, encoders … are; null: never")
    versions: int = Field(3, ge=1, description="versions that were published last are kept")


class Garbage(NamedTuple):
    """Files below one folder that nobody needs.

    Attributes:
        kind: build, checkpoints, npz, cache, lease, temporary or set aside.
        name: the folder below the root; of a build table and id.
        url: the folder.
        reason: why nobody needs them.
        files: paths below the folder; of a build the manifest first.
        size: bytes.
        key: of a build.
    """

    kind: str
    name: str
    url: str
    reason: str
    files: tuple[str, ...]
    size: int
    key: Key | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the files belong together: none is removed if one was written since."""
        return self.kind in ("build", "checkpoints", "npz")


class Found(NamedTuple):
    """A build as it is listed."""

    build: Build
    files: Mapping[str, Entry]
    manifest: Manifest | None

    @property
    def modified(self) -> float:
        """When it was last written."""
        return max(entry.modified for entry in self.files.values())


def garbage(root: str, rules: Rules, now: float | None = None) -> list[Garbage]:
    """Return what nobody needs, each build before those that it was made from; nothing is changed.

    Args:
        root: folder or URL of all tables.
        rules: what counts as garbage.
        now: seconds since 1970.

    Raises:
        DamageError: CURRENT is damaged, so nobody knows which version is published.
    """
    now = time.time() if now is None else now
    builds, cutoff = found_builds(root), now - rules.days * DAY - MARGIN
    named = needed_names(root, rules, cutoff)
    keep = _kept(root, builds, rules, now, named)
    doomed = _in_order({key: of for key, of in builds.items() if key not in keep})
    others = [
        *_checkpoints(root, named, cutoff),
        *_exports(root, rules, now),
        *_replies(root, keep, rules, now, cutoff),
        *_leases(root, named, cutoff),
        *_set_aside(builds, keep, cutoff),
        *_temporary(root, now),
    ]
    return [*doomed, *others]


def found_builds(root: str) -> dict[Key, Found]:
    """Return every build under a root and under that of its files; tables and builds that are links are left alone."""
    found = {}
    for of in (root, file_texts_root(root)):
        for table in TABLES:
            for build_id, files in _by_folder(under(of, table)).items():
                listed = {path: entry for path, entry in files.items() if not path.startswith(FOR_PEOPLE)}
                if listed:
                    build = Build(of, table, build_id)
                    found[table, build_id] = Found(build, listed, _manifest(build) if MANIFEST in listed else None)
    return found


def _by_folder(url: str) -> dict[str, dict[str, Entry]]:
    """The files of every folder directly in a folder, by their paths in it; temporary ones are left out."""
    if is_link(url):  # shared with another root, whose business it is
        return {}
    files: dict[str, dict[str, Entry]] = {}
    for path, entry in entries(url).items():
        folder, slash, rest = path.partition("/")
        if slash and not rest.endswith(TEMPORARY):
            files.setdefault(folder, {})[rest] = entry
    return {folder: of for folder, of in files.items() if not is_link(under(url, folder))}


def _manifest(build: Build) -> Manifest | None:
    try:
        return unused_manifest(build)
    except DamageError as error:
        log.warning("%s", error)
        return None


def needed_names(root: str, rules: Rules, cutoff: float) -> set[str]:
    """Return what attempts, pins and CURRENT name (`vidb/v-…`).

    In this order: an attempt publishes before its lease ends, and a rollback pins before it publishes.
    """
    names: set[str] = set()
    for path, entry in entries(attempts_url(root)).items():
        lease = parse(_content(f"{attempts_url(root)}/{path}"))
        if lease and (entry.modified >= cutoff or (lease.state == RUNNING and not is_dead(lease))):
            names |= set(lease.uses)
    names |= {f"vidb/{path.removesuffix('.json')}" for path in entries(pins_url(root))}
    pointer = current(root)
    return names | {f"vidb/{version}" for version in [pointer.version, *pointer.previous][: rules.versions]}


def _content(url: str) -> bytes | None:
    try:
        return read_bytes(url)
    except FileNotFoundError:
        return None


def _kept(root: str, builds: dict[Key, Found], rules: Rules, now: float, named: set[str]) -> set[Key]:
    cutoff = now - rules.days * DAY - MARGIN
    results = 0.0 if rules.result_days is None else now - rules.result_days * DAY - MARGIN
    roots = {
        key
        for key, of in builds.items()
        if of.modified >= cutoff
        or is_named(key, of.build, root, named)
        or (key[0] in RESULTS and of.manifest and of.modified >= results)
    }
    for of in (root, file_texts_root(root)):
        ingests = [
            (f.manifest.created, key) for key, f in builds.items() if key[0] == "texts" and f.build.root == of and f.manifest
        ]
        roots |= {max(ingests)[1]} if ingests else set()
    keep = closure(roots, builds)
    return keep | {key for key, of in builds.items() if key[0] == DERIVED and of.manifest and inputs(of.manifest) <= keep}


def is_named(key: Key, build: Build, root: str, named: set[str]) -> bool:
    """Return whether a build is among names below the root; a name in the root of files begins with that."""
    name = "/".join(key)
    return (name if build.root == root else f"files/{name}") in named


def closure(roots: Iterable[Key], builds: Mapping[Key, Found]) -> set[Key]:
    """Return builds with all that they were made from, and what was written together with it."""
    keep: set[Key] = set()
    waiting = list(roots)
    while waiting:
        key = waiting.pop()
        if key in keep:
            continue
        keep.add(key)
        of = builds.get(key)
        waiting += inputs(of.manifest) if of and of.manifest else ()
        waiting += [(table, key[1]) for tables in COMPANIONS if key[0] in tables for table in tables]
    return keep


def inputs(manifest: Manifest) -> set[Key]:
    """Return the builds that a build was made from. Their root does not matter: of two with one id, both are kept."""
    keys = {(source.table, source.build_id) for source in manifest.inputs if source.build_id}
    if manifest.table == "vidb":
        stages = manifest.details(VidbDetails).builds
        keys |= {(stage.partition(" ")[0], build_id) for stage, build_id in stages.items()}
    return keys - {(manifest.table, manifest.build_id)}


def _in_order(doomed: dict[Key, Found]) -> Iterator[Garbage]:
    """Builds as garbage, each before what it was made from."""
    users: dict[Key, list[Key]] = {key: [] for key in doomed}
    for key, of in doomed.items():
        for source in inputs(of.manifest) if of.manifest else ():
            if source in users:
                users[source].append(key)
    done: set[Key] = set()

    def visit(key: Key) -> Iterator[Garbage]:
        if key not in done:
            done.add(key)
            for user in users[key]:
                yield from visit(user)
            yield _of_build(key, doomed[key])

    for key in sorted(doomed):
        yield from visit(key)


def _of_build(key: Key, of: Found) -> Garbage:
    if not of.manifest:
        reason = "its manifest is damaged" if MANIFEST in of.files else "unfinished"
    elif key[0] == "vidb":
        reason = "not among the last published versions, not pinned, and no result was made from it"
    else:
        reason = "nothing that is kept was made from it"
    reason += "; its answers cost calls" if key[0] in CALLS else ""
    files = {path: of.files[path] for path in sorted(of.files, key=lambda path: (path != MANIFEST, path))}
    return _of_files("build", "/".join(key), of.build.url, f"{reason}; last written {_day(of.modified)}", files, key)


def _of_files(kind: str, name: str, url: str, reason: str, files: Mapping[str, Entry], key: Key | None = None) -> Garbage:
    return Garbage(kind, name, url, reason, tuple(files), sum(entry.size for entry in files.values()), key)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _checkpoints(root: str, named: set[str], cutoff: float) -> Iterator[Garbage]:
    for folder, files in _by_folder(under(root, "checkpoints")).items():
        name, modified = f"checkpoints/{folder}", max(entry.modified for entry in files.values())
        if modified < cutoff and name not in named:
            reason = f"of a training that did not finish; last written {_day(modified)}"
            yield _of_files("checkpoints", name, under(root, name), reason, files)


def _exports(root: str, rules: Rules, now: float) -> Iterator[Garbage]:
    for folder, files in _by_folder(under(root, "npz")).items() if rules.result_days is not None else ():
        modified = max(entry.modified for entry in files.values())
        if modified < now - (rules.result_days or 0.0) * DAY - MARGIN:
            yield _of_files("npz", f"npz/{folder}", under(root, "npz", folder), f"last written {_day(modified)}", files)


def _replies(root: str, keep: set[Key], rules: Rules, now: float, cutoff: float) -> Iterator[Garbage]:
    """Old replies of the call cache, and sharpness on the scale of versions that are gone."""
    versions = tuple(f"{build_id}-" for table, build_id in keep if table == "vidb")
    for folder in folders(cache_url(root)):
        url = under(cache_url(root), folder)
        files = entries(url)
        if folder == "sharpness":
            files = {path: entry for path, entry in files.items() if entry.modified < cutoff and not path.startswith(versions)}
            reason = "of versions that are garbage"
        elif rules.cache_days is None:
            continue
        else:
            oldest = now - rules.cache_days * DAY - MARGIN
            files = {p: entry for p, entry in files.items() if entry.modified < oldest and not p.endswith(TEMPORARY)}
            reason = f"older than {rules.cache_days:g} days"
        if files:
            yield _of_files("cache", f"cache/{folder}", url, reason, files)


def _leases(root: str, named: set[str], cutoff: float) -> Iterator[Garbage]:
    files = {}
    for path, entry in entries(attempts_url(root)).items():
        if entry.modified < cutoff and path.endswith(".json"):
            lease = parse(_content(f"{attempts_url(root)}/{path}"))
            if not lease or lease.state != RUNNING or is_dead(lease):
                files[path] = entry
    if files:
        yield _of_files("lease", "attempts", attempts_url(root), "of attempts that ended", files)


def _set_aside(builds: dict[Key, Found], keep: set[Key], cutoff: float) -> Iterator[Garbage]:
    for key, of in builds.items():
        files = {path: entry for path, entry in of.files.items() if path.endswith(SET_ASIDE) and entry.modified < cutoff}
        if files and key in keep:
            yield _of_files("set aside", "/".join(key), of.build.url, "damaged files, made again since or not", files)


def _temporary(root: str, now: float) -> Iterator[Garbage]:
    """Files of writers that were killed an hour ago or more, on local disks."""
    if not is_local(filesystem(root)[0]):  # an object is whole or absent
        return
    for table in (*TABLES, "cache", "audits", "validity", "reports", "attempts", "pins", "npz"):
        url = under(root, table)
        if is_link(url):
            continue
        files = {p: entry for p, entry in entries(url).items() if p.endswith(TEMPORARY) and entry.modified < now - 3600}
        if files:
            yield _of_files("temporary", table, url, "of writers that were killed", files)
