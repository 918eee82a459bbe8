"""A new plugin: a whole distribution with one working component and its tests, ready to be changed."""

import difflib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from keyword import iskeyword
from pathlib import Path

import mitocore
from mitocore.component import KINDS
from mitocore.durable import reported
from mitocore.errors import ConfigError, DataError, MitocoreError
from mitocore.registry import discover

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Example:
    """What the project says of the component that it begins with; its code is a template."""

    summary: str
    extra: str = ""
    """The extra of mitocore that the component needs."""
    requires: tuple[str, ...] = ("numpy",)
    """What it imports beside mitocore."""
    suffixes: bool = False
    """Whether it is chosen by the suffix of a path."""


EXAMPLES = {
    "reader": Example("a line of JSON, then the voxels", suffixes=True),
    "writer": Example("a line of JSON, then the voxels", suffixes=True),
    "normalizer": Example("smallest and largest intensity to -1 and 1, padding left out"),
    "model": Example("two convolutions; a baseline to beat", extra="torch", requires=("pydantic",)),
    "loss": Example("focal loss", extra="torch", requires=("pydantic",)),
    "target": Example("1 where objects touch something else"),
    "sampler": Example("crops of a regular grid, each as often as any other"),
    "augment": Example("noise on the image", requires=("numpy", "pydantic")),
    "postprocessor": Example("probability to mask, single voxels left out", requires=("numpy", "pydantic")),
    "metric": Example("share of the true objects that were found", requires=("numpy", "pydantic")),
}
_REQUIREMENTS = {"numpy": "numpy>=1.26", "pydantic": "pydantic>=2.7,<3"}


def create(name: str, kind: str, folder: Path) -> list[Path]:
    """Write a plugin into a new folder ``mitocore-NAME`` of `folder`.

    Parameters
    ----------
    name
        Lower-case words joined by hyphens or underscores, with or without ``mitocore-`` before them: the name of the
        plugin and of its component, `_` between the words.
    kind
        Kind of the component that it begins with; more are added to its ``plugin.py``.
    folder
        Where the folder is made; made itself if it is not there.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    ConfigError
        If the kind is not one of the ten, or the name is malformed or taken by an installed plugin or component.
    DataError
        If the new folder exists already, or cannot be written.
    ResourceError
        If the disk is full.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"--kind {near[0]}" if near else f"kinds: {', '.join(KINDS)}"
        raise ConfigError(f"{kind!r} is not a kind of component", hint=hint)
    words = _words(name)
    _check_free("_".join(words), kind)
    values = _values(words, kind)
    _check_class(values["class"], kind, "-".join(words))
    project = folder / values["distribution"]
    if project.exists() or project.is_symlink():
        raise DataError(f"'{project}' already exists", hint="delete it, or choose another name or folder (-o)")
    try:
        return [_written(project / place, template, values) for template, place in _files(values)]
    except MitocoreError:
        shutil.rmtree(project, ignore_errors=True)  # else a second attempt would find half a plugin
        raise


def _written(path: Path, template: Traversable, values: Mapping[str, str]) -> Path:
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template.read_text("utf-8"))
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")
    return path


def _words(name: str) -> list[str]:
    """The words of a name.

    >>> _words("mitocore-tiny_net")
    ['tiny', 'net']
    """
    bare = name.removeprefix("mitocore-").removeprefix("mitocore_")
    if not NAME.fullmatch(bare):
        better = re.sub(r"[^a-z0-9]+", "-", bare.lower()).strip("-").lstrip("-0123456789")
        problem = f"{name!r} is not a name of a plugin: lower-case letters and digits in words joined by hyphens"
        raise ConfigError(problem, hint=f"such as {better or 'tinynet'}")
    return re.split("[-_]", bare)


def _values(words: list[str], kind: str) -> dict[str, str]:
    """What the templates leave open."""
    name, example = "_".join(words), EXAMPLES[kind]
    major, minor, *_ = mitocore.__version__.split(".")
    span = f">={major}.{minor},<{major}.{int(minor) + 1}"
    extra = f"[{example.extra}]" if example.extra else ""
    requires = [f"mitocore{extra}{span}", *(_REQUIREMENTS[library] for library in example.requires)]
    return {
        "name": name,
        "kind": kind,
        "distribution": f"mitocore-{'-'.join(words)}",
        "package": f"mitocore_{name}",
        "class": "".join(word.capitalize() for word in words),
        "span": span,
        "requires": ", ".join(f'"{requirement}"' for requirement in requires),
        "summary": example.summary,
        "suffixes": f'\n        suffixes=(".{name}",),' if example.suffixes else "",
        "usage": _templates().joinpath(kind, "usage.md.txt").read_text("utf-8").strip().replace("{{name}}", name),
    }


def _check_free(name: str, kind: str) -> None:
    """Refuse a name under which something else is found: nobody could use the new component by its bare name."""
    registry = discover()
    hint = "choose another name; see `mitocore plugins`"
    if name in registry.versions or name in registry.broken:
        raise ConfigError(f"a plugin called {name!r} is installed", hint=hint)
    for entry in registry.entries:
        if entry.kind == kind and (entry.name == name or f".{name}" in entry.suffixes):
            what = f"{kind} {name!r}" if entry.name == name else f"the {kind} of '.{name}'"
            raise ConfigError(f"{what} is provided by the installed plugin {entry.plugin!r}", hint=hint)


def _check_class(name: str, kind: str, bare: str) -> None:
    """Refuse a class that would hide what the example uses, such as ``Model``, or cannot be, such as ``None``."""
    texts = [_templates().joinpath(kind, part).read_text("utf-8") for part in ("component.py.txt", "test.py.txt")]
    if iskeyword(name) or any(re.search(rf"\b{name}\b", text) for text in texts):
        raise ConfigError(f"{bare!r} makes the class {name!r}, a word of the example", hint=f"such as my-{bare}")


def _files(values: Mapping[str, str]) -> Iterator[tuple[Traversable, str]]:
    """Templates, and where in the project their files lie."""
    kind, source = values["kind"], f"src/{values['package']}"
    for template, place in {
        "project/pyproject.toml.txt": "pyproject.toml",
        "project/README.md.txt": "README.md",
        "project/CHANGELOG.md.txt": "CHANGELOG.md",
        "project/gitignore.txt": ".gitignore",
        "project/init.py.txt": f"{source}/__init__.py",
        "project/typed.txt": f"{source}/py.typed",
        "project/plugin.py.txt": f"{source}/plugin.py",
        f"{kind}/component.py.txt": f"{source}/{kind}.py",
        f"{kind}/test.py.txt": f"tests/test_{values['name']}.py",
    }.items():
        yield _templates().joinpath(*template.split("/")), place


def _templates() -> Traversable:
    return files("mitocore") / "scaffold_templates"
