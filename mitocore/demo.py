"""Demos that plugins bring along: a pipeline on a synthetic volume, scored and reported."""

import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mitocore import runs
from mitocore.errors import PluginError
from mitocore.interfaces import Reader, Volume
from mitocore.measure import InstanceTable, instance_table
from mitocore.registry import Entry
from mitocore.report import check_installed, write_report
from mitocore.specs import Kind
from mitocore.volumes import installed

METRICS = ("voxel", "instance")


@dataclass(frozen=True)
class DemoResult:
    """What a demo gave."""

    scores: Mapping[str, Mapping[str, float]]
    """By metric; empty if the input has no truth."""
    table: InstanceTable
    report: Path
    """The page to open in a browser."""
    seconds: float
    """Wall time of this call."""


def find_demo(name: str) -> Entry:
    """The demo of a bare or qualified name.

    Raises
    ------
    PluginError
        If no installed plugin has it.
    """
    return installed().find("demo", name)


def run_demo(
    demo: Entry,
    folder: Path,
    *,
    fresh: bool = False,
    progress: runs.Progress = lambda _label, _done, _total: None,
    cancel: Callable[[], bool] = lambda: False,
) -> DemoResult:
    """Run the pipeline of a demo, score it against the truth of its input, and write a report.

    `folder` receives the run folder, the output and `report/`. What an earlier call left there is gone on with, unless
    `fresh`. Where the reader of the input has an option `array`, its value "instances" is the truth.

    Raises
    ------
    MitocoreError
        If the run is refused, or the extra ``mitocore[report]`` is not installed.
    """
    check_installed()
    begin = time.monotonic()
    here = folder.absolute()
    places = {"run.folder": here / "run", "output.path": here / "segmentation.zarr"}
    planned = runs.load(_home(demo) / "pipeline.toml", [f"{key}={json.dumps(str(p))}" for key, p in places.items()])
    result = planned.run(policy="fresh" if fresh else "resume", progress=progress, cancel=cancel)
    kinds = {volume.spec.kind: volume for volume in result.values()}
    instances, probability = kinds[Kind.INSTANCE], kinds.get(Kind.PROBABILITY)
    reader = planned.plan.config.reader
    if reader is None:
        raise PluginError(f"demo {demo.name!r} of plugin {demo.plugin!r} has no input", where=demo.target)
    truth = _truth(reader)
    scores = runs.evaluate(instances, truth, METRICS, progress=progress) if truth else {}
    table = instance_table(instances, progress=progress)
    with reader.open() as image:
        report = write_report(
            folder / "report", image, instances, truth=truth, probability=probability, scores=scores, table=table,
            record=result.record, title=f"{demo.name}: {demo.summary}", progress=progress,
        )  # fmt: skip
    return DemoResult(scores, table, report, time.monotonic() - begin)


def _home(demo: Entry) -> Path:
    """The folder of a demo, "package:folder", without importing the package."""
    package, _, folder = demo.target.partition(":")
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / folder / "pipeline.toml").is_file():
            return Path(place) / folder
    problem = f"demo {demo.name!r} of plugin {demo.plugin!r} has no pipeline.toml"
    raise PluginError(problem, where=demo.target, hint=f"pip install --force-reinstall the plugin {demo.plugin!r}")


def _truth(reader: Reader) -> Volume | None:
    if "array" not in type(reader).model_fields:
        return None
    return type(reader).model_validate({**reader.model_dump(), "array": "instances"}).open()
