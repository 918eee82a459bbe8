"""What a `[[volume]]` of `train.toml` may say."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mitocore.config.split import Part
from mitocore.config.table import ComponentTable, Table
from mitocore.geometry import nanometres
from mitocore.specs import Kind

LABEL_KINDS = {"instances": Kind.INSTANCE, "semantic": Kind.SEMANTIC}
"""Names of label arrays, and what they hold."""
PartOption = Annotated[Part, BeforeValidator(Part.parse)]


def _checked_gap(gap: int | str) -> int | str:
    if isinstance(gap, str) and gap != "auto":
        nanometres(gap)
    elif isinstance(gap, int) and gap < 0:
        raise ValueError(f"a gap of {gap} voxels is less than none")
    return gap


class LabelValues(Table):
    """What the numbers in a label file mean."""

    foreground: tuple[int, ...] | None = None
    """Values that are an object; they become 1, all others background. Left out: every value counts as it stands."""
    ignore: tuple[int, ...] = ()
    """Values that are left out of loss and scores, beside those that always are: the largest number of an unsigned file
    of 16 bits or more, and -1 in a signed one. 255 in a file of bytes is an id like others unless it is stated here."""


class Split(Table):
    """Parts of a volume that are not trained on: whole planes along one axis."""

    validation: PartOption | None = None
    """`"z:17-20"` (voxels, 20 excluded), `"z:0.7-0.85"` (fractions of the axis) or `"all"`."""
    test: PartOption | None = None
    """Scored once, at the end, with the best weights; written like `validation`."""
    gap: Annotated[int | str, AfterValidator(_checked_gap)] = "auto"
    """Left out of training at each face of the other parts: voxels, `"15 nm"`, or `"auto"`: as many as the
    window of the model crops."""


class VolumeTable(Table):
    """One labelled volume. Further keys are options of its reader."""

    model_config = ConfigDict(extra="allow")

    path: str
    """The image, `PATH[::KEY]`."""
    reader: str | None = None
    """Reader of the image; left out, the suffix of the path tells."""
    labels: str | dict[str, ComponentTable]
    """Object labels, `PATH[::KEY]`; or several by name, `{ instances = …, semantic = … }`."""
    label_values: LabelValues = LabelValues()
    """What the numbers in the label file mean."""
    valid: ComponentTable | None = None
    """Mask, `PATH[::KEY]`; voxels where it is 0 are left out of loss and scores."""
    split: Split = Split()
    """Which parts are for validation and test; the rest is for training."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often crops come from this volume, relative to the others."""

    @field_validator("labels")
    @classmethod
    def _known_names(cls, labels: str | dict[str, ComponentTable]) -> str | dict[str, ComponentTable]:
        unknown = [name for name in labels if name not in LABEL_KINDS] if isinstance(labels, dict) else []
        if unknown or not labels:
            named = " or ".join(map(repr, LABEL_KINDS))
            raise ValueError(f"label arrays are called {named}, not {(unknown or [''])[0]!r}")
        return labels

    @model_validator(mode="after")
    def _one_foreground(self) -> "VolumeTable":
        if self.label_values.foreground and isinstance(self.labels, dict) and len(self.labels) > 1:
            raise ValueError(f"label_values.foreground is for one label array, and there are {len(self.labels)}")
        return self
