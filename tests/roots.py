"""Roots that share what another has ingested or built."""

from pathlib import Path


def with_texts_of(source: Path, root: Path) -> Path:
    """Link the ingested tables of one root into another, empty one, and return that."""
    for table in ("texts", "source_labels", "rejected"):
        (root / table).symlink_to(Path(source) / table)
    return root


def with_version_of(source: Path, root: Path) -> Path:
    """Link the ingested tables and every build of a version into another, empty root, and return that."""
    with_texts_of(source, root)
    for table in ("candidates", "windows", "rankings", "utilities", "vidb"):
        (root / table).mkdir()
        for path in (Path(source) / table).iterdir():
            (root / table / path.name).symlink_to(path)
    return root
