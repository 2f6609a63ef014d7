"""A model's own values: its replies to queries without any persona, as the texts of a unit.

A query is the thread of a reply: replicates of a reply to one query depend on each other.
"""

import logging
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import store, vidb
from valueflow.config import Resources
from valueflow.distributed.cluster import result_of
from valueflow.distributed.profiles.config import ProfileModelConfig
from valueflow.distributed.profiles.run import profile_texts
from valueflow.distributed.steering.generate import outcome_lines, steer
from valueflow.errors import InputError
from valueflow.profiles.unit_texts import store_unit_texts
from valueflow.records import SCHEMAS, clean
from valueflow.steering.generation import LATEST, finished_generations
from valueflow.store import Build, UnitTextsDetails

log = logging.getLogger(__name__)
BARE = "bare"  # the condition without a persona
COLUMNS = ["generation_id", "model", "condition", "query_id", "response", "response_text_id", "outcome", "error"]


def profile_models(config: ProfileModelConfig) -> Build:
    """Return the build of the profiles of models from their replies without a persona, which models of the config give first.

    Raises:
        InputError: a model or query cannot be used, there are no generations, none of them is without a persona, or none has a
            reply that counts.
    """
    builds = _asked(config) if config.models else finished_generations(config.root, config.generations or LATEST)
    task = ray.remote(replies).options(num_cpus=1).remote(builds, config.outcomes, config.root)
    texts = result_of("profiles, replies", task, Resources(1))
    return profile_texts(config, texts, shared_threads=True)


def _asked(config: ProfileModelConfig) -> list[Build]:
    vidb.load(config.root, config.vidb)  # what cannot be scored is not generated
    builds = steer(config.steering()).builds
    for line in outcome_lines(builds):
        log.info("%s", line)
    return list(builds.values())


def replies(builds: Sequence[Build], outcomes: Sequence[str], root: str) -> Build:
    """Store the replies without a persona as texts of units, a unit for each model; return their build.

    Raises:
        InputError: none of the builds has such a reply.
    """
    rows, left_out = [], Counter[str]()
    for build in builds:
        for file in store.require_manifest(build).files:
            part = store.read_part(build, file, COLUMNS)
            for row in part.filter(pc.equal(part["condition"], BARE)).to_pylist():
                text = clean(row["response"] or "")
                outcome = row["outcome"] if text and not row["error"] else "broken"
                if outcome not in outcomes:
                    left_out[f"{row['model']}: {outcome}"] += 1
                    continue
                rows.append(
                    {
                        "row_id": row["generation_id"], "unit": row["model"], "text_id": row["response_text_id"], "text": text,
                        "thread": row["query_id"], "weight": 1.0,
                    }
                )  # fmt: skip
    if not rows:
        names = ", ".join(build.build_id for build in builds)
        reasons = f": {dict(left_out)}" if left_out else f"; generate with the control {BARE!r} in jobs.steer"
        raise InputError(f"generations {names} have no reply without a persona that counts{reasons}")
    if left_out:
        log.warning("profiles: replies left out: %s", ", ".join(f"{name} {n}" for name, n in sorted(left_out.items())))
    table = pa.Table.from_pylist(rows, SCHEMAS["unit_texts"])
    path = "replies of " + ", ".join(sorted({row["unit"] for row in rows}))
    return store_unit_texts(table, root, UnitTextsDetails(path=path, unreadable=left_out.total()), list(builds))
