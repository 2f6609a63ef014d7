"""Ray, vLLM and DeepSpeed stay inside valueflow.distributed; light modules do not pull in torch."""

import pkgutil
import subprocess
import sys

import pytest

import valueflow

pytestmark = pytest.mark.component

HEAVY = ("ray", "vllm", "deepspeed")
PURE = sorted(
    module.name
    for module in pkgutil.walk_packages(valueflow.__path__, "valueflow.")
    if not module.name.startswith("valueflow.distributed")
)


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after importing the modules."""
    lines = ["import importlib, sys", *(f"importlib.import_module({name!r})" for name in modules)]
    code = "\n".join([*lines, "print(*{name.partition('.')[0] for name in sys.modules})"])
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_all_of_valueflow_is_looked_at():
    assert {
        "valueflow.evaluation.scoring",
        "valueflow.judging.encoder",
        "valueflow.ranking.plackett_luce",
        "valueflow.report.vidb_page",
    } <= set(PURE)


def test_no_pure_module_imports_a_cluster():
    assert not loaded_by(*PURE) & set(HEAVY)


def test_light_modules_do_not_import_torch():
    light = ("valueflow.config", "valueflow.evaluation.scoring", "valueflow.vidb.version", "valueflow.judging.encoder")
    assert not loaded_by(*light) & {*HEAVY, "torch", "transformers", "sentence_transformers", "matplotlib"}
