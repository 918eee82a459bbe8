"""Plugins that `mitocore new-plugin` writes: found, clean, and right by their own tests."""

import errno
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mitocore.component import KINDS
from mitocore.errors import ConfigError, DataError, ResourceError
from mitocore.registry import Registry, discover
from mitocore.scaffold import EXAMPLES, create

ROOT = Path(__file__).parents[1]


def installed(project: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """What is found of a project alone, without installing it."""
    with (project / "pyproject.toml").open("rb") as file:
        ((name, value),) = tomllib.load(file)["project"]["entry-points"]["mitocore.v1"].items()
    monkeypatch.syspath_prepend(str(project / "src"))
    return discover([EntryPoint(name, value, "mitocore.v1")])


def in_project(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A Python program at work in a project."""
    variables = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=variables, capture_output=True, text=True, check=False
    )


def test_there_is_an_example_of_every_kind() -> None:
    assert tuple(EXAMPLES) == KINDS


def test_the_folder_holds_exactly_the_files_that_are_returned(tmp_path: Path) -> None:
    written = create("tinynet", "model", tmp_path / "new" / "place")
    project = tmp_path / "new" / "place" / "mitocore-tinynet"
    assert sorted(written) == sorted(path for path in project.rglob("*") if path.is_file())
    assert {path.relative_to(project).as_posix() for path in written} == {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        ".gitignore",
        "src/mitocore_tinynet/__init__.py",
        "src/mitocore_tinynet/py.typed",
        "src/mitocore_tinynet/plugin.py",
        "src/mitocore_tinynet/model.py",
        "tests/test_tinynet.py",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_declares_one_component_that_can_be_made(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(f"first-{kind}", kind, tmp_path)
    registry = installed(tmp_path / f"mitocore-first-{kind}", monkeypatch)
    assert registry.broken == {}
    (entry,) = registry.entries
    assert (entry.kind, entry.name, entry.plugin) == (kind, f"first_{kind}", f"first_{kind}")
    assert entry.summary
    assert bool(entry.suffixes) == (kind in ("reader", "writer"))
    component = entry.load()(**({"path": "volume"} if entry.suffixes else {}))
    assert component.kind == kind
    assert component.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_its_own_tests(kind: str, tmp_path: Path) -> None:
    create(f"second-{kind}", kind, tmp_path)
    done = in_project(tmp_path / f"mitocore-second-{kind}", "pytest", "-q", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_conforms" not in done.stdout


def test_new_code_is_formatted_and_without_findings_of_ruff(tmp_path: Path) -> None:
    for kind in KINDS:
        create(f"x{kind}", kind, tmp_path)
        create(f"quite-a-long-name-for-a-{kind}", kind, tmp_path)
    families = "ANN,B,C4,D1,E,F,I,N,PERF,PIE,PL,PT,PTH,RET,RUF,S,SIM,TRY,UP,W"
    interface = "D102,PLC0415,PLR0913,PLR2004,RUF009,TRY003,ANN401,E501"  # as of the core itself; long names
    for project in sorted(tmp_path.iterdir()):
        for arguments in (["."], ["--select", families, "--ignore", interface, "src"]):
            done = in_project(project, "ruff", "check", *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
        if project.name.startswith("mitocore-x"):  # where lines break depends on the length of the name
            done = in_project(project, "ruff", "format", "--check", ".")
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_new_code_is_typed_strictly(tmp_path: Path) -> None:
    for kind in KINDS:
        create(f"typed-{kind}", kind, tmp_path)
        done = in_project(tmp_path / f"mitocore-typed-{kind}", "mypy", "--cache-dir", str(tmp_path / "cache"), "src")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_template_is_left_open(kind: str, tmp_path: Path) -> None:
    for path in create("whole", kind, tmp_path):
        text = path.read_text("utf-8")
        assert "{{" not in text.replace("{{Whole", ""), path
        assert "}}" not in text, path
        assert text.endswith("\n") or path.name == "py.typed"


def test_every_template_belongs_to_a_kind_or_to_the_project() -> None:
    folders = {path.name for path in (ROOT / "mitocore" / "scaffold_templates").iterdir()}
    assert folders == {"project", *KINDS}


def test_the_project_asks_for_this_version_and_states_no_licence(tmp_path: Path) -> None:
    create("tinynet", "model", tmp_path)
    with (tmp_path / "mitocore-tinynet" / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert project["name"] == "mitocore-tinynet"
    assert project["dependencies"] == ["mitocore[torch]>=0.1,<0.2", "pydantic>=2.7,<3"]
    assert "license" not in project
    assert "no licence yet" in (tmp_path / "mitocore-tinynet" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["tiny-net", "tiny_net", "mitocore-tiny-net", "mitocore_tiny_net"])
def test_hyphens_and_underscores_are_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(name, "model", tmp_path)
    (entry,) = installed(tmp_path / "mitocore-tiny-net", monkeypatch).entries
    assert (entry.name, entry.target) == ("tiny_net", "mitocore_tiny_net.model:TinyNet")


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("TinyNet", "tinynet"),
        ("tiny net", "tiny-net"),
        ("2d-net", "d-net"),
        ("tiny--net", "tiny-net"),
        ("../net", "net"),
        ("net-", "net"),
        ("", "tinynet"),
        ("mitocore-", "tinynet"),
        ("größe", "gr-e"),
        ("net\n", "net"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused_with_one_that_can(name: str, better: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a name of a plugin") as refused:
        create(name, "model", tmp_path)
    assert refused.value.hint == f"such as {better}"
    assert len(str(refused.value).splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("model", "model"), ("none", "model"), ("true", "loss"), ("kind", "target"), ("roi", "reader")]
)
def test_a_name_whose_class_would_hide_a_word_of_the_example_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="makes the class") as refused:
        create(name, kind, tmp_path)
    assert refused.value.hint == f"such as my-{name}"
    create(f"my-{name}", kind, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("builtin", "model", "a plugin called 'builtin' is installed"),
        ("threshold", "postprocessor", "postprocessor 'threshold' is provided by the installed plugin 'builtin'"),
        ("h5", "writer", "the writer of '.h5' is provided by the installed plugin 'io'"),
    ],
)
def test_a_name_that_is_taken_is_refused(name: str, kind: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        create(name, kind, tmp_path)


def test_an_unknown_kind_is_refused_with_the_nearest_or_with_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'postprocesor' is not a kind") as near:
        create("tinynet", "postprocesor", tmp_path)
    assert near.value.hint == "--kind postprocessor"
    with pytest.raises(ConfigError, match="'banana' is not a kind") as far:
        create("tinynet", "banana", tmp_path)
    assert far.value.hint == f"kinds: {', '.join(KINDS)}"


def test_what_is_there_already_is_never_touched(tmp_path: Path) -> None:
    create("tinynet", "model", tmp_path)
    changed = tmp_path / "mitocore-tinynet" / "src" / "mitocore_tinynet" / "model.py"
    changed.write_text("mine", "utf-8")
    with pytest.raises(DataError, match="mitocore-tinynet' already exists") as refused:
        create("tinynet", "loss", tmp_path)
    assert len(str(refused.value).splitlines()) <= 3
    assert changed.read_text("utf-8") == "mine"


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        create("tinynet", "model", tmp_path / "file")


def test_a_disk_that_fills_up_leaves_no_half_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_arguments: str, **_options: str) -> int:
        if path.name != "plugin.py":
            return path.write_bytes(b"written before")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ResourceError, match="No space left"):
        create("tinynet", "model", tmp_path)
    assert list(tmp_path.iterdir()) == []
