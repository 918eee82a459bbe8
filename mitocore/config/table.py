"""What the tables of `train.toml` share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

ComponentTable = str | dict[str, Any]
"""A component: its name alone, or a table with its options; built when the training is planned."""
Voxels = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """Base of the tables: no unknown keys, frozen, documented."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True)
