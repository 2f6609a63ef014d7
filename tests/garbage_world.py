"""A root with a published version, an older unfinished build, and what nobody needs; and a small build without Ray."""

import os
import time
from pathlib import Path

import pyarrow as pa

from valueflow import store
from valueflow.records import SCHEMAS, ValueId
from valueflow.store import (
    Build,
    CandidatesDetails,
    IngestDetails,
    RankingsDetails,
    UtilitiesDetails,
    VidbDetails,
    WindowsDetails,
)
from valueflow.store.attempts import attempt
from valueflow.store.files import remove_file

VALUE = ValueId("svt:power")
FOLDER = store.value_folder(VALUE)
WINDOWS = ("0" * 16, "1" * 16, "2" * 16)
BLANK = {pa.string(): "x", pa.int8(): 0, pa.int32(): 0, pa.float64(): 0.0, pa.bool_(): False}


def rows(table: str, ids: tuple[str, ...], **columns: object) -> pa.Table:
    """Rows of a table with these ids in its first id column, windows in order; everything else is blank."""
    schema = SCHEMAS[table]
    key = next(name for name in ("window_id", "text_id", "response_id") if name in schema.names)
    count = len(ids)
    given = {key: list(ids), "theory": ["svt"] * count, "value": ["power"] * count, "text_ids": [["x", "y"]] * count}
    given |= {"order": [[0, 1]] * count, "error": [None] * count} | columns
    arrays = []
    for field in schema:
        blank = BLANK.get(field.type, [] if pa.types.is_list(field.type) else None)
        arrays.append(pa.array(given.get(field.name, [blank] * len(ids)), field.type))
    return pa.table(arrays, schema=schema)


def finish(build: Build, details: store.Details, inputs: tuple[Build, ...] = (), ids: tuple[str, ...] = WINDOWS) -> Build:
    """Make a build, unless it is there."""
    if not store.reusable(build):
        folder = "" if build.table == "texts" else FOLDER
        store.write_part(build, rows(build.table, ids), "0", folder)
        store.commit(build, details, inputs)
    return build


class Line:
    """The builds of one version, by a name."""

    def __init__(self, root: str, name: str) -> None:
        self.root = root
        tables = ("texts", "candidates", "windows", "rankings", "utilities")
        self.texts, self.candidates, self.windows, self.rankings, self.utilities = (Build(root, t, name) for t in tables)
        self.version = Build(root, "vidb", f"v-{name}")

    @property
    def builds(self) -> list[Build]:
        return [self.texts, self.candidates, self.windows, self.rankings, self.utilities, self.version]

    def plan(self) -> None:
        """The stages before the judge."""
        finish(self.texts, IngestDetails(texts=3))
        finish(self.candidates, CandidatesDetails(sizes={VALUE: 3}), (self.texts,))
        finish(self.windows, WindowsDetails(windows=3), (self.candidates,))

    def answer(self, limit: int = 3) -> int:
        """Ask the open windows, up to so many; return how many were asked."""
        if store.reusable(self.rankings):
            return 0
        asked = [i for i in WINDOWS if i.encode() not in store.committed_ids(self.rankings, "window_id")][:limit]
        for window in asked:
            store.write_part(self.rankings, rows("rankings", (window,)), window, FOLDER)
        return len(asked)

    def build(self) -> int:
        """As a job does: finish every stage, publish, and return how many windows were asked."""
        pointer = store.replaceable(self.root)
        self.plan()
        asked = self.answer()
        if not store.reusable(self.rankings):
            store.commit(self.rankings, RankingsDetails(windows=3), [self.windows])
        finish(self.utilities, UtilitiesDetails(), (self.candidates, self.rankings))
        stages = {build.table: build.build_id for build in self.builds}
        finish(self.version, VidbDetails(builds=stages, calibrations={VALUE: {}}), (self.candidates, self.utilities))
        store.publish(self.root, self.version.build_id, pointer)
        return asked


def make(root: str) -> None:
    """`a` is published; `b` is a version nobody published; of `c` the plan and one answer are there."""
    Line(root, "c").plan()
    Line(root, "c").answer(1)
    for name in ("b", "a"):  # the newest ingest is a's
        with attempt(root, f"build-{name}", name):
            Line(root, name).build()
    remove_file(store.pointer_url(root))
    store.publish(root, "v-a", store.current(root))
    store.write_bytes(f"{store.cache_url(root)}/ab/ab12.json", b"[]")
    store.write_bytes(f"{root}/reports/v-b.html", b"page")
    store.write_bytes(f"{root}/audits/f.json", b"{}")
    store.write_bytes(f"{root}/validity/f.json", b"{}")
    store.write_bytes(f"{root}/vidb/v-b/human_queue.csv", b"text,rating\na,5\n")
    store.write_bytes(f"{root}/texts/a/part-9.parquet.bad", b"damaged")
    store.write_bytes(f"{root}/people/round/ratings.csv", b"r")


def make_old(root: str, days: float = 100) -> None:
    """Every file was last written so many days ago."""
    for path in Path(root).rglob("*"):
        os.utime(path, (time.time() - days * 86_400,) * 2)
