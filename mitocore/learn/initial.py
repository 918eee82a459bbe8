"""First tensors of a network from any file: those that fit are taken, and a report says which did not."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mitocore.errors import DataError
from mitocore.interfaces import Model
from mitocore.learn.checkpoint import State, load_weights, unpickled, variants

_LEAST = 0.05  # share of a network's numbers; less is a name that two networks have by chance


@dataclass(frozen=True)
class Report:
    """Names of tensors, by what became of them."""

    matched: tuple[str, ...]
    """Taken from the file."""
    missing: tuple[str, ...]
    """Of the network, and not in the file."""
    mismatched: tuple[str, ...]
    """In both, with different shapes."""
    unknown: tuple[str, ...]
    """In the file, and not of the network."""

    @property
    def numbers(self) -> dict[str, float]:
        """How many of each."""
        return {name: float(len(names)) for name, names in asdict(self).items()}

    def table(self) -> dict[str, Any]:
        """For a file."""
        return {name: list(names) for name, names in asdict(self).items()}


def take_initial(network: nn.Module, model: Model, path: Path) -> Report:
    """Fill a network with the tensors of a file that have the names and shapes of its own.

    The file is ours, or a state dict (`.pth`, `.pth.tar`, `.ckpt`), bare or in a wrapper. Tried are its tensors as they
    are and without the prefixes of wrappers, each also as `model.adapt` renames them; the form that fits best is taken.

    Raises
    ------
    DataError
        If the file cannot be read, holds more than tensors, or next to nothing of the network is in it.
    """
    found: State = load_weights(path) if path.suffix == ".safetensors" else unpickled(path)
    wanted = network.state_dict()
    forms = [form for state in variants(found) for form in _forms(state, model)]
    best = max(forms, key=lambda form: len(_fitting(form, wanted)))
    taken = _fitting(best, wanted)
    parameters = [name for name, _ in network.named_parameters()]
    if not set(taken).intersection(parameters):
        problem = f"no tensor of {str(path)!r} has the name and shape of one of the network"
        hint = f"it holds {_few(list(best))}; the network has {_few(parameters)}"
        raise DataError(problem, where="[model] initial", hint=hint)
    share = sum(wanted[name].numel() for name in taken) / sum(tensor.numel() for tensor in wanted.values())
    if share < _LEAST:
        problem = f"only {len(taken)} of the {len(wanted)} tensors of the network are in {str(path)!r}: {share:.1%}"
        raise DataError(problem, where="[model] initial", hint=f"is it of another network? it holds {_few(list(best))}")
    with torch.no_grad():
        for name in taken:
            wanted[name].copy_(best[name])
    return Report(
        matched=tuple(taken),
        missing=tuple(name for name in wanted if name not in best),
        mismatched=tuple(name for name in wanted if name in best and name not in taken),
        unknown=tuple(name for name in best if name not in wanted),
    )


def _forms(state: State, model: Model) -> list[State]:
    try:
        return [model.adapt(dict(state)), state]
    except (KeyError, ValueError, IndexError, AttributeError):  # adapt may expect the file of one program only
        return [state]


def _fitting(state: State, wanted: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in wanted.items() if name in state and state[name].shape == tensor.shape]


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + ", …" * (len(names) > 2)
