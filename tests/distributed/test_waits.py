"""Whatever a driver waits for has the limits of `distributed.watch`: nothing waits for ever."""

import ast
from pathlib import Path

import pytest

import valueflow.distributed

# Functions that wait for an object or an actor without limits: those that run on workers, whose driver has limits; and calls of
# the driver to actors that hold no resources.
UNLIMITED = {
    "build/aggregate.py": {"_call"},
    "build/early.py": {"_enter"},  # of tasks that are ready
    "cluster.py": {"completed_results", "ordered_results", "result_of"},  # after `first_ready`
    "commit.py": {"open_rows"},
    "error_limit.py": {"add", "error_limit", "exceeded", "stop"},
    "extract.py": {"_write_nodes"},
    "profiles/run.py": {"scorer"},
    "profiles/scorer.py": {"__init__"},
    "train/loop.py": {"train_worker", "_train"},
    "train/run.py": {"follow"},
    "warm_pools.py": {"_forward"},
    "worker_deaths.py": {"look"},
}
FOLDER = Path(valueflow.distributed.__file__).parent


def calls(function: ast.AST) -> set[str]:
    """Calls in a function, not in the functions within it."""
    names: set[str] = set()
    inside = list(ast.iter_child_nodes(function))
    while inside:
        node = inside.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Call):
            names.add(ast.unparse(node.func))
        inside += ast.iter_child_nodes(node)
    return names


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_a_driver_waits_with_limits(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    unlimited = {function.name for function in functions if "ray.get" in calls(function)}
    assert unlimited <= UNLIMITED.get(str(path.relative_to(FOLDER)), set())
    for function in functions:
        if any(name.endswith(".iter_batches") for name in calls(function)):
            assert "watched" in calls(function), function.name
