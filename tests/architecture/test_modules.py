"""Rules about modules that no linter knows: what they may hold, and how large they may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "mitocore", *sorted(ROOT.glob("plugins/*/src/*"))]
MODULES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]

LARGEST = 600
VAGUE = {"utils", "util", "common", "misc", "helpers", "helper", "base", "manager", "handler"}
MAY_CATCH_ALL = {
    "mitocore/registry.py",  # a broken plugin must not take the others down
    "mitocore/blockwise/spawned.py",  # the outermost frame of a worker: every failure is the driver's to judge
    "mitocore/blockwise/executor.py",  # hands every failure to the driver, as concurrent.futures does
    "mitocore/cli/failures.py",  # the outermost frame
    "mitocore/learn/prefetch.py",  # what a thread meets is raised where its batches are awaited
    "mitocore/testing/checks.py",  # a component may raise anything: that is what is reported
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {named(path): ast.parse(path.read_text("utf-8")) for path in MODULES}


def test_every_package_of_the_checkout_is_looked_at() -> None:
    assert {package.name for package in PACKAGES} >= {"mitocore", "mitocore_io", "mitocore_rsunet"}
    assert len(PACKAGES) == 1 + len(list(ROOT.glob("plugins/*/pyproject.toml")))


def test_no_module_is_longer_than_six_hundred_lines() -> None:
    lengths = {named(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > LARGEST} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    found = [name for name in map(named, MODULES) if {*Path(name).with_suffix("").parts} & VAGUE]
    assert found == []


def test_every_module_says_what_it_holds(trees: dict[str, ast.Module]) -> None:
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_shipped_code_has_no_assert_because_python_may_drop_it(trees: dict[str, ast.Module]) -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_only_the_modules_named_above_catch_everything(trees: dict[str, ast.Module]) -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        if name not in MAY_CATCH_ALL
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and catches_everything(node) and not passes_on(node)
    ]
    assert found == []


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether what was caught is raised again as it is, after something was put away."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def catches_everything(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or last_name(one) in ("Exception", "BaseException") for one in caught)


def test_nothing_is_left_unfinished(trees: dict[str, ast.Module]) -> None:
    unfinished = {"NotImplementedError", "NotImplemented"}
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and node.exc is not None
        and {last_name(n) for n in ast.walk(node.exc)} & unfinished
    ]
    assert found == []


def test_the_core_defines_no_network_outside_the_adapters_and_the_trainer(trees: dict[str, ast.Module]) -> None:
    found = [
        f"{name}: {node.name}"
        for name, tree in trees.items()
        if name.startswith("mitocore/") and name != "mitocore/nn.py" and not name.startswith("mitocore/learn/")
        for node in network_classes(tree)
    ]
    assert found == []


def network_classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and {last_name(parent) for parent in node.bases} & {
            "Module",
            "LightningModule",
        }:
            yield node


def last_name(node: ast.AST) -> str:
    """The name, or the last part of a dotted one."""
    return getattr(node, "id", getattr(node, "attr", ""))
