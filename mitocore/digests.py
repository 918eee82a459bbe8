"""Fingerprints of results: all that can move a voxel of a step, down to the identity of the input."""

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import mitocore
from mitocore import weights
from mitocore.component import Component, File
from mitocore.geometry import Shape
from mitocore.interfaces import Model, ObjectwisePostProcessor, Stats, StitchedPostProcessor
from mitocore.pipeline import Plan, PlannedStep
from mitocore.specs import VolumeSpec


def short(content: Any) -> str:
    """A digest of anything that JSON can say.

    >>> short(["a", 1]) == short(("a", 1)), len(short("a"))
    (True, 16)
    """
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def code_of(component: Component) -> str:
    """What stands for the code of a component: a hash of the source of its package; of the core, of its module."""
    name = type(component).__module__
    package = name.partition(".")[0]
    module = importlib.import_module(name if package == "mitocore" else package)
    if hasattr(module, "__path__"):
        return _source(tuple(module.__path__))
    if file := getattr(module, "__file__", None):
        return _source((file,))
    try:
        return short(inspect.getsource(type(component)))  # of a notebook
    except OSError:  # typed at a prompt: only what it was compiled to is there
        code = [(name, f.__code__) for name, f in sorted(vars(type(component)).items()) if inspect.isfunction(f)]
        return short([(name, c.co_code.hex(), repr(c.co_consts), c.co_names) for name, c in code])


def files_of(component: Component) -> dict[str, str]:
    """What stands for the files that options of a component name: their content, wherever they lie."""
    named = {name: getattr(component, name) for name in sorted(component.marked(File))}
    return {name: _content(Path(path)) for name, path in named.items() if path}


def _content(path: Path) -> str:
    if path.is_file():
        return weights.sha256(path)
    inside = sorted(path.rglob("*")) if path.is_dir() else []  # may be many and large: their sizes and times will do
    found = [(p.relative_to(path).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in inside if p.is_file()]
    return short(found)


@cache
def _source(places: tuple[str, ...]) -> str:
    folders = [Path(place) for place in places]
    files = sorted(file for folder in folders for file in ([folder] if folder.is_file() else folder.rglob("*.py")))
    return short([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])


def networks(plan: Plan) -> dict[str, dict[str, Any]]:
    """What can move a voxel of a model step beside its options, in words a person can compare.

    Raises
    ------
    ResourceError
        If the device asked for is not there.
    """
    found = {}
    for step in plan.steps:
        if step.config and step.config.weights and step.config.header and step.window and step.normalizer:
            from mitocore.learn.device import chosen
            from mitocore.learn.predict import precision_of

            found[step.name] = {
                "weights": weights.sha256(step.config.weights),
                "window": step.window.shape,
                "overlap": step.window.overlap,
                "precision": precision_of(step.config.predict.precision, chosen(plan.config.run.devices)),
                "temperature": step.config.header.temperature,
                "tta": step.config.predict.tta,
                "reduce": step.config.predict.reduce,
                "blending": step.config.predict.blending,
                "ensemble": [[weights.sha256(m.weights), code_of(m.component)] for m in step.config.ensemble],
                "normalizer": f"{type(step.normalizer).__name__} {step.normalizer.model_dump(mode='json')}",
            }
    return found


def of_results(
    plan: Plan, identity: str, spec: VolumeSpec, nets: Mapping[str, Any], stats: Mapping[str, Stats]
) -> dict[str, str]:
    """The result digest of every step, and of the input."""
    digests = {"input": identity}
    for step in plan.steps:
        parts: list[Any] = [mitocore.__version__, step.component.digest(), files_of(step.component)]
        parts += _wired(step, digests)
        parts.append([given.stored for given in step.gives.values()])
        parts.append([repr(step.region), repr(step.bounds)])
        if isinstance(step.component, Model) and step.normalizer:
            parts += [nets.get(step.name), repr(step.window), dict(stats.get(step.name, {})), code_of(step.normalizer)]
            parts.append(files_of(step.normalizer))
        else:
            parts.append(spec.voxel_size.edges if spec.voxel_size else None)
        digests[step.name] = short(parts)
    return digests


def of_provisional_ids(step: PlannedStep, digests: Mapping[str, str], block: Shape) -> str:
    """Digest of what provisional ids depend on: all but the options that only later passes read."""
    component = step.component
    late = component.read_late() if isinstance(component, StitchedPostProcessor | ObjectwisePostProcessor) else ()
    options = component.model_dump(mode="json", exclude={*late, *component.marked(File)})
    place = [repr(step.region), block, files_of(component)]
    return short([mitocore.__version__, type(component).__qualname__, options, *_wired(step, digests), place])


def _wired(step: PlannedStep, digests: Mapping[str, str]) -> tuple[Any, ...]:
    """The code of a step, and what it is wired to."""
    wired = [(need, digests[wire.source.partition(".")[0]], str(wire)) for need, wire in step.wires.items()]
    return code_of(step.component), wired


def options(plan: Plan, nets: Mapping[str, Any]) -> dict[str, Any]:
    """What a person would compare between two runs, by step."""
    found: dict[str, Any] = {}
    for step in plan.steps:
        stated = step.config.component if step.config and step.config.component else step.component
        said = {"component": step.qualified, **stated.model_dump(mode="json"), **nets.get(step.name, {})}
        said["inputs"] = {need: str(wire) for need, wire in step.wires.items()}
        said["region"] = "all" if plan.whole or step.region is None else [step.region.start, step.region.stop]
        said["stored as"] = {array: spec.stored for array, spec in step.gives.items()}
        found[step.name] = json.loads(json.dumps(said))
    return found
