"""What a pipeline promises: it can be checked without data, runs on synthetic tissue, and resumes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from mitocore import runs
from mitocore.config import toml
from mitocore.geometry import Shape, VoxelSize
from mitocore.testing.checking import Check, require, require_equal
from mitocore.testing.suite import ConformanceTests

_ARRAYS = {"mask": "boundary", "semantic": "semantic", "instance": "instances"}
"""Of the synthetic tissue, by the kind of input that a pipeline asks for; all else is given the image."""


class SmallRun:
    """A pipeline on the synthetic tissue of `cells`, in a folder of its own.

    Input, output path and run folder of the file are replaced; its steps, and the options of its writer, are as they
    stand.
    """

    def __init__(
        self, pipeline: Path, folder: Path, shape: Shape = (16, 64, 64), voxel_size: VoxelSize | None = None
    ) -> None:
        self.pipeline, self.folder, self.shape = pipeline, folder, shape
        self.voxel_size = voxel_size or VoxelSize(16.0, 16.0, 16.0)

    def planned(self, name: str, **run: Any) -> runs.PlannedRun:
        """The checked pipeline, to run in the folder `name`."""
        document = toml.read(self.pipeline)
        place = (self.folder / name).absolute()
        sample: dict[str, Any] = {"reader": "builtin/sample", "shape": self.shape, "seed": 3}
        sample["voxel_size"] = self.voxel_size.edges
        if kind := document.data.get("input", {}).get("kind"):
            sample |= {"kind": kind, "array": _ARRAYS.get(kind, "image")}
        tables: dict[str, Any] = {**document.data, "input": sample}
        tables["run"] = {"block": (8, 32, 32), **document.data.get("run", {}), **run, "folder": str(place / "run")}
        if output := document.data.get("output"):
            tables["output"] = {**output, "path": str(place / Path(output["path"]).name)}
        return runs.planned(replace(document, data=tables))

    def arrays(self, name: str, **run: Any) -> dict[str, NDArray[Any]]:
        """The saved arrays of a run in the folder `name`, resumed if it was begun there."""
        with self.planned(name, **run).run(policy="resume") as result:
            return result.arrays()


def check_plan(small: SmallRun) -> None:
    """The file is accepted without looking at data or weights."""
    runs.load(small.pipeline, data=False)


def check_runs(small: SmallRun) -> None:
    """It runs on synthetic tissue and saves arrays of the shape of its input."""
    found = small.arrays("once", workers=0)
    require(found, "the run saves no array", "name steps in the pipeline, or arrays in [output] save")
    for name, array in found.items():
        seen = f"{name!r} has the shape {array.shape} for an input {small.shape}"
        require(array.shape[-3:] == small.shape, seen, "save arrays of steps, not of another volume")


def check_workers(small: SmallRun) -> None:
    """The calling thread, one worker and four give the same."""
    expected = small.arrays("workers0", workers=0)
    for workers in (1, 4):
        _require_same(small.arrays(f"workers{workers}", workers=workers), expected, f"with {workers} workers")


def check_resumes(small: SmallRun) -> None:
    """Interrupted at any of its first commits and resumed, a run gives what an uninterrupted one gives."""
    expected = small.arrays("calm", workers=0)
    for number in range(1, 8, 2):
        name = f"stopped{number}"
        try:
            small.planned(name, workers=0).run(cancel=_after(number)).close()
        except KeyboardInterrupt:
            _require_same(small.arrays(name, workers=0), expected, f"interrupted at {number} and resumed")


def _after(number: int) -> Callable[[], bool]:
    """True once it was asked more than `number` times."""
    left = iter(range(number))
    return lambda: next(left, None) is None


def _require_same(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], what: str) -> None:
    for name, array in expected.items():
        change = "put each of the steps to the tests of its kind, to see which of them it is"
        require_equal(found[name], array, f"{name!r} {what}", change)


CHECKS: tuple[Check, ...] = (check_plan, check_runs, check_workers, check_resumes)


class PipelineTests(ConformanceTests):
    """Tests of a pipeline. Set `pipeline`, and what tissue it is for; the weights that it names must be there.

    ```python
    class TestMitochondria(PipelineTests):
        pipeline = "examples/mitochondria.toml"
    ```
    """

    pipeline: ClassVar[str | Path] = ""
    """The TOML file; relative paths start in the current folder."""
    shape: ClassVar[Shape] = (16, 64, 64)
    """Voxels (z, y, x) of the synthetic tissue."""
    voxel_size: ClassVar[VoxelSize] = VoxelSize(16.0, 16.0, 16.0)
    """Of the synthetic tissue: about that of the weights."""
    checks: ClassVar[tuple[Check, ...]] = CHECKS

    def conform(self, check: Check, subject: Any, folder: Path) -> None:
        """Run it in a folder of its own."""
        del subject
        check(SmallRun(Path(self.pipeline), folder, self.shape, self.voxel_size))
