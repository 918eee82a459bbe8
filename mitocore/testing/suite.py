"""The class that all test classes of the kit inherit from: one test per check and component."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mitocore.testing.checking import Check, CheckFailed, NotChecked
from mitocore.testing.every_component import EVERY


class ComponentTests:
    """What every component promises, whatever its kind: one test per check.

    Inherit in a test module from the class of the kind, such as `ModelTests`, and set `component`:

    >>> from mitocore.builtin.postprocess import Threshold
    >>> class TestThreshold(ComponentTests):
    ...     component = Threshold(threshold=0.4)
    """

    component: ClassVar[Any] = None
    """The component that is checked, with small options, so that its tests are quick."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Reason by name of each check that this component cannot pass. Such a check *must* fail."""
    checks: ClassVar[tuple[Check, ...]] = ()
    """The checks of this kind, beside those of every component."""

    def components(self) -> Sequence[Any]:
        """The components to check; override to check several option sets."""
        return () if self.component is None else (self.component,)

    def apply(self, check: Check, component: Any, folder: Path) -> None:
        """Run one of `checks`. Kinds whose checks need more than the component override this."""
        del folder
        check(component)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test per check and component; pytest calls this while it collects."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize(("check", "component"), list(self._cases()))

    def _cases(self) -> Iterator[Any]:
        import pytest

        known = [*EVERY, *self.checks]
        components, owner = self.components(), type(self).__name__
        if not components:
            pytest.fail(f"{owner} says no component: write `component = X(...)` in its body", pytrace=False)
        if strange := set(self.expected_failures) - {check.__name__ for check in known}:
            names = ", ".join(check.__name__ for check in known)
            pytest.fail(f"{owner}.expected_failures names {sorted(strange)}; there are {names}", pytrace=False)
        for number, component in enumerate(components):
            for check in known:
                name = check.__name__
                reason = self.expected_failures.get(name)
                marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason is not None else []
                label = name if len(components) == 1 else f"{name}-{type(component).__name__}{number}"
                yield pytest.param(check, component, id=label, marks=marks)

    def test_conforms(self, check: Check, component: Any, tmp_path: Path) -> None:
        """The component keeps a promise of its kind."""
        __tracebackhide__ = True
        try:
            if check in EVERY:
                check(component)
            else:
                self.apply(check, component, tmp_path)
        except CheckFailed as failed:
            raise CheckFailed(f"{check.__name__}: {failed.seen}", failed.change) from failed.__cause__
        except NotChecked as reason:
            import pytest

            pytest.skip(f"{check.__name__}: {reason}")
