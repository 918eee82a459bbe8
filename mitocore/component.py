"""A component is its configuration: the frozen base of everything a plugin provides."""

import hashlib
from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict

from mitocore.errors import ContractError

KINDS = ("reader", "writer", "normalizer", "model", "loss", "target", "sampler", "augment", "postprocessor", "metric")
RESERVED = {*KINDS, "name", "inputs", "each_view", "predict", "weights", "rescale", "storage"}
OF_TABLE = {"reader": {"stats"}, "writer": {"save", "into", "scale"}}  # reserved for these kinds only


@dataclass(frozen=True)
class File:
    """Marks an option that names a file: resolved against the folder of the TOML file (in the library and on the
    command line, the current folder); left out of the digest, where the file's identity stands in."""


@dataclass(frozen=True)
class AtInference:
    """Marks an option of a model that its weights do not depend on, such as downsampling or fine boundaries:
    `Annotated[int, AtInference()]`. A step may state it; the comparison with the header leaves it out."""


PathOption = Annotated[str, File()]


class Component(BaseModel, ABC):
    """An extension and its configuration, in one frozen object.

    Fields are what the user writes in TOML. No tensor, open file or state: it can be compared, hashed, pickled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    kind: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name in cls.model_fields:
            hidden = next((base.__name__ for base in cls.__mro__[1:] if name in vars(base)), "")
            if hidden or name in RESERVED | OF_TABLE.get(getattr(cls, "kind", ""), set()):
                what = f"hides {hidden}.{name}" if hidden else "is a reserved word of its table"
                raise ContractError(f"option {name!r} of {cls.__name__} {what}", hint="rename the option")

    def digest(self) -> str:
        """A short, stable fingerprint of class and options, used to decide what a resumed run may keep."""
        text = self.model_dump_json(exclude=self.marked(File))
        text = f"{type(self).__module__}:{type(self).__qualname__}:{text}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def marked(cls, mark: type) -> set[str]:
        """Names of the options that carry a mark: `File` or `AtInference`."""
        return {
            name
            for name, field in cls.model_fields.items()
            if any(isinstance(m, mark) for m in (*field.metadata, *_inside(field.annotation)))
        }

    @classmethod
    def options(cls) -> dict[str, Any]:
        """JSON schema of the options; what `mitocore describe` prints."""
        return cls.model_json_schema()


def _inside(annotation: Any) -> Iterator[Any]:
    """Marks within a type, as in `PathOption | None`."""
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _inside(part)
