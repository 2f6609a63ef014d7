"""List what nobody needs under a root, and delete it with delete=true.

python -m jobs.gc conf/gc/tiny.yaml
"""

import time

from pydantic import Field

from valueflow.console import say
from valueflow.job import run_job
from valueflow.store.collector import collect
from valueflow.store.garbage import Garbage, Rules, garbage


class GcConfig(Rules):
    """Where garbage is looked for, and whether it is deleted."""

    root: str = Field(description="folder or URL under which all tables live")
    delete: bool = Field(False, description="delete it; by default it is only listed")


SCHEMA = GcConfig


def main(config: GcConfig) -> list[Garbage]:
    """List or delete, and print the sum."""
    since, done = time.time(), []
    items = garbage(config.root, config, since)
    for item in collect(config.root, items, config, since) if config.delete else items:
        say(f"{item.kind} {item.name}: {len(item.files):,} files, {item.size / 1e6:,.1f} MB; {item.reason}")
        done.append(item)
    end = "deleted" if config.delete else "garbage; nothing was deleted, delete=true does"
    say(f"{sum(len(i.files) for i in done):,} files, {sum(i.size for i in done) / 1e6:,.1f} MB: {end}")
    return done


if __name__ == "__main__":
    run_job(SCHEMA, main)
