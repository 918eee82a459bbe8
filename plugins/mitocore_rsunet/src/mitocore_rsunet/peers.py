"""Option names and values of PyTorch Connectomics and Catena, in the words of this plugin."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

SMALL = {"thres_small": "min_size"}
SEEDED = {**SMALL, "thres1": "seed_threshold", "seed_thres": "min_seed_size"}


def translated(options: Any, names: Mapping[str, str]) -> Any:
    """Options under our names; `names` has ours by the peers'.

    `scale_factors` of ones is left out, as it asks for nothing.

    >>> translated({"thres1": 0.9, "thres_small": 64, "scale_factors": [1, 1, 1]}, SEEDED)
    {'seed_threshold': 0.9, 'min_size': 64}

    Raises
    ------
    ValueError
        If both names of an option are stated, or the result is to be scaled.
    """
    if not isinstance(options, Mapping):
        return options
    ours: dict[str, Any] = {}
    for name, value in options.items():
        if name == "scale_factors":
            _require_unscaled(value)
        elif (our := names.get(name, name)) in ours or (our != name and our in options):
            theirs = next(peer for peer in names if names[peer] == our and peer in options)
            raise ValueError(f"{our} and {theirs} are two names of one option; state one of them")
        else:
            ours[our] = value
    return ours


def _require_unscaled(factors: Any) -> None:
    if not isinstance(factors, list | tuple) or any(factor != 1 for factor in factors):
        raise ValueError(f"scale_factors = {factors!r} is not of this step: state scale_factors in [output]")


def _on_our_scale(value: float) -> float:
    if 1 < value <= 255 and (value == round(value) or value > 2):
        raise ValueError(
            f"{value:g} is a threshold on the scale 0-255; probabilities are 0 to 1 here: {value / 255:.3g} "
            f"({value:g}/255)"
        )
    if not 0 <= value <= 1:
        raise ValueError(f"{value:g} is not between 0 and 1, as probabilities are")
    return value


def _below_one(value: float) -> float:
    if _on_our_scale(value) == 1:
        raise ValueError("no probability is above 1; 0.9 is a high threshold")
    return value


def _above_zero(value: float) -> float:
    if _on_our_scale(value) == 0:
        raise ValueError("no probability is below 0; 1 keeps all but certain boundaries")
    return value


Above = Annotated[float, AfterValidator(_below_one)]
"""A threshold that probabilities are to be above: from 0 to less than 1."""
Below = Annotated[float, AfterValidator(_above_zero)]
"""A threshold that probabilities are to be below: more than 0, up to 1."""
