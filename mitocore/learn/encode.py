"""What is learned of a crop: targets, and how much each voxel counts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.errors import ContractError
from mitocore.geometry import Shape, VoxelSize, as_shape
from mitocore.interfaces import VALID, Labels, Target
from mitocore.training import PlannedObjective, TrainingPlan

__all__ = ["VALID", "cut", "encoded", "label_halo"]


def encoded(
    objective: PlannedObjective, labels: Labels, voxel_size: VoxelSize | None, halo: Shape
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Target (c, z, y, x) and weight (1, z, y, x), from label arrays that are `halo` larger on every side.

    An objective without target has no channel: (0, z, y, x).

    Raises
    ------
    ContractError
        If a target gives another shape or dtype than it declares.
    """
    shape = labels[VALID].shape
    target = _values(objective.target, labels, voxel_size) if objective.target else np.zeros((0, *shape), np.float32)
    counted = labels[VALID] == 1
    for name in objective.labels:
        if name in labels and labels[name].dtype.kind in "iu":
            counted = counted & (labels[name] != np.iinfo(labels[name].dtype).max)
    weight = counted[None].astype(np.float32)
    for weight_map in objective.weight_maps:
        weight *= _values(weight_map, labels, voxel_size)
    return cut(target, halo), cut(weight, halo)


def _values(target: Target, labels: Labels, voxel_size: VoxelSize | None) -> NDArray[np.float32]:
    named = {name: labels[name] for name in target.needs() if name in labels}
    values = target.encode(named, voxel_size)
    declared = (len(target.gives().channels), *labels[VALID].shape)
    if values.shape != declared or values.dtype != np.float32:
        name = type(target).__name__
        problem = f"target {name} gives {values.dtype} of shape {values.shape}, not float32 of {declared}"
        raise ContractError(problem, hint=f"mend {name}.encode or {name}.gives")
    return values


def cut(array: NDArray[Any], voxels: Shape) -> NDArray[Any]:
    """The array without `voxels` at each face of its last three axes."""
    z, y, x = (slice(v, n - v) for v, n in zip(voxels, array.shape[-3:], strict=True))
    return array[..., z, y, x]


def label_halo(plan: TrainingPlan, voxel_size: VoxelSize | None) -> Shape:
    """Labels needed around a box by all targets and weight maps."""
    halos = [encoder.halo(voxel_size) for objective in plan.objectives for encoder in objective.encoders]
    return as_shape(max(axis) for axis in zip((0, 0, 0), *halos, strict=True))
