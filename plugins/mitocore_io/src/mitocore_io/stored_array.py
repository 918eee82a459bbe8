"""A volume over an array that is sliced like numpy's: of zarr or HDF5."""

from typing import Any

from numpy.typing import NDArray

from mitocore import DataError, Roi, Volume, VolumeSpec
from mitocore_io.axes import Axes


class StoredArray(Volume):
    """An open array of zarr or HDF5; both libraries may be used from several threads."""

    def __init__(self, array: Any, axes: Axes, spec: VolumeSpec, where: str) -> None:
        self._array, self._axes, self._spec, self._where = array, axes, spec, where

    @property
    def spec(self) -> VolumeSpec:
        return self._spec

    def read(self, roi: Roi) -> NDArray[Any]:
        try:
            values = self._array[self._axes.index(roi)]
        except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:  # what codecs raise on damaged bytes
            problem = f"voxels {roi.start} to {roi.stop} cannot be decoded: {_first_line(error)}"
            raise DataError(
                problem, where=self._where, hint="copy the file again; it is damaged or cut short"
            ) from error
        return self._axes.arrange(values).astype(self._spec.dtype, copy=False)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
