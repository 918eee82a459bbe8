"""The classes that all test classes of the kit inherit from: one test per check and component."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mitocore.testing.checking import Check, CheckFailed, NotChecked
from mitocore.testing.every_component import EVERY


class ConformanceTests:
    """One test per check of each subject, and the checks that must fail."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Reason by name of each check that cannot be passed. Such a check *must* fail."""
    checks: ClassVar[tuple[Check, ...]] = ()
    """The checks of this kind, beside those of every component."""

    def cases(self) -> Iterator[tuple[str, Check, Any]]:
        """Label, check and what is checked, of each test."""
        for check in self.checks:
            yield check.__name__, check, None

    def conform(self, check: Check, subject: Any, folder: Path) -> None:
        """Put a subject to one of the checks."""
        del folder
        check(subject)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test per case; pytest calls this while it collects."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize(("check", "subject"), list(self._parameters()))

    def _parameters(self) -> Iterator[Any]:
        import pytest

        cases, owner = list(self.cases()), type(self).__name__
        names = dict.fromkeys(check.__name__ for _, check, _ in cases)
        if strange := set(self.expected_failures) - set(names):
            known = ", ".join(names)
            pytest.fail(f"{owner}.expected_failures names {sorted(strange)}; there are {known}", pytrace=False)
        for label, check, subject in cases:
            reason = self.expected_failures.get(check.__name__)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason is not None else []
            yield pytest.param(check, subject, id=label, marks=marks)

    def test_conforms(self, check: Check, subject: Any, tmp_path: Path) -> None:
        """A promise is kept."""
        __tracebackhide__ = True
        try:
            self.conform(check, subject, tmp_path)
        except CheckFailed as failed:
            raise CheckFailed(f"{check.__name__}: {failed.seen}", failed.change) from failed.__cause__
        except NotChecked as reason:
            import pytest

            pytest.skip(f"{check.__name__}: {reason}")


class ComponentTests(ConformanceTests):
    """What every component promises, whatever its kind: one test per check.

    Inherit in a test module from the class of the kind, such as `ModelTests`, and set `component`:

    >>> from mitocore.builtin.postprocess import Threshold
    >>> class TestThreshold(ComponentTests):
    ...     component = Threshold(threshold=0.4)
    """

    component: ClassVar[Any] = None
    """The component that is checked, with small options, so that its tests are quick."""

    def components(self) -> Sequence[Any]:
        """The components to check; override to check several option sets."""
        return () if self.component is None else (self.component,)

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Run one of `checks`. Kinds whose checks need more than the component override this."""
        del folder
        check(component)

    def cases(self) -> Iterator[tuple[str, Check, Any]]:
        """Every check of each component."""
        import pytest

        components = self.components()
        if not components:
            owner = type(self).__name__
            pytest.fail(f"{owner} says no component: write `component = X(...)` in its body", pytrace=False)
        for number, component in enumerate(components):
            for check in (*EVERY, *self.checks):
                name = check.__name__
                yield name if len(components) == 1 else f"{name}-{type(component).__name__}{number}", check, component

    def conform(self, check: Check, subject: Any, folder: Path) -> None:
        """Kinds are asked how to put a component to their own checks."""
        __tracebackhide__ = True
        if check in EVERY:
            check(subject)
        else:
            self.apply(check, subject, folder)
