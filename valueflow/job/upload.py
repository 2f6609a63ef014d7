"""The working directory of a submitted job: ValueFlow's own packages and the config, nothing else."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from valueflow.errors import InputError

PACKAGES = ("valueflow", "jobs", "serve")
CACHES = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


class Upload(NamedTuple):
    """A working directory.

    Attributes:
        config: path of the config in it.
        files: number of files.
        size: bytes.
    """

    config: str
    files: int
    size: int


def fill(folder: Path, config: str) -> Upload:
    """Copy what a job needs into an empty folder. Data is not copied: jobs read it from where every node can.

    Raises:
        InputError: a package has no folder to copy from.
    """
    for package, source in _sources():
        shutil.copytree(source, folder / package, ignore=CACHES)
    path = Path(config)
    # As the user wrote it, where that lies within a checkout; the messages of the job then name the same file.
    inside = path if not path.is_absolute() and ".." not in path.parts else Path("conf") / path.name
    (folder / inside).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, folder / inside)
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return Upload(inside.as_posix(), len(sizes), sum(sizes))


def _sources() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if not spec or not spec.submodule_search_locations:
            raise InputError(
                f"the package {package!r} is not in a folder, so it cannot be uploaded; install ValueFlow from its checkout"
            )
        yield package, Path(next(iter(spec.submodule_search_locations)))
