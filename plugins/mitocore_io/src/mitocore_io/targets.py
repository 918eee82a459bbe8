"""Where a writer puts its arrays, and what it refuses to overwrite."""

import difflib
import errno
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mitocore import DataError, MitocoreError, ResourceError, VolumeSpec, WritableVolume

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_dtype(spec: VolumeSpec, dtypes: Collection[str], format: str, where: str) -> None:  # noqa: A002 - the word
    """Refuse a dtype that the format does not hold."""
    if spec.dtype not in dtypes:
        raise DataError(f"{format} does not hold {spec.dtype}; it holds {', '.join(dtypes)}", where=where)


def check_same(volume: WritableVolume, wanted: VolumeSpec, where: str) -> None:
    """Refuse, and close, an array that another run laid out differently."""
    found = volume.spec
    if (found.shape, found.dtype, len(found.channels)) != (wanted.shape, wanted.dtype, len(wanted.channels)):
        volume.close()
        problem = f"what is there is {_layout(found)}, not {_layout(wanted)}"
        raise DataError(problem, where=where, hint="delete it, or write to another path")


def _layout(spec: VolumeSpec) -> str:
    return f"{len(spec.channels)} x {spec.shape} {spec.dtype}"


def local(path: str) -> Path:
    """The path of a file or folder on this machine.

    Raises
    ------
    DataError
        If it is an address.
    """
    if "://" in path:
        problem = f"{path!r} is an address; of these only zarr stores are read, and nothing is written there"
        raise DataError(problem, hint="copy it to this machine, or write to a path on it")
    return Path(path)


def named(path: str, name: str) -> Path:
    """The path of one array: `{name}` replaced.

    >>> named("runs/{name}.tif", "mito.instances").name
    'mito.instances.tif'
    """
    return local(path.replace("{name}", name))


def part_of(path: Path) -> Path:
    """What `path` is called until it is finished.

    >>> part_of(named("out.h5", "mito")).name
    'out.h5.part'
    """
    return path.with_name(path.name + ".part")


def missing(path: Path) -> DataError:
    """The error that says that there is no file or folder; a run that was stopped may have left a part of it."""
    part = part_of(path)
    hint = f"{part.name} is there: resume the run that writes it" if part.exists() else ""
    if "*" in path.name:
        hint = 'a pattern of the files of one volume: --reader chunks (HDF5) or slices, reader = "chunks" in [input]'
    return DataError(f"{path.name!r} does not exist", where=str(path), hint=hint)


def refuse_taken(target: Path, path: str) -> None:
    """Refuse a path at which something stands, finished or not."""
    if target.exists():
        hint = "write to another path, or delete it"
        if "{name}" not in path:
            spot = target.with_name(f"{target.stem}.{{name}}{target.suffix}").name
            hint += f"; several arrays need {{name}} in path, as in {spot!r}"
        raise DataError(f"{target.name!r} exists", where=str(target), hint=hint)
    part = part_of(target)
    if part.exists():
        hint = "resume that run, or delete the .part"
        if "{name}" not in path:
            hint += "; several arrays of one run need {name} in path"
        raise DataError(f"{part.name!r} exists: another run or array is not finished", where=str(part), hint=hint)


def unfinish(target: Path) -> None:
    """Call a finished file or folder unfinished again: written into and then left, it would pass as whole."""
    part = part_of(target)
    if part.exists():
        hint = f"delete {part.name}, or move one of them"
        raise DataError(f"both {target.name!r} and {part.name!r} exist", where=str(part), hint=hint)
    try:
        target.replace(part)
    except OSError as error:
        raise DataError(f"{target.name!r} cannot be renamed: {error.strerror}", where=str(target)) from error


def unwritable(error: Exception, problem: str, where: str) -> MitocoreError:
    """The error about what cannot be made: of the data, unless the disk is full."""
    number = _number(error)
    if number in _FULL:
        hint = "free some disk space and run again to resume"
        return ResourceError(f"{problem}: {os.strerror(number)}", where=where, hint=hint)
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"{problem}: {reason}", where=where)


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Turn the error of a full disk into one that says so; others may pass the next time, and stay what they are.

    Raises
    ------
    ResourceError
        If the disk, the quota or the largest size of a file is reached.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if _number(error) in _FULL:
            raise unwritable(error, f"{Path(where).name!r} cannot be written", where) from error
        raise


def _number(error: Exception) -> int:
    """What the system calls an error; HDF5 often says it in its text alone."""
    said = re.search(r"\berrno = (\d+)", str(error))
    return getattr(error, "errno", None) or (int(said[1]) if said else 0)


def hint_of_keys(wanted: str, keys: Sequence[str], most: int = 12) -> str:
    """What to type instead of a key that is not there."""
    if not keys:
        return "there are no arrays in it"
    near = [key for key in keys if wanted and wanted in key] or difflib.get_close_matches(wanted, keys, 1)
    listed = ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
    return f'key = "{near[0] if near else keys[0]}"; there are: {listed}'
