"""All checks without pytest: what `mitocore plugins --check` runs."""

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from mitocore.component import Component
from mitocore.errors import ConfigError, DataError
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
_FOR_THE_AUTHOR: dict[Check, str] = {
    models.check_locality: "expected_failures, if overlap is enough",
    metrics.check_perfect: "optimum, if neither 0 nor 1 is best",
    losses.check_perfect: "pair(), if it compares other heads and targets",
    normalizers.check_dtype: "expected_failures, if the range of the dtype is meant",
}
"""Checks that a right component may fail, and what its author then says in the tests: they judge, not the command."""


def run(component: Component | type[Component]) -> list[Finding]:
    """What every check of its kind finds in a component, or in a class with its default options.

    A class with required options is put to the checks of the class alone. The others, those that need a file, and those
    whose failure may be meant, are reported as not run: the tests of the plugin say what is needed or meant.

    >>> from mitocore.builtin.targets.foreground import Foreground
    >>> findings = run(Foreground())
    >>> {finding.passed for finding in findings}, "check_halo" in [finding.check for finding in findings]
    ({True}, True)
    """
    return list(_findings(component))


def run_entry(entry: Entry) -> list[Finding]:
    """What the checks find in a declared component: first of all whether it loads, and is of the declared kind."""
    try:
        component = entry.load()
    except Exception as error:  # noqa: BLE001 - importing a plugin may raise anything: that is what is reported
        cause = error.__cause__ or error
        return [Finding("import", passed=False, message=f"{entry.target}: {type(cause).__name__}: {cause}")]
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
    return Finding(check.__name__, *_outcome(check, call))


def _outcome(check: Check, call: Check) -> tuple[bool | None, str]:
    try:
        call()
    except NotChecked as reason:
        return None, f"needs tests: {reason}"
    except CheckFailed as failed:
        if check in _FOR_THE_AUTHOR:
            return None, f"needs tests: {_FOR_THE_AUTHOR[check]}; seen: {failed.seen}"
        return False, str(failed)
    except (ConfigError, DataError) as refusal:
        return None, f"needs tests: the inputs of this check are refused: {refusal.problem}"
    except Exception as error:  # noqa: BLE001 - a component may raise anything: that is what is reported
        if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in HEAVY:
            return None, f"needs {error.name}: pip install 'mitocore[torch]'"
        return False, f"it raises {type(error).__name__}: {error}"
    return True, ""
