"""Every distribution of the checkout, built once, and what its archives hold."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Distribution:
    """One project of the repository."""

    folder: Path

    @property
    def project(self) -> Mapping[str, Any]:
        """The [project] table."""
        with (self.folder / "pyproject.toml").open("rb") as file:
            return tomllib.load(file)["project"]

    @property
    def name(self) -> str:
        return self.project["name"]

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")


DISTRIBUTIONS = [
    Distribution(ROOT),
    *(Distribution(path.parent) for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))),
]


@dataclass(frozen=True)
class Built:
    """A wheel and an sdist."""

    distribution: Distribution
    wheel: Path
    sdist: Path

    def files(self) -> list[str]:
        """Names in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()


@pytest.fixture(scope="session")
def distributions() -> list[Distribution]:
    return DISTRIBUTIONS


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """By name of the distribution; built from copies, so that nothing is left in the checkout."""
    work = tmp_path_factory.mktemp("build")
    found = {}
    for distribution in DISTRIBUTIONS:
        copy, target = work / distribution.package, work / f"{distribution.package}-dist"
        leave = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "dist", "build", "site", "runs")
        shutil.copytree(distribution.folder, copy, ignore=leave)
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(copy)]
        done = subprocess.run(build, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
        found[distribution.name] = Built(distribution, wheel, sdist)
    return found
