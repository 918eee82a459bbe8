"""What the core itself declares: names, targets, summaries. Nothing is imported before it is used."""

from typing import TYPE_CHECKING

from mitocore import hookimpl

if TYPE_CHECKING:
    from mitocore.registry import Registry

_HERE = "mitocore.builtin"

_COMPONENTS = [
    ("normalizer", "percentile", "normalizers:Percentile", "two percentiles to -1 and 1"),
    ("normalizer", "minmax", "normalizers:MinMax", "smallest and largest intensity to -1 and 1"),
    ("normalizer", "zscore", "normalizers:ZScore", "mean 0, standard deviation 1"),
    (
        "normalizer",
        "dtype_range",
        "normalizers:DtypeRange",
        "fractions of the dtype's maximum, fixed mean and deviation",
    ),
    ("postprocessor", "threshold", "postprocess:Threshold", "probability to mask"),
    ("postprocessor", "argmax", "postprocess:Argmax", "probabilities of several classes to class ids"),
    ("postprocessor", "median", "postprocess:Median", "median of a box around each voxel"),
    ("target", "foreground", "targets:Foreground", "1 inside objects, 0 outside"),
    ("sampler", "uniform", "samplers:Uniform", "crops anywhere"),
    ("sampler", "foreground", "samplers:Foreground", "crops with foreground, in a chosen share"),
    ("augment", "flip_rotate", "augments:FlipRotate", "flips, and quarter turns in the plane"),
    ("augment", "contrast", "augments:Contrast", "gamma, contrast and brightness"),
    ("loss", "bce", "losses:BCE", "binary cross-entropy"),
    ("loss", "dice", "losses:Dice", "1 - Dice"),
    ("loss", "dice_ce", "losses:DiceCE", "binary cross-entropy + 1 - Dice"),
    ("metric", "voxel", "metrics:Voxel", "IoU, Dice, precision and recall of voxels"),
    ("metric", "dice", "metrics:Dice", "Dice of voxels"),
    ("metric", "iou", "metrics:IoU", "IoU of voxels"),
    ("metric", "instance", "metrics:Instance", "F1, accuracy, panoptic quality, AP of objects"),
    ("metric", "adapted_rand", "metrics:AdaptedRand", "adapted Rand error"),
    ("metric", "voi", "metrics:VariationOfInformation", "variation of information: split and merge"),
]


@hookimpl
def mitocore_register(registry: "Registry") -> None:
    """Declare the built-in components."""
    registry.add("reader", "npy", f"{_HERE}.npy:NpyReader", "NumPy array in one file", suffixes=(".npy",))
    registry.add("writer", "npy", f"{_HERE}.npy:NpyWriter", "NumPy array in one file", suffixes=(".npy",))
    registry.add(
        "reader", "sample", f"{_HERE}.sample:SampleReader", "synthetic tissue with mitochondria, and its truth"
    )
    for kind, name, target, summary in _COMPONENTS:
        registry.add(kind, name, f"{_HERE}.{target}", summary)
