"""The import graph: no cycles, and every stage of dvc.yaml depends on the code that it imports."""

import graphlib
from pathlib import Path

import grimp
import pytest

from longreward.params import stage_names
from longreward.tasks.dvc_files import stage_entries

ROOT = Path(__file__).resolve().parents[1]

# What these import cannot change a stage's outputs: orchestration, the settings of all stages, checks before a run.
ORCHESTRATION = tuple(f"longreward.{name}" for name in ("checks", "flows", "params", "planning", "tasks"))
# Error classes and the base class of settings.
WITHOUT_OUTPUT = {"longreward", "longreward.config", "longreward.errors"}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("longreward")


def test_no_modules_import_each_other(imports: grimp.ImportGraph) -> None:
    graph = {module: imports.find_modules_directly_imported_by(module) for module in imports.modules}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which lists the cycle


@pytest.mark.parametrize("stage", stage_names())
def test_stage_depends_on_imported_library_modules(stage: str, imports: grimp.ImportGraph) -> None:
    inputs = stage_entries(ROOT / "dvc.yaml")[stage].inputs
    code = [path.with_suffix("") for path in inputs if path.parts[0] in ("flows", "tasks")]
    roots = ["longreward." + ".".join(path.parts) for path in code]
    modules = {module for root in roots for module in imports.find_modules_directly_imported_by(root)}
    covered: set[str] = set()
    while modules:
        module = modules.pop()
        if module in covered or module.startswith(ORCHESTRATION):
            continue
        covered.add(module)
        modules |= imports.find_modules_directly_imported_by(module)
    packages = {".".join(path.with_suffix("").parts) for path in inputs if path.parts[0] == "longreward"}
    missing = {
        module
        for module in covered - WITHOUT_OUTPUT
        if not any(module == package or module.startswith(package + ".") for package in packages)
    }
    assert not missing
    assert not {package for package in packages if not any(module.startswith(package) for module in covered)}
