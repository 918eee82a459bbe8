"""Which arrays of a run are wanted until when, so that scratch is freed early and nothing freed is missed."""

from collections.abc import Collection, Sequence

from mitocore.pipeline import PlannedStep


def unfinished(
    steps: Sequence[PlannedStep],
    done: Collection[str],
    freed: Collection[str],
    handed_over: Collection[str],
) -> set[str]:
    """Names of the steps that have something to compute.

    Parameters
    ----------
    steps
        In the order of work.
    done, freed
        Names of those that came to their end, and of these the ones whose scratch is gone.
    handed_over
        Names of those whose arrays are read once more at the end of the run.
    """
    found: set[str] = set()
    for step in reversed(steps):
        wanted = step.name in handed_over or any(reader in found for reader in _readers(step, steps))
        computed = step.scope == "computed"
        if (wanted and (computed or step.name in freed)) or (step.name not in done and not computed):
            found.add(step.name)
    return found


def last_wanted(
    steps: Sequence[PlannedStep], handed_over: Collection[str], *, kept: Collection[str] = ()
) -> dict[str, list[str]]:
    """By step: names of those whose scratch nobody reads any more once that step has come to its end.

    A step that is computed where it is read stores nothing; what it reads is read when it is. Steps in `kept`, and
    those whose arrays are read at the end of the run, are never named.
    """
    readers = _all_readers(steps, handed_over)
    order = {step.name: place for place, step in enumerate(steps)}
    found: dict[str, list[str]] = {}
    for step in steps:
        own = readers[step.name]
        if step.scope != "computed" and step.name not in kept and own is not None:
            found.setdefault(max([step.name, *own], key=order.__getitem__), []).append(step.name)
    return found


def _all_readers(steps: Sequence[PlannedStep], handed_over: Collection[str]) -> dict[str, set[str] | None]:
    """Names of the steps that read from each, directly or through one that is computed; None: the end of the run."""
    found: dict[str, set[str] | None] = {}
    computed = {step.name for step in steps if step.scope == "computed"}
    for step in reversed(steps):
        own: set[str] | None = None if step.name in handed_over else set()
        for reader in _readers(step, steps):
            through = found[reader] if reader in computed else {reader}
            own = None if own is None or through is None else own | through
        found[step.name] = own
    return found


def _readers(step: PlannedStep, steps: Sequence[PlannedStep]) -> list[str]:
    """Names of the steps that are wired to one."""
    return [other.name for other in steps if any(w.source.partition(".")[0] == step.name for w in other.wires.values())]
