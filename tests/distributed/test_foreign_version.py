"""Jobs over a version that somebody hands over ask the judge of their own config, never the one that its manifest names."""

import pytest
from configs import SIMULATED, job_config
from foreign import SECRET, foreign_version, hostile_judge, listener

from jobs import build_vidb, evaluate
from valueflow import store
from valueflow.errors import InputError

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("name", ["openai", "vllm"])
def test_evaluations_and_extensions_never_call_the_judge_of_the_version(root, tmp_path, monkeypatch, name):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with listener() as (url, heard):
        foreign_version(root, hostile_judge(name, url, tmp_path / "model"))
        scored = evaluate.main(job_config(evaluate, root, "evaluator.m=1", judge=SIMULATED, values=["svt:benevolence"]))
        assert set(store.read_table(scored.build, ["judge"])["judge"].to_pylist()) == {"sim"}
        with pytest.raises(InputError, match="imported"):
            build_vidb.main(job_config(build_vidb, root, "extend=current", "audit=ignore", judge=SIMULATED))
        assert heard == []
    assert not (tmp_path / "model" / "ran").exists()
