"""The import graph: no circle of files or packages, no import of a higher layer, and few, short modules."""

import ast
import functools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROOTS = ("valueflow", "serve", "jobs")

# From the bottom up. A package may import its own layer and those below it.
LAYERS = (
    {
        "errors",
        "records",
        "config",
        "defaults",
        "store",
        "job",
        "api",
        "callers",
        "retry",
        "models",
        "console",
        "decoding",
        "tabular",
        "numerics",
    },
    {"theories", "samples"},
    {"corpora", "voting", "ranking"},
    {"prompts"},
    {"llm"},
    {"vidb"},
    {"people"},
    {"hives"},
    {"judging", "choices"},
    {"evaluation"},
    {"steering"},
    {"profiles", "questionnaires"},
    {"report"},
    {"service", "client"},
    {"distributed"},
    {"cli"},
    {"serve", "jobs"},
)
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}

Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """The file of every module by its dotted name; a package is named by its `__init__.py`."""
    files = (path.relative_to(REPOSITORY) for root in ROOTS for path in (REPOSITORY / root).rglob("*.py"))
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): REPOSITORY / path for path in files}


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def imported_names(path: Path) -> Iterator[str]:
    """Every name that a file imports, in functions too, as a dotted name."""
    for node in runtime_nodes(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


MODULES = modules()


@functools.cache
def import_graph() -> Graph:
    """Module -> the modules of this repository that it imports."""
    graph = {}
    for module, path in MODULES.items():
        targets = set()
        for name in imported_names(path):
            target = name if name in MODULES else name.rpartition(".")[0]
            if target in MODULES and target != module:
                targets.add(target)
        graph[module] = targets
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """The groups of nodes that reach each other, found by removing nodes that import nothing or are imported by nothing."""
    nodes = set(graph)
    while True:
        imported = {target for node in nodes for target in graph[node] & nodes}
        ends = {node for node in nodes if not graph[node] & nodes or node not in imported}
        if not ends:
            break
        nodes -= ends
    return [sorted(f"{node} -> {target}" for node in nodes for target in graph[node] & nodes)] if nodes else []


def children_graph(package: str) -> Graph:
    """The modules and sub-packages directly in a package, each sub-package as one node."""
    prefix = f"{package}."

    def child(module: str) -> str:
        return prefix + module.removeprefix(prefix).partition(".")[0]

    graph = defaultdict(set)
    for module, targets in import_graph().items():
        if module.startswith(prefix):
            graph[child(module)] |= {child(target) for target in targets if target.startswith(prefix)} - {child(module)}
    return graph


def layer_name(module: str) -> str:
    """The package directly in `valueflow`, or `serve` or `jobs`."""
    return module.removeprefix("valueflow.").partition(".")[0]


def test_circles_are_recognised():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a"}}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b -> c", "c -> b"]]


def test_the_graph_covers_the_repository():
    assert "valueflow.ranking.plackett_luce" in import_graph()["valueflow.distributed.build.aggregate"]
    assert {"serve.app", "jobs.build_vidb", "valueflow"} <= set(import_graph())


def test_no_files_import_each_other_in_a_circle():
    assert circles(import_graph()) == []


def test_no_packages_import_each_other_in_a_circle():
    packages = {module.rpartition(".")[0] for module in MODULES if "." in module}
    assert {name: circle for name in packages if (circle := circles(children_graph(name)))} == {}


def test_every_package_has_a_layer():
    assert {layer_name(module) for module in MODULES} - {"valueflow"} - set(LAYER) == set()


def test_no_import_goes_from_a_lower_layer_up():
    upwards = [
        f"{module} -> {target}"
        for module, targets in import_graph().items()
        for target in targets
        if "valueflow" not in (module, target) and LAYER[layer_name(target)] > LAYER[layer_name(module)]
    ]
    assert upwards == []


def test_few_modules_lie_loose_and_most_are_short():
    loose = [path.stem for path in (REPOSITORY / "valueflow").glob("*.py") if path.stem != "__init__"]
    assert len(loose) <= 8, loose
    lengths = [len(path.read_text("utf-8").splitlines()) for path in MODULES.values() if path.stem != "__init__"]
    assert statistics.median(lengths) <= 150
    assert statistics.quantiles(lengths, n=10)[-1] <= 400


def test_every_folder_of_modules_is_a_package():
    """Without `__init__.py` a folder works in a checkout, and an installed ValueFlow lacks it."""
    folders = {path.parent for name in ("valueflow", "serve", "jobs") for path in (REPOSITORY / name).rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_no_folder_of_tests_is_skipped(pytestconfig):
    folders = {part for path in (REPOSITORY / "tests").rglob("test_*.py") for part in path.relative_to(REPOSITORY).parts[:-1]}
    skipped = pytestconfig.getini("norecursedirs")
    assert [folder for folder in folders if any(fnmatch(folder, pattern) for pattern in skipped)] == []
