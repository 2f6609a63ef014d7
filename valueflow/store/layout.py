"""Where everything under a root lies. The only code that joins such paths, so that garbage collection can rely on it.

| path under the root | content |
|---|---|
| `{table}/{build_id}/[theory=…/value=…/]part-*.parquet` | rows of a build; `_manifest.json` beside them makes it finished |
| `{table}/{build_id}/_files-…` | the list of the files of a build that has more than 1,000 |
| `{table}/{build_id}/_journal/` | records of the parts of an unfinished build of answers; what its attempts took |
| `vidb/CURRENT` | the pointer to the published VIDB version |
| `cache/` | replies of language models by call key |
| `cache/sharpness/{version}-{judge}.json` | estimates of the sharpness of a judge that did not build the version |
| `audits/{fingerprint}.json` | the result of a judge's audit |
| `validity/{fingerprint}.json` | the validity record of a judge, measured on rated texts |
| `reports/{name}.html` | pages |
| `steerability/{study}/` | results of a steerability study: JSON, CSV, model card fragment |
| `checkpoints/{settings}/` | of a training that has not finished |
| `people/{name}/` | tasks for raters, and the ratings that came back |
| `exports/{id}/` | replies of a build of generations, as files that jobs/evaluate reads |
| `npz/{id}/` | official exports of embeddings |
| `files/` | a root of its own for texts that were given as a file |
| `pins/{version}.json` | a version that garbage collection keeps |
| `attempts/{job}-{settings}.json` | lease of the latest attempt of a command: builds it uses, exit code |
| `attempts/collector` | while garbage is deleted: who deletes it |
"""

import re
from typing import NamedTuple

from valueflow.errors import InputError
from valueflow.records import ValueId

MANIFEST = "_manifest.json"
JOURNAL = "_journal"
SEGMENT, ATTEMPT_TIME = ".records", ".time"  # ends of the names of files in it
# Names of tables and builds. They also come from files (CURRENT, manifests), and must not lead out of the root.
NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


class Build(NamedTuple):
    """The address of one build."""

    root: str
    table: str
    build_id: str

    @property
    def url(self) -> str:
        """The folder of the build.

        Raises:
            InputError: the table or the id is no plain name.
        """
        for name in (self.table, self.build_id):
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise InputError(
                    f"{name!r} is not the name of a build under {self.root}: letters, digits, '_', '-' and '.' are"
                )
        return under(self.root, self.table, self.build_id)

    @property
    def manifest_url(self) -> str:
        """The file that makes the build finished."""
        return f"{self.url}/{MANIFEST}"


def build_of_model(url: str) -> Build | None:
    """Return the build of `hives` whose model folder a URL is; None for any other folder."""
    parts = url.rstrip("/").rsplit("/", 3)
    root, table, build_id, folder = [*["."] * (4 - len(parts)), *parts]
    return Build(root, table, build_id) if (table, folder) == ("hives", "model") and NAME.fullmatch(build_id) else None


def under(root: str, *parts: str) -> str:
    """Return a path under a root, which may end in a slash."""
    return "/".join([root.rstrip("/"), *parts])


def value_folder(value: str) -> str:
    """Return the hive folder of one value within a build.

    Raises:
        ValueError: it is not a value id.
    """
    value_id = ValueId(value)
    return f"theory={value_id.theory}/value={value_id.node}"


def pointer_url(root: str) -> str:
    """Return the file that names the published VIDB version."""
    return under(root, "vidb", "CURRENT")


def cache_url(root: str) -> str:
    """Return the folder of the call cache."""
    return under(root, "cache")


def sharpness_url(root: str, version: str, judge: str) -> str:
    """Return the file with the sharpness of a judge, by fingerprint, on the scale of a VIDB version."""
    return under(root, "cache", "sharpness", f"{version}-{judge}.json")


def audit_url(root: str, fingerprint: str) -> str:
    """Return the file with the audit result of the judge with this fingerprint."""
    return under(root, "audits", f"{fingerprint}.json")


def validity_url(root: str, fingerprint: str) -> str:
    """Return the file with the validity record of the judge with this fingerprint."""
    return under(root, "validity", f"{fingerprint}.json")


def report_url(root: str, name: str) -> str:
    """Return the page of this name."""
    return under(root, "reports", f"{name}.html")


def study_url(root: str, study: str) -> str:
    """Return the folder of the results of a steerability study."""
    return under(root, "steerability", study)


def answers_url(root: str, study: str) -> str:
    """Return the folder of the results of a study of answers to questions with options."""
    return under(root, "answers", study)


def checkpoints_url(root: str, settings: str) -> str:
    """Return the folder of the checkpoints of a training, by the hash of its settings."""
    return under(root, "checkpoints", settings)


def people_url(root: str, name: str) -> str:
    """Return the folder of the tasks of an export for raters."""
    return under(root, "people", name)


def npz_url(root: str, export: str) -> str:
    """Return the folder of an official export of embeddings."""
    return under(root, "npz", export)


def export_url(root: str, build_id: str) -> str:
    """Return the folder of the replies of a build of generations, as files that jobs/evaluate reads."""
    return under(root, "exports", build_id)


def file_texts_root(root: str) -> str:
    """Return the root under which texts that were given as a file are ingested, apart from the corpora."""
    return under(root, "files")


def pins_url(root: str) -> str:
    """Return the folder of the pinned versions."""
    return under(root, "pins")


def pin_url(root: str, version: str) -> str:
    """Return the file that pins a version."""
    return under(root, "pins", f"{version}.json")


def attempts_url(root: str) -> str:
    """Return the folder of the leases."""
    return under(root, "attempts")


def attempt_url(root: str, work: str) -> str:
    """Return the lease of the attempts of one work: a job with its settings."""
    return under(root, "attempts", f"{work}.json")


def collector_url(root: str) -> str:
    """Return the file that is there while garbage is deleted."""
    return under(root, "attempts", "collector")
