"""Sections of the validation parts as pictures: raw | truth | prediction | error, the same ones at every validation."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitocore.blockwise.grid import BlockGrid
from mitocore.durable import replaced, reported
from mitocore.geometry import Roi, VoxelSize, as_shape
from mitocore.interfaces import VALID
from mitocore.learn.data import OpenVolume
from mitocore.learn.looks import Look, classes, look, tinted
from mitocore.learn.validation import Validation, shifted
from mitocore.pictures import ADDED, AGREES, MISSED, Picture, errors, figure, grey, scale_bar
from mitocore.specs import Head, Kind
from mitocore.training import PlannedObjective, TrainingPlan

FOLDER, BEST = "panels", "best.png"
KEPT = 3
"""Pictures of the last validations that are kept, beside that of the best."""
_LARGEST = 512  # voxels along an edge of a section; of a larger one, where most foreground is
_ROWS = 6
_MOST = 3  # sections
_INCHES, _DPI = 2.6, 120
_BOX = (8, _LARGEST, _LARGEST)
_LIKELY = (Kind.PROBABILITY, Kind.AFFINITY)  # of these, voxels are right or wrong; other kinds have a difference


@dataclass(frozen=True)
class _View:
    """What is shown of one volume: a part of a section."""

    number: int
    """Of the region, as validation counts them."""
    box: Roi
    """One section, in the frame of the region."""
    title: str
    raw: Picture
    voxel_size: VoxelSize | None


@dataclass
class _Seen:
    """What a head gave in a view, and what it should have given: (c, y, x), and (y, x) whether a voxel counts."""

    values: NDArray[np.float32]
    target: NDArray[np.float32]
    counted: NDArray[np.bool_]


class Panels:
    """Gathers the chosen sections while validation goes through its parts, and draws them."""

    def __init__(self, plan: TrainingPlan, validation: Validation) -> None:
        self.folder, self.heads = plan.folder / FOLDER, list(validation.truths.values())
        number = max(1, min(_MOST, _ROWS // max(len(self.heads), 1)))
        self.views = _chosen(validation, number)
        self._found: dict[tuple[int, str], _Seen] = {}

    def see(
        self,
        number: int,
        roi: Roi,
        objective: PlannedObjective,
        values: NDArray[np.float32],
        target: NDArray[np.float32],
        weight: NDArray[np.float32],
    ) -> None:
        """Keep what a slab (`roi`, in the frame of region `number`) holds of the chosen sections."""
        for at, view in enumerate(self.views):
            part = view.box.clip(roi)
            if view.number != number or min(part.shape) < 1:
                continue
            seen = self._found.setdefault((at, objective.name), _empty(view, len(values), len(target)))
            there, (_, *here) = part.within(roi), part.within(view.box)
            seen.values[(slice(None), *here)] = values[(slice(None), *there)][:, 0]
            seen.target[(slice(None), *here)] = target[(slice(None), *there)][:, 0]
            seen.counted[tuple(here)] = weight[(0, *there)][0] > 0

    def draw(self, step: int, scores: Mapping[str, float], *, better: bool) -> NDArray[np.uint8] | None:
        """Write `panels/step-000500.png` (and `best.png`), forget older ones; gives the picture (y, x, rgb).

        None: the validation parts hold nothing to show.

        Raises
        ------
        ResourceError
            If the disk is full.
        DataError
            If a file cannot be written for another reason.
        """
        from matplotlib.image import imsave

        if not self._found:
            return None
        picture = self._picture(step, scores, better=better)
        self._found.clear()
        with reported(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        imsave(content, picture, format="png", pil_kwargs={"compress_level": 3})  # grain does not get much smaller
        for name in (f"step-{step:06}.png", *([BEST] if better else [])):
            with replaced(self.folder / name) as file:
                file.write(content.getbuffer())
        for old in sorted(self.folder.glob("step-*.png"))[:-KEPT]:
            old.unlink(missing_ok=True)
        return picture

    def _picture(self, step: int, scores: Mapping[str, float], *, better: bool) -> NDArray[np.uint8]:
        rows = sorted(self._found, key=lambda key: (key[0], [o.name for o in self.heads].index(key[1])))
        panels = [self._row(self.views[at], name, self._found[at, name]) for at, name in rows]
        tall = [_tall(self.views[at]) for at, _ in rows]
        made = figure(4 * _INCHES + 0.6, sum(tall) * _INCHES + 0.28 * len(rows) + 0.6, _DPI)
        grid = made.subplots(len(rows), 4, squeeze=False, gridspec_kw={"height_ratios": tall})
        shown: set[int] = set()
        for number, (line, (at, _), pictures) in enumerate(zip(grid, rows, panels, strict=True)):
            view = self.views[at]
            aspect = view.voxel_size.y / view.voxel_size.x if view.voxel_size else 1.0
            for axes, (title, picture) in zip(line, pictures.items(), strict=True):
                axes.imshow(picture, aspect=aspect, interpolation="antialiased")
                axes.set(xticks=[], yticks=[], frame_on=False)
                if number == 0 or len(self.heads) > 1:
                    axes.set_title(title, fontsize=8, pad=3)
            line[0].set_ylabel(view.title, fontsize=8)
            if view.voxel_size and at not in shown:
                scale_bar(line[0], view.voxel_size, view.box.shape[2], view.box.shape[1])
            shown.add(at)
        numbers = "  ·  ".join(f"{name} {value:.4g}" for name, value in list(scores.items())[:3])
        made.suptitle(f"step {step:,}{', the best so far' if better else ''}  ·  {numbers}", fontsize=9)
        _legend(made)
        made.canvas.draw()
        return np.asarray(made.canvas.buffer_rgba())[..., :3].copy()

    def _row(self, view: _View, name: str, seen: _Seen) -> dict[str, Picture]:
        objective = next(one for one in self.heads if one.name == name)
        truth, predicted, error = _compared(objective, view.raw, seen)
        known = seen.counted[..., None]
        truth = np.where(known, truth, 0.5 * view.raw + 0.25).astype(np.float32)
        several = len(self.heads) > 1
        named = f"{name}, prediction" if several else "prediction"
        kind = objective.target.gives().kind if objective.target else objective.heads[0].kind
        last = "error" if kind in _LIKELY else "prediction - truth"
        return {"raw": view.raw, "truth": truth, named: predicted, last: error}


def _empty(view: _View, channels: int, targets: int) -> _Seen:
    space = view.box.shape[1:]
    return _Seen(
        np.zeros((channels, *space), np.float32), np.zeros((targets, *space), np.float32), np.zeros(space, bool)
    )


def _compared(objective: PlannedObjective, raw: Picture, seen: _Seen) -> tuple[Picture, Picture, Picture]:
    """Truth, prediction and error of one head."""
    head, spec = objective.heads[0], objective.target.gives() if objective.target else None
    if head.activation == "softmax":
        true, found = seen.target.argmax(axis=0), seen.values.argmax(axis=0)
        wrong = np.where((found == true) | (true == 0), found, 0)  # a voxel of the wrong class was missed
        return classes(raw, true), classes(raw, found), _errors(raw, wrong, true, seen.counted)
    kind = spec.kind if spec else head.kind
    if kind not in _LIKELY:
        return _regressed(kind, seen)
    if len(seen.values) == 1:
        true, found = seen.target[0] > 0.5, seen.values[0] > 0.5
        return (
            tinted(raw, true),
            Look("gray", 0.0, 1.0).picture(seen.values[0]),
            _errors(raw, found, true, seen.counted),
        )
    true, found = _inside(head, seen.target), _inside(head, seen.values)
    return _channels(seen.target), _channels(seen.values), _errors(raw, found, true, seen.counted)


def _regressed(kind: Kind, seen: _Seen) -> tuple[Picture, Picture, Picture]:
    """Truth and prediction of the first channel in the same colours, and their difference."""
    true, found = seen.target[0], seen.values[0]
    scale = look(kind, [true[seen.counted]])
    reach = scale.high - scale.low
    difference = np.where(seen.counted, found - true, 0)
    return scale.picture(true), scale.picture(found), Look("RdBu_r", -reach / 2, reach / 2).picture(difference)


def _inside(head: Head, values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of affinities, where the first three hold; of other channels, where the first is likely."""
    return np.asarray((values[:3].min(axis=0) if head.kind is Kind.AFFINITY else values[0]) > 0.5)


def _channels(values: NDArray[np.float32]) -> Picture:
    """The first three channels as red, green and blue."""
    picture = np.zeros((*values.shape[1:], 3), np.float32)
    for channel, plane in enumerate(values[:3]):
        picture[..., channel] = np.clip(plane, 0, 1)
    return picture


def _errors(raw: Picture, found: NDArray[Any], true: NDArray[Any], counted: NDArray[np.bool_]) -> Picture:
    unknown = np.iinfo(np.uint64).max
    return errors(raw, found.astype(np.uint64), np.where(counted, true.astype(np.uint64), unknown))


def _tall(view: _View) -> float:
    _, height, width = view.box.shape
    return height / width * (view.voxel_size.y / view.voxel_size.x if view.voxel_size else 1.0)


def _legend(made: Any) -> None:
    from matplotlib.patches import Patch

    named = {"found": AGREES, "found, not in the truth": ADDED, "missed": MISSED}
    patches = [Patch(facecolor=colour, label=name) for name, colour in named.items()]
    made.legend(handles=patches, loc="outside lower right", ncols=len(patches), frameon=False, fontsize=7.5)


def _chosen(validation: Validation, number: int) -> list[_View]:
    """Sections with most foreground, not next to each other, of every volume in turn; the same whenever one looks."""
    candidates: list[tuple[int, int, Roi]] = []
    depths: dict[int, int] = {}
    for at, (prepared, region) in enumerate(validation.volumes):
        depths[at] = region.shape[0]
        with closing(prepared.open()) as volume:
            candidates += [(count, at, box) for count, box in _counted(volume, region) if count]
    chosen: list[tuple[int, Roi]] = []
    while len(chosen) < number:
        taken = Counter(at for at, _ in chosen)
        apart = [one for one in candidates if _far(one, chosen, depths[one[1]] / (2 * number))]
        if not apart:
            break
        _, at, box = max(apart, key=lambda one: (-taken[one[1]], one[0]))
        chosen.append((at, box))
    return [_view(validation, at, box) for at, box in sorted(chosen, key=lambda one: (one[0], one[1].start))]


def _far(candidate: tuple[int, int, Roi], chosen: Sequence[tuple[int, Roi]], sections: float) -> bool:
    """Whether a section lies at least so many sections, and one, from those of the same region."""
    _, at, box = candidate
    apart = [abs(box.start[0] - other.start[0]) for number, other in chosen if number == at]
    return all(distance >= max(sections, 1) for distance in apart)


def _counted(volume: OpenVolume, region: Roi) -> Iterator[tuple[int, Roi]]:
    """For each section of a region: the window with most foreground, and how many voxels that are."""
    whole = Roi.whole(region.shape)
    grid = BlockGrid(whole, _BOX)
    best: dict[int, tuple[int, Roi]] = {}
    for place in range(len(grid)):
        box = grid.box(place)
        labels = volume.read_labels(shifted(box, region), region)
        valid = labels.pop(VALID) == 1
        for ids in labels.values():
            voxels = (valid & (ids > 0) & (ids != np.iinfo(ids.dtype).max)).sum(axis=(1, 2))
            for z, count in enumerate(voxels.tolist(), box.start[0]):
                if count > best.get(z, (-1,))[0]:
                    best[z] = count, _window(z, box, region.shape)
    return iter(best.values())


def _window(z: int, box: Roi, shape: Sequence[int]) -> Roi:
    """One section of a box, full size wherever it lies."""
    start = as_shape((z, *(max(0, min(a, n - _LARGEST)) for a, n in zip(box.start[1:], shape[1:], strict=True))))
    stop = as_shape((z + 1, *(min(a + _LARGEST, n) for a, n in zip(start[1:], shape[1:], strict=True))))
    return Roi(start, stop)


def _view(validation: Validation, at: int, box: Roi) -> _View:
    prepared, region = validation.volumes[at]
    place = shifted(box, region)
    with closing(prepared.open()) as volume:
        raw = grey(volume.read_image(place, region)[0, 0])
    several = len({one.planned.path for one, _ in validation.volumes}) > 1
    name = f"{Path(prepared.planned.path.partition('::')[0]).name}, " if several else ""
    return _View(at, box, f"{name}z {place.start[0]}", raw, prepared.planned.spec.voxel_size)
