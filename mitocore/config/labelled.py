"""What a `[[volume]]` of `train.toml`, and the table `[split]` for all of them, may say."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from mitocore.config.split import Part, checked_box
from mitocore.config.table import ComponentTable, Table
from mitocore.geometry import nanometres
from mitocore.specs import Kind

_RESERVED = ("valid", "image", "path", "reader", "kind")
"""Words that cannot be the name of a label array."""
_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
PartOption = Annotated[Part, BeforeValidator(Part.parse), WithJsonSchema(_TEXTS)]
BoxOption = Annotated[str, AfterValidator(checked_box)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _checked_gap(gap: int | str) -> int | str:
    if isinstance(gap, str) and gap != "auto":
        nanometres(gap)
    elif isinstance(gap, int) and gap < 0:
        raise ValueError(f"a gap of {gap} voxels is less than none")
    return gap


class LabelValues(Table):
    """What the numbers in a label file mean."""

    foreground: Annotated[tuple[int, ...], Field(min_length=1)] | Literal["any"] | None = None
    """Values that are an object; they become 1, all others background. `"any"`, which is also what it means if left
    out: every value counts as it stands. A semantic array of several values and no `classes` must state it."""
    ignore: tuple[int, ...] = ()
    """Values that are left out of loss and scores, beside those that always are: the largest number of an unsigned file
    of 16 bits or more, and -1 in a signed one. 255 in a file of bytes is an id like others unless it is stated here."""
    reserved: Literal["ignore", "background"] = "ignore"
    """What 2^64-3 and 2^64-2 mean in files of uint64: Paintera and Catena mark so what lies outside or was not
    labelled."""


class LabelTable(Table):
    """One label array. Further keys are options of its reader."""

    model_config = ConfigDict(extra="allow")

    path: str
    """`PATH[::KEY]`; `{path}` and `{stem}` as in `labels`. A named reader may need none."""
    reader: str | None = None
    """Left out, the suffix of the path tells."""
    kind: Literal["instances", "semantic"] | None = None
    """Ids of objects, or of classes; left out: classes in the array called `semantic`, objects in every other."""
    label_values: LabelValues | None = None
    """Instead of that of the volume."""

    @model_validator(mode="before")
    @classmethod
    def _without_file(cls, data: Any) -> Any:
        return {"path": "", **data} if isinstance(data, dict) and data.get("reader") else data


class Split(Table):
    """Parts of a volume that are not trained on. Voxels are those of the file, whatever size they are trained at."""

    validation: PartOption | None = None
    """Whole planes along one axis, `"z:17-20"` (voxels, 20 excluded) or `"z:0.7-0.85"` (fractions of the axis); boxes,
    `["0:20,0:64,0:64", …]` (z, y, x); or `"all"`."""
    test: PartOption | None = None
    """Scored once, at the end, with the best weights; written like `validation`."""
    gap: Annotated[int | str, AfterValidator(_checked_gap)] = "auto"
    """Left out of training at each face of the other parts: voxels, `"15 nm"`, or `"auto"`: as many as the
    window of the model crops. Where voxels are resampled, it is never less than what makes them share no voxel of the
    file."""


class VolumeTable(Table):
    """Labelled volumes: one, or several that are alike. Further keys are options of the reader of the image."""

    model_config = ConfigDict(extra="allow")

    reader: str | None = None
    """Reader of the image; left out, the suffix of the path tells."""
    path: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """The image, `PATH[::KEY]`; or several: a list, a pattern such as `"data/*.zarr::volumes/raw"`, or a folder of
    volumes."""
    labels: str | dict[str, str | LabelTable]
    """Object labels, `PATH[::KEY]`; or several arrays by name, `{ instances = …, semantic = … }`. `{path}` stands for
    the file of the image, without key, and `{stem}` for its name without folder and suffix."""
    label_values: LabelValues = LabelValues()
    """What the numbers in the label files mean."""
    classes: tuple[str, ...] = ()
    """Names of the ids 0, 1, … of the semantic arrays; other ids are refused."""
    skip_unlabelled: bool = False
    """Leave volumes out whose labels are not there, instead of refusing them."""
    valid: ComponentTable | None = None
    """Mask, `PATH[::KEY]` with `{path}` and `{stem}`; voxels where it is 0 are left out of loss and scores."""
    annotated: tuple[BoxOption, ...] = ()
    """Boxes `"z0:z1,y0:y1,x0:x1"` outside of which nothing was labelled: voxels there are ignored, in targets, loss and
    scores, and no crop lies wholly outside."""
    region: BoxOption | None = None
    """Box `"z0:z1,y0:y1,x0:x1"`; only this part of the volume is used."""
    split: Split = Split()
    """Which parts are for validation and test; the rest is for training."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often crops come from each of these volumes, relative to others."""
    source: str = ""
    """Volumes with the same word here, such as the name of a data set, are one to samplers that weigh sources; left
    out: each is its own."""

    @property
    def paths(self) -> tuple[str, ...]:
        """As stated."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def arrays(self) -> dict[str, LabelTable]:
        """Label arrays by name, what may be left out filled in."""
        named = self.labels if isinstance(self.labels, dict) else {"instances": self.labels}
        tables = {n: LabelTable(path=place) if isinstance(place, str) else place for n, place in named.items()}
        return {
            name: table.model_copy(
                update={
                    "kind": table.kind or ("semantic" if name == "semantic" else "instances"),
                    "label_values": table.label_values or self.label_values,
                }
            )
            for name, table in tables.items()
        }

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """What the label arrays hold, by name."""
        held = {"instances": Kind.INSTANCE, "semantic": Kind.SEMANTIC}
        return {name: held[table.kind or "instances"] for name, table in self.arrays.items()}

    @field_validator("path", mode="before")
    @classmethod
    def _not_empty(cls, path: Any, info: ValidationInfo) -> Any:
        if path == [] or (path == "" and not info.data.get("reader")):  # a named reader may need none
            raise ValueError('this names no volume; write "raw.tif", ["a.tif", "b.tif"] or "data/*.zarr::volumes/raw"')
        return path

    @field_validator("labels")
    @classmethod
    def _named(cls, labels: str | dict[str, str | LabelTable]) -> str | dict[str, str | LabelTable]:
        if not labels:
            raise ValueError('this names no labels; write "labels.tif" or { instances = "labels.tif" }')
        if isinstance(labels, dict) and (wrong := [name for name in labels if name in _RESERVED or not name]):
            example = "labels = { instances = { path = … } }"
            raise ValueError(f"a label array cannot be called {wrong[0]!r}; several are listed by name, {example}")
        return labels

    @model_validator(mode="after")
    def _one_meaning(self) -> "VolumeTable":
        shared = [name for name, table in self.arrays.items() if table.label_values is self.label_values]
        if isinstance(self.label_values.foreground, tuple) and len(shared) > 1:
            wanted = f"labels = {{ {shared[0]} = {{ path = …, label_values = … }} }}"
            raise ValueError(
                f"label_values.foreground is for one label array, and there are {len(shared)}; write {wanted}"
            )
        if self.classes and Kind.SEMANTIC not in self.kinds.values():
            raise ValueError("classes are of a semantic array, and there is none: labels = { semantic = … }")
        if self.classes and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise ValueError('classes are two different names or more, such as ["background", "mito"]')
        return self


class SplitTable(Table):
    """How all volumes together are divided: whole volumes by lot, or as a training before."""

    by: Literal["volume"] | None = None
    """`"volume"`: whole volumes, chosen by lot. All regions of one file go to one part."""
    validation: Fraction = 0.2
    """Share of the volumes, at least one."""
    test: Fraction | None = None
    """Share of the volumes, at least one; left out: no test part."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the lot."""
    file: str | None = None
    """`split.json` of a training, instead: the same boxes of the same volumes."""

    @model_validator(mode="after")
    def _one_way(self) -> "SplitTable":
        if (self.by is None) == (self.file is None):
            raise ValueError('write by = "volume", or file = "…/split.json"')
        if self.file and (more := sorted(self.model_fields_set - {"file"})):
            raise ValueError(f"file says all of the split, {more[0]} included; leave {more[0]} out")
        if self.validation + (self.test or 0) >= 1:
            raise ValueError(f"validation = {self.validation:g} and test = {self.test:g} leave nothing for training")
        return self
