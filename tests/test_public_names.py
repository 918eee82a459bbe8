"""What `import mitocore` gives."""

import subprocess
import sys

import pytest

import mitocore


@pytest.mark.parametrize("name", mitocore.__all__)
def test_every_public_name_exists(name):
    assert getattr(mitocore, name) is not None


def test_every_public_name_is_listed_by_dir():
    assert set(mitocore.__all__) <= set(dir(mitocore))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mitocore' has no attribute 'Rio'"):
        _ = mitocore.Rio


def test_every_name_for_type_checkers_is_a_public_one_and_the_other_way_round():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(mitocore.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    stated = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert stated | {"hookimpl"} == set(mitocore.__all__)


@pytest.mark.parametrize(
    "statement",
    [
        "import mitocore",
        "from mitocore import Pipeline, Step, Model, Window, load, open, evaluate",
        "from mitocore.registry import discover; discover()",
    ],
)
def test_neither_importing_nor_discovery_imports_torch(statement):
    program = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
