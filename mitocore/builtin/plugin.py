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
    ("normalizer", "clahe", "normalizers:Clahe", "adaptive histogram equalisation of sections"),
    ("postprocessor", "threshold", "postprocess:Threshold", "probability to mask"),
    ("postprocessor", "argmax", "postprocess:Argmax", "probabilities of several classes to class ids"),
    ("postprocessor", "median", "postprocess:Median", "median of a box around each voxel"),
    ("target", "foreground", "targets.foreground:Foreground", "1 inside objects, 0 outside"),
    ("target", "small_objects", "targets.foreground:SmallObjects", "1 in small objects and thin parts of others"),
    ("target", "boundary", "targets.boundaries:Boundary", "1 at boundaries of objects, contours or contacts"),
    ("target", "affinity", "targets.affinities:Affinity", "1 where voxels an offset apart are of one object"),
    ("target", "semantic", "targets.semantic:Semantic", "one channel per class"),
    ("target", "signed_distance", "targets.distances:SignedDistance", "distance to borders, negative outside"),
    ("target", "instance_distance", "targets.distances:InstanceDistance", "distance to borders as a share or classes"),
    ("target", "skeleton_distance", "targets.skeletons:SkeletonDistance", "1 on an object's skeleton, 0 at its border"),
    ("target", "center", "targets.centers:Center", "heat map of the centres of objects"),
    ("target", "offset", "targets.centers:Offset", "vectors to the centres of objects"),
    ("target", "descriptors", "targets.descriptors:Descriptors", "local shape descriptors"),
    ("target", "border_distance", "targets.weights:BorderDistance", "weight: more in narrow gaps between objects"),
    ("target", "class_weights", "targets.weights:ClassWeights", "weight: a constant for each class"),
    ("target", "known", "targets.weights:Known", "weight: 0 near voxels to ignore"),
    ("sampler", "uniform", "samplers.uniform:Uniform", "crops anywhere"),
    (
        "sampler",
        "foreground",
        "samplers.foreground:Foreground",
        "crops with foreground, classes or hard negatives, in chosen shares",
    ),
    ("sampler", "grid", "samplers.grid:Grid", "every patch of a grid once per pass"),
    ("sampler", "balanced", "samplers.balanced:Balanced", "patches with and without foreground, in a chosen share"),
    ("sampler", "reject", "samplers.reject:Reject", "crops with little to see are drawn less often"),
    ("augment", "flip_rotate", "augments.flips:FlipRotate", "flips and quarter turns"),
    ("augment", "rotate", "augments.warps:Rotate", "any angle, in the plane or in space"),
    ("augment", "rescale", "augments.warps:Rescale", "larger or smaller"),
    ("augment", "elastic", "augments.warps:Elastic", "smooth bending"),
    ("augment", "missing_section", "augments.sections:MissingSection", "lost sections"),
    ("augment", "misalignment", "augments.sections:Misalignment", "sections shifted or turned"),
    ("augment", "copy_paste", "augments.copy_paste:CopyPaste", "objects copied to where there is background"),
    ("augment", "contrast", "augments.intensity:Contrast", "gamma, contrast, brightness and inversion"),
    ("augment", "noise", "augments.noise:Noise", "Gaussian noise, or noise of counting"),
    ("augment", "blur", "augments.blur:Blur", "sections out of focus"),
    ("augment", "motion_blur", "augments.blur:MotionBlur", "sections smeared along a line"),
    ("augment", "missing_parts", "augments.occlusions:MissingParts", "bands of sections hidden"),
    ("augment", "cut_out", "augments.occlusions:CutOut", "boxes of mean grey"),
    ("augment", "cut_blur", "augments.occlusions:CutBlur", "one box as coarse as with larger voxels"),
    ("augment", "cut_noise", "augments.occlusions:CutNoise", "noise in one box"),
    ("augment", "missing_wedge", "augments.tomograms:MissingWedge", "frequencies that tilting does not reach"),
    ("augment", "spectrum", "augments.tomograms:Spectrum", "fine and coarse structure weaker or stronger"),
    ("loss", "bce", "losses.entropy:BCE", "binary cross-entropy"),
    ("loss", "cross_entropy", "losses.entropy:CrossEntropy", "cross-entropy of a softmax"),
    ("loss", "focal", "losses.entropy:Focal", "cross-entropy, of what is not yet right"),
    ("loss", "top_k_cross_entropy", "losses.entropy:TopKCrossEntropy", "cross-entropy of the worst voxels"),
    ("loss", "dice", "losses.overlap:Dice", "1 - Dice"),
    ("loss", "generalized_dice", "losses.overlap:GeneralizedDice", "1 - Dice of classes weighed by their volume"),
    ("loss", "tversky", "losses.overlap:Tversky", "Dice with weights of false positives and negatives"),
    ("loss", "focal_tversky", "losses.overlap:FocalTversky", "root of the Tversky loss"),
    ("loss", "weighted_soft_dice", "losses.overlap:WeightedSoftDice", "1 - Dice of values from -1 to 1"),
    ("loss", "dice_ce", "losses.sums:DiceCE", "cross-entropy + 1 - Dice"),
    ("loss", "bce_dice", "losses.sums:BCEDice", "weighted sum of cross-entropy and 1 - Dice"),
    ("loss", "cl_dice", "losses.skeleton:ClDice", "1 - clDice, for thin structures"),
    ("loss", "mse", "losses.regression:MSE", "mean squared error"),
    ("loss", "mae", "losses.regression:MAE", "mean absolute error"),
    ("loss", "smooth_l1", "losses.regression:SmoothL1", "squared error of small, absolute of large differences"),
    ("loss", "point_rend", "losses.points:PointRend", "cross-entropy at the points of PointRend"),
    ("loss", "certainty", "losses.relations:Certainty", "no target: probabilities near 0 or 1"),
    (
        "loss",
        "foreground_boundary",
        "losses.relations:ForegroundBoundary",
        "no target: boundary where foreground changes",
    ),
    ("loss", "boundary_distance", "losses.relations:BoundaryDistance", "no target: boundary where distance is 0"),
    ("loss", "foreground_distance", "losses.relations:ForegroundDistance", "no target: foreground where distance > 0"),
    ("loss", "exclusive", "losses.relations:Exclusive", "no target: two probabilities never both high"),
    ("metric", "voxel", "metrics.voxels:Voxel", "IoU, Dice, precision and recall of voxels"),
    ("metric", "dice", "metrics.voxels:Dice", "Dice of voxels"),
    ("metric", "iou", "metrics.voxels:IoU", "IoU of voxels"),
    ("metric", "mae", "metrics.voxels:MeanAbsolute", "mean absolute error of distances, vectors, descriptors"),
    ("metric", "mse", "metrics.voxels:MeanSquared", "mean squared error of distances, vectors, descriptors"),
    ("metric", "instance", "metrics.objects:Instance", "F1, accuracy, panoptic quality of objects"),
    ("metric", "average_precision", "metrics.ranking:AveragePrecision", "AP of objects, by IoU and by size"),
    ("metric", "adapted_rand", "metrics.objects:AdaptedRand", "adapted Rand error"),
    ("metric", "voi", "metrics.objects:VariationOfInformation", "variation of information: split and merge"),
    ("metric", "skeleton", "metrics.skeletons:SkeletonAccuracy", "accuracy of objects by the length of their skeleton"),
    ("metric", "affinity", "metrics.affinities:Affinity", "Dice of affinities, and the side of the pair they are on"),
    ("metric", "surface", "metrics.surfaces:Surface", "distances in nm between surfaces of objects that match"),
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
