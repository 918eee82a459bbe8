"""The median of a mask, by counting."""

import numpy as np
from numpy.typing import NDArray

from mitocore import Shape


def majority(mask: NDArray[np.bool_], size: Shape) -> NDArray[np.bool_]:
    """Whether most voxels of a box around each voxel are set; the array is mirrored at its faces, edge voxel included.

    Equal to `scipy.ndimage.median_filter(mask, size, mode="reflect")`, which sorts: the median of an odd number of
    zeros and ones is what most of them are. They are counted along one axis after the other, in the smallest integers
    that hold the counts (a box filter is separable: McDonnell, "Box-filtering techniques", 1981).

    Parameters
    ----------
    mask
        (z, y, x).
    size
        Voxels of the box along each axis, odd; may exceed the extent of the mask.

    Returns
    -------
    NDArray[np.bool_]
        (z, y, x).

    Examples
    --------
    >>> majority(np.array([[[1, 0, 1, 0, 0]]], bool), (1, 1, 3))
    array([[[ True,  True, False, False, False]]])
    """
    count: NDArray[np.unsignedinteger] = mask.view("u1")
    most = 1
    for axis, length in enumerate(size):
        most *= length
        if length > 1:
            count = _summed(count, axis, length, np.min_scalar_type(most))
    return count > most // 2


def _summed(
    values: NDArray[np.unsignedinteger], axis: int, length: int, dtype: np.dtype[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    """Sums over `length` voxels around each along an axis, `values` being mirrored at its ends."""
    reach = length // 2
    padding = [(reach, reach) if n == axis else (0, 0) for n in range(values.ndim)]
    mirrored = np.moveaxis(np.pad(values, padding, mode="symmetric"), axis, 0)
    sums = np.empty(values.shape, dtype)
    along = np.moveaxis(sums, axis, 0)
    extent = len(along)
    np.add(mirrored[:extent], mirrored[1 : extent + 1], out=along, dtype=dtype)
    for shift in range(2, length):
        along += mirrored[shift : shift + extent]
    return sums
