"""How the replica of the HTTP API loads versions, without a cluster."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from serve.app import EvaluatorReplica, ServeConfig, builder
from valueflow import vidb
from valueflow.errors import InputError
from valueflow.judging.configs import SimulatedJudge
from valueflow.store import current, publish


def version(root: Path, num: int) -> str:
    rows = [{"theory": "svt", "value": "power", "text": f"I took charge {i} times.", "intensity": i / num} for i in range(num)]
    (root / f"anchors-{num}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    build, _ = vidb.import_version([str(root / f"anchors-{num}.jsonl")], "MIT", "made up", str(root))
    return build.build_id


def damage(root: Path, version: str) -> None:
    """Other bytes in a file that keeps its size."""
    (part,) = (root / "vidb" / version).glob("theory=svt/value=power/*.parquet")
    part.write_bytes(bytes(part.stat().st_size))


def replica_of(root: Path) -> EvaluatorReplica:
    return EvaluatorReplica(ServeConfig(root=str(root), fast=False, judge=SimulatedJudge()), None, None)


@pytest.mark.parametrize("fault", ["damaged", "unknown version", "unknown key"])
def test_a_new_version_that_cannot_be_loaded_is_logged_and_the_old_one_stays_in_use(tmp_path, fault, caplog):
    old, new = version(tmp_path, 30), version(tmp_path, 40)
    damage(tmp_path, new)
    user_config = {"damaged": {"vidb": new}, "unknown version": {"vidb": "v-none"}, "unknown key": {"vdb": old}}[fault]

    async def swap() -> EvaluatorReplica:
        replica = replica_of(tmp_path)
        await replica.reconfigure({"vidb": old})
        await replica.started.wait()
        await replica.reconfigure(user_config)
        return replica

    replica = asyncio.run(swap())
    assert replica.service.version.build.build_id == old
    replica.check_health()
    (record,) = [record for record in caplog.records if record.name == "serve.app"]
    assert record.levelno == logging.ERROR
    assert f"VIDB {old} stays in use" in record.getMessage()
    assert {"damaged": "is damaged", "unknown version": "v-none", "unknown key": "'vdb'"}[fault] in str(record.exc_info[1])


def test_a_whole_new_version_replaces_the_old_one_also_while_the_first_is_still_loading(tmp_path):
    old, new = version(tmp_path, 30), version(tmp_path, 40)

    async def swap() -> EvaluatorReplica:
        replica = replica_of(tmp_path)
        await replica.reconfigure({"vidb": old})
        assert replica.service is None  # it is loaded in the background
        replica.check_health()
        await replica.reconfigure({"vidb": new})
        return replica

    assert asyncio.run(swap()).service.version.build.build_id == new


def test_no_application_is_built_for_a_damaged_version_so_that_the_running_one_stays(tmp_path):
    new = version(tmp_path, 40)
    args = {"root": str(tmp_path), "vidb": new, "fast": False, "judge": {"kind": "simulated"}}
    builder(args)
    damage(tmp_path, new)
    with pytest.raises(InputError, match="differs from its manifest"):
        builder(args)


def test_a_replica_whose_first_version_cannot_be_loaded_is_unhealthy(tmp_path):
    publish(str(tmp_path), version(tmp_path, 30), current(str(tmp_path)))
    damage(tmp_path, current(str(tmp_path)).version)

    async def start() -> EvaluatorReplica:
        replica = replica_of(tmp_path)
        await replica.reconfigure({"vidb": "current"})
        await replica.started.wait()
        return replica

    with pytest.raises(RuntimeError, match="log"):
        asyncio.run(start()).check_health()

    with pytest.raises(InputError, match="'vdb'"):
        asyncio.run(replica_of(tmp_path).reconfigure({"vdb": "current"}))
