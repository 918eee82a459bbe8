"""How sure a prediction is of its objects, as a number by id."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.arrays import Opened
from mitocore.errors import DataError
from mitocore.geometry import Roi
from mitocore.interfaces import Volume
from mitocore.specs import Kind

_HINT = "columns id and score, a row for every predicted object"


def read_scores(path: Path) -> dict[int, float]:
    """The scores of objects in a .csv file of columns `id` and `score`.

    Raises
    ------
    DataError
        If it is missing, or does not hold them.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {int(row["id"]): float(row["score"]) for row in csv.DictReader(file)}
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    except KeyError as error:
        raise _refused(path, f"it has no column {str(error.args[0])!r}") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise _refused(path, f"a row holds no id and score ({error})") from error


def _refused(path: Path, reason: str) -> DataError:
    return DataError(f"{str(path)!r} gives no scores: {reason}", where="--scores", hint=_HINT)


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """The scores of objects as a volume, each on the voxels of its object; background is 0."""

    predicted: Opened
    ids: NDArray[np.uint64]
    """Ascending, the first is 0."""
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, predicted: Volume, scores: Mapping[int, float]) -> "Painted":
        """From a number by id, for the objects of a prediction."""
        ids = sorted({*scores, 0})
        values = np.array([scores.get(number, 0) for number in ids], np.float32)
        return cls(Opened(predicted, Kind.INSTANCE), np.array(ids, np.uint64), values)

    @property
    def voxel_bytes(self) -> int:
        """Of the ids, their places in the list and the scores."""
        return self.predicted.voxel_bytes + 12

    def read(self, roi: Roi) -> NDArray[Any]:
        """(1, z, y, x) float32 over `roi`.

        Raises
        ------
        DataError
            If an object has no score.
        """
        found = self.predicted.read(roi)
        place = np.minimum(np.searchsorted(self.ids, found), len(self.ids) - 1)
        if (missing := found[self.ids[place] != found]).size:
            raise DataError(f"there is no score of object {missing[0]}", where="--scores", hint=_HINT)
        return self.scores[place]
