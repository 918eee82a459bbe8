"""All checks without pytest: what `mitocore plugins --check` runs."""

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from mitocore.blockwise.executor import InProcess
from mitocore.component import Component
from mitocore.registry import Entry
from mitocore.testing import (
    augments,
    losses,
    metrics,
    models,
    normalizers,
    postprocessors,
    readers,
    samplers,
    targets,
    writers,
)
from mitocore.testing.checking import Check, CheckFailed, Finding, NotChecked
from mitocore.testing.elsewhere import HEAVY
from mitocore.testing.every_component import EVERY, OF_CLASS
from mitocore.testing.suite import ComponentTests

TESTS: dict[str, type[ComponentTests]] = {
    "reader": readers.ReaderTests,
    "writer": writers.WriterTests,
    "normalizer": normalizers.NormalizerTests,
    "model": models.ModelTests,
    "loss": losses.LossTests,
    "target": targets.TargetTests,
    "sampler": samplers.SamplerTests,
    "augment": augments.AugmentTests,
    "postprocessor": postprocessors.PostProcessorTests,
    "metric": metrics.MetricTests,
}
"""The class of tests of each kind of component."""

_BY_FILES = ("reader", "writer")


def run(component: Component | type[Component]) -> list[Finding]:
    """What every check of its kind finds in a component, or in a class with its default options.

    A class with required options is put to the checks of the class alone; the others, and those that need a file, are
    reported as not run.

    >>> from mitocore.builtin.targets import Foreground
    >>> findings = run(Foreground())
    >>> {finding.passed for finding in findings}, "check_halo" in [finding.check for finding in findings]
    ({True}, True)
    """
    return list(_findings(component))


def run_entry(entry: Entry) -> list[Finding]:
    """What the checks find in a declared component: first of all whether it loads, and is of the declared kind."""
    loaded = InProcess().submit(lambda _: entry.load(), None)
    if error := loaded.exception():
        cause = error.__cause__ or error
        return [Finding("import", passed=False, message=f"{entry.target}: {type(cause).__name__}: {cause}")]
    component = loaded.result()
    if not (inspect.isclass(component) and issubclass(component, Component) and component.kind == entry.kind):
        message = f"{entry.target} is no {entry.kind}\n  change: inherit from mitocore.{entry.kind.capitalize()}"
        return [Finding("import", passed=False, message=message)]
    return [Finding("import", passed=True), *run(component)]


def _findings(component: Component | type[Component]) -> Iterator[Finding]:
    kind = component if inspect.isclass(component) else type(component)
    tests = TESTS[kind.kind]
    made, reason = _made(component)
    if made is None:
        for check in OF_CLASS:
            yield _finding(check, lambda check=check: check(kind))
        for check in (*(c for c in EVERY if c not in OF_CLASS), *tests.checks):
            yield Finding(check.__name__, None, reason)
        return
    for check in EVERY:
        yield _finding(check, lambda check=check: check(made))
    own = [check for check in tests.checks if check not in EVERY]
    if kind.kind in _BY_FILES:
        needs = "make_file" if kind.kind == "reader" else "read_file"
        for check in own:
            yield Finding(check.__name__, None, f"needs {needs} of a {tests.__name__}")
        return
    with tempfile.TemporaryDirectory(prefix="mitocore-") as folder:
        for check in own:
            yield _finding(check, lambda check=check: tests().apply(check, made, Path(folder)))


def _made(component: Component | type[Component]) -> tuple[Component | None, str]:
    """The component; None, and why, if a class needs options."""
    if not inspect.isclass(component):
        return component, ""
    try:
        return component(), ""
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors())
        return None, f"needs {missing or 'options'}: write tests with a component"


def _finding(check: Check, call: Check) -> Finding:
    # A component may raise anything: its future holds whatever that is.
    error = InProcess().submit(lambda _: call(), None).exception()
    if error is None:
        return Finding(check.__name__, passed=True)
    if isinstance(error, NotChecked):
        return Finding(check.__name__, passed=None, message=f"needs tests: {error}")
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in HEAVY:
        return Finding(check.__name__, passed=None, message=f"needs {error.name}: pip install 'mitocore[torch]'")
    if isinstance(error, CheckFailed):
        return Finding(check.__name__, passed=False, message=str(error))
    return Finding(check.__name__, passed=False, message=f"it raises {type(error).__name__}: {error}")
