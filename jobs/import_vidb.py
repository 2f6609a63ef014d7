"""Import official VIDB CSVs ({value}_{theory}.csv: text, final_rating) or JSON lines (theory, value, text, intensity).

python -m jobs.import_vidb conf/import_vidb/official.yaml files='["VIDB/benevolence_svt.csv"]'
"""

from pydantic import Field

from valueflow import store, vidb
from valueflow.config import Config
from valueflow.console import say
from valueflow.job import run_job
from valueflow.store import Build


class ImportConfig(Config):
    """Files to import as one version."""

    root: str = Field(description="folder or URL under which all tables live")
    files: list[str] = Field(min_length=1)
    license: str = Field(min_length=1, description="license of these files, stored with every row")
    source: str = "import"
    publish: bool = Field(True, description="point CURRENT at the version")


SCHEMA = ImportConfig


def main(config: ImportConfig) -> Build:
    """Import the files, publish the version and print the numbers of texts."""
    previous = store.replaceable(config.root)
    version, counts = vidb.import_version(config.files, config.license, config.source, config.root)
    if config.publish:
        store.publish(config.root, version.build_id, previous)
    say(f"VIDB {version.build_id}: {counts['texts']} texts, {counts['duplicates']} duplicates, {counts['empty']} empty dropped")
    return version


if __name__ == "__main__":
    run_job(SCHEMA, main)
