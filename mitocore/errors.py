"""Errors a user can understand and fix, one family per exit code."""

from collections.abc import Sequence
from typing import ClassVar


class MitocoreError(Exception):
    """An error the user can understand and fix: one sentence that names the offending value (no full stop), where it is
    (file and key, or step and array), and the next thing to type."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.where, self.hint = problem, where, hint
        self.others: tuple[MitocoreError, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:  # else all but `problem` is lost between processes
        return _rebuild, (type(self), self.problem, self.where, self.hint, self.others)

    def __str__(self) -> str:
        lines = [self.problem, self.where and f"  in {self.where}", self.hint and f"  hint: {self.hint}"]
        return "\n".join(line for line in lines if line)


def together(findings: Sequence[MitocoreError]) -> MitocoreError:
    """One error that carries all findings of a check; the command line prints them one after another."""
    first = findings[0]
    first.others = tuple(findings[1:])
    return first


def _rebuild(
    family: type[MitocoreError], problem: str, where: str, hint: str, others: tuple[MitocoreError, ...]
) -> MitocoreError:
    error = family(problem, where=where, hint=hint)
    error.others = others
    return error


class ConfigError(MitocoreError, ValueError):
    """A TOML file or an option is wrong."""

    exit_code = 3


class WiringError(ConfigError):
    """Two steps do not fit each other."""


class PluginError(MitocoreError):
    """A component is unknown, ambiguous, broken or made for another API; or an extra is not installed."""

    exit_code = 4


class DataError(MitocoreError):
    """A file is missing, unreadable, lacks what is needed (voxel size, channel, key), or cannot hold the result."""

    exit_code = 5


class ResourceError(MitocoreError):
    """Memory, disk or device cannot hold what the plan needs."""

    exit_code = 6


class ContractError(MitocoreError):
    """A plugin returned something its own declaration rules out. Names the plugin; blame is explicit."""

    exit_code = 7


class RunError(MitocoreError):
    """A block failed as often as `run.retries` allows, or the run folder is in use. What is finished is kept."""

    exit_code = 8
