"""Weights under a name: one folder each, below the user's data folder."""

import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from mitocore.errors import DataError
from mitocore.header import WeightsHeader, header_beside, read_header

_RECORD = "about.json"


@dataclass(frozen=True, slots=True)
class Known:
    """What is recorded of weights that were added under a name."""

    name: str
    file: str
    """Name of the file inside the folder of these weights."""
    sha256: str
    source: str = ""
    """Where the file came from."""
    licence: str = ""

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return _folder() / self.name / self.file


def home() -> Path:
    """The folder of this user's weights: `MITOCORE_HOME`, or where the system keeps data of applications."""
    return Path(os.environ.get("MITOCORE_HOME") or platformdirs.user_data_path("mitocore"))


def is_path(text: str) -> bool:
    """Whether `weights = "…"` names a file: it holds a slash or a suffix.

    >>> is_path("mito_v1"), is_path("best.safetensors"), is_path("runs/best")
    (False, True, True)
    """
    return "/" in text or os.sep in text or bool(Path(text).suffix)


def resolve(text: str, folder: Path) -> Path:
    """The file that `weights = "…"` means; a path is relative to `folder`, a name is looked up and its file verified.

    Raises
    ------
    DataError
        If there is no such file or name, or the file is not the one that was added.
    """
    if is_path(text):
        path = folder / text
        if not path.is_file():
            raise DataError(f"there is no weights file {str(path)!r}", hint="`mitocore weights list` shows names")
        return path
    known = info(text)
    if not known.path.is_file() or sha256(known.path) != known.sha256:
        problem = f"the file of weights {text!r} is missing or was changed since it was added"
        raise DataError(problem, where=str(known.path), hint=f"mitocore weights remove {text}, then add it again")
    return known.path


def add(path: Path, name: str, *, source: str = "", licence: str = "") -> Known:
    """Copy a weights file, with its header beside if it has one, and record it under `name`.

    Raises
    ------
    DataError
        If the file has no header, the name is taken, or it is not a name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise DataError(f"{name!r} is not a name for weights; letters, digits, _ and - are allowed", hint="--name mito")
    read_header(path)
    if (_folder() / name).exists():
        raise DataError(f"weights {name!r} exist already", hint=f"mitocore weights remove {name}, or another --name")
    _folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".add-", dir=_folder()) as half_done:
        copy = Path(half_done) / name
        copy.mkdir()
        shutil.copyfile(path, copy / path.name)
        if header_beside(path).exists():
            shutil.copyfile(header_beside(path), copy / header_beside(path).name)
        known = Known(name, path.name, sha256(copy / path.name), source or str(path.resolve()), licence)
        (copy / _RECORD).write_text(json.dumps(asdict(known), indent=2), encoding="utf-8")
        copy.rename(_folder() / name)  # all or nothing: there is no index that could disagree with the files
    return known


def listed() -> tuple[Known, ...]:
    """All weights with a name, sorted."""
    return tuple(_read(record) for record in sorted(_folder().glob(f"[!.]*/{_RECORD}")))


def info(name: str) -> Known:
    """What is recorded of the weights `name`.

    Raises
    ------
    DataError
        If there are none of this name.
    """
    record = _folder() / name / _RECORD
    if not is_path(name) and record.is_file():
        return _read(record)
    have = [known.name for known in listed()]
    near = difflib.get_close_matches(name, have, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"added so far: {', '.join(have) or 'none'}; a file needs a suffix"
    raise DataError(f"no weights are called {name!r}", hint=hint)


def header(name: str) -> WeightsHeader:
    """The header of the weights `name`."""
    return read_header(info(name).path)


def remove(name: str) -> None:
    """Forget the weights `name` and delete their copy."""
    info(name)
    shutil.rmtree(_folder() / name)


def sha256(path: Path) -> str:
    """Fingerprint of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder() -> Path:
    return home() / "weights"


def _read(record: Path) -> Known:
    try:
        return Known(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        name = record.parent.name
        hint = f"delete the folder and run `mitocore weights add … --name {name}`"
        raise DataError(f"the record of weights {name!r} cannot be read", where=str(record), hint=hint) from error
