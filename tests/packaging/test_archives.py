"""What wheels and source archives hold, and what their projects declare."""

import re
import tarfile
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import mitocore

ROOT = Path(__file__).parents[2]
NOT_WANTED = {"torchvision", "timm", "segmentation-models-pytorch"}
GPL = {"empanada-dl", "empanada-napari", "plantseg", "elf", "python-elf", "pyqt5", "pyqt6", "igraph", "python-igraph"}


def required(distribution: Any, *, shipped: bool = False) -> set[str]:
    """Names of all declared dependencies, those of extras too; `shipped`: without extras for developers."""
    project = distribution.project
    extras = project.get("optional-dependencies", {})
    kept = [extra for extra in extras if not (shipped and extra in ("test", "dev"))]
    stated = [*project["dependencies"], *(requirement for extra in kept for requirement in extras[extra])]
    return {re.split(r"[\s\[<>=!~;]", requirement)[0].lower() for requirement in stated}


def test_all_distributions_have_the_same_major_and_minor_version(distributions: list[Any]) -> None:
    versions = {d.name: ".".join(d.project["version"].split(".")[:2]) for d in distributions}
    assert set(versions.values()) == {".".join(mitocore.__version__.split(".")[:2])}


def test_the_version_of_the_core_is_that_of_its_project_and_citation(distributions: list[Any]) -> None:
    assert distributions[0].project["version"] == mitocore.__version__
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {mitocore.__version__}\n" in citation


def test_no_distribution_declares_a_library_that_is_not_wanted(distributions: list[Any]) -> None:
    found = {d.name: required(d) & (NOT_WANTED | GPL) for d in distributions}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_declared_library_is_imported_by_the_package(distributions: list[Any]) -> None:
    # Lightning's logger imports the first, MONAI's SwinUNETR the second, fsspec the others for addresses they are of
    indirect = {"tensorboard", "einops", "aiohttp", "s3fs", "gcsfs"}
    names = {name: {d.lower() for d in found} for name, found in packages_distributions().items()}
    unused = {}
    for distribution in distributions:
        package = next(
            p for p in (distribution.folder / distribution.package, distribution.folder / "src") if p.is_dir()
        )
        text = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py"))
        imported = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE))
        provided = {library for word in imported for library in names.get(word, ())} | indirect
        ours = {d.name for d in distributions}
        unused[distribution.name] = required(distribution, shipped=True) - provided - ours
    assert {name: libraries for name, libraries in unused.items() if libraries} == {}


def test_plugins_accept_exactly_the_minor_version_of_the_core(distributions: list[Any]) -> None:
    major, minor, *_ = mitocore.__version__.split(".")
    span = f">={major}.{minor},<{major}.{int(minor) + 1}"
    for distribution in distributions[1:]:
        ours = [r for r in distribution.project["dependencies"] if r.startswith("mitocore")]
        assert ours, f"{distribution.name} does not depend on mitocore"
        assert all(requirement.endswith(span) for requirement in ours), ours


def test_the_torch_build_is_pinned_in_the_constraints_alone(distributions: list[Any]) -> None:
    assert "torch==" in (ROOT / "constraints.txt").read_text("utf-8")
    pinned = [d.name for d in distributions if "torch==" in (d.folder / "pyproject.toml").read_text("utf-8")]
    assert pinned == []


def test_the_developers_environment_installs_every_distribution(distributions: list[Any]) -> None:
    lines = (ROOT / "requirements-dev.txt").read_text("utf-8").splitlines()
    folders = {line.removeprefix("-e ").partition("[")[0].removeprefix("./") for line in lines if line.startswith("-e")}
    assert folders == {"." if d.folder == ROOT else d.folder.relative_to(ROOT).as_posix() for d in distributions}


def test_tools_look_at_every_distribution(distributions: list[Any]) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        tool = tomllib.load(file)["tool"]
    for distribution in distributions[1:]:
        source = f"{distribution.folder.relative_to(ROOT).as_posix()}/src"
        assert source in tool["mypy"]["files"]
        assert source in tool["ruff"]["src"]
        assert source in tool["pytest"]["ini_options"]["testpaths"]
        assert distribution.package in tool["coverage"]["run"]["source"]
        assert distribution.package in tool["importlinter"]["root_packages"]


@pytest.mark.parametrize("name", ["py.typed", "__init__.py"])
def test_every_wheel_is_typed_and_holds_its_package_only(name: str, built: dict[str, Any]) -> None:
    for made in built.values():
        package = made.distribution.package
        assert f"{package}/{name}" in made.files()
        tops = {file.partition("/")[0] for file in made.files()}
        assert {top for top in tops if not top.endswith(".dist-info")} == {package}


def test_every_file_of_a_package_is_in_its_wheel(built: dict[str, Any]) -> None:
    for made in built.values():
        folder = made.distribution.folder
        package = next(
            p for p in (folder / made.distribution.package, folder / "src" / made.distribution.package) if p.is_dir()
        )
        ours = {
            p.relative_to(package.parent).as_posix()
            for p in package.rglob("*")
            if p.is_file() and "__pycache__" not in p.parts  # bytecode, and what numba has compiled
        }
        assert ours - set(made.files()) == set()


def test_every_wheel_brings_its_licence(built: dict[str, Any]) -> None:
    for made in built.values():
        assert any(file.endswith("LICENSE") for file in made.files()), made.wheel.name


def test_the_demo_brings_its_weights_in_less_than_three_megabytes(built: dict[str, Any]) -> None:
    files = built["mitocore-rsunet"].files()
    assert [file for file in files if file.endswith(".safetensors")]
    assert built["mitocore-rsunet"].wheel.stat().st_size < 3_000_000


def test_the_source_archive_of_the_core_leaves_the_plugins_out(built: dict[str, Any]) -> None:
    with tarfile.open(built["mitocore"].sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "mitocore/__init__.py" in names
    assert [name for name in names if name.startswith(("plugins", ".venv", "runs", "docs"))] == []
