"""What a result depends on: options, code, the input."""

import importlib
import sys

import pytest

from mitocore import digests
from mitocore.builtin.postprocess import Threshold

PACKAGE = """
from mitocore.builtin.postprocess import Threshold

class Grown(Threshold):
    "A threshold that grows."
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "grown_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    sys.modules.pop("grown_plugin", None)


def test_the_code_of_a_plugin_follows_every_file_of_its_package(package):
    grown = importlib.import_module("grown_plugin").Grown()
    before = digests.code_of(grown)
    (package / "more.py").write_text("x = 1\n", "utf-8")
    digests._source.cache_clear()
    assert digests.code_of(grown) != before


def test_the_code_of_a_plugin_of_one_module_follows_that_file_alone(tmp_path, monkeypatch):
    (tmp_path / "lone_plugin.py").write_text(PACKAGE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    lone = importlib.import_module("lone_plugin").Grown()
    before = digests.code_of(lone)
    (tmp_path / "other.py").write_text("x = 1\n", "utf-8")
    digests._source.cache_clear()
    assert digests.code_of(lone) == before
    (tmp_path / "lone_plugin.py").write_text(PACKAGE + "# another\n", "utf-8")
    digests._source.cache_clear()
    assert digests.code_of(lone) != before
    sys.modules.pop("lone_plugin", None)


def test_the_code_of_a_builtin_is_that_of_its_module():
    assert digests.code_of(Threshold()) == digests.code_of(Threshold(threshold=0.2))
