"""Weights to and from files: safetensors with a header; foreign state dicts, once, without unpickling anything else."""

import pickle
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mitocore.component import File
from mitocore.durable import replaced
from mitocore.errors import ContractError, DataError
from mitocore.header import WeightsHeader, read_header
from mitocore.interfaces import Model

State = Mapping[str, Tensor]

_KEPT: dict[tuple[Any, ...], nn.Module] = {}
"""Networks that are ready for the next input, by all they depend on; those used longest ago come first."""
_MOST = 2  # a pipeline of two networks over many inputs loads each once
_LOCK = threading.Lock()
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network")
_PREFIXES = ("module.", "model.", "_orig_mod.")


def save_weights(path: Path, state: State, header: WeightsHeader) -> None:
    """Write tensors and header to one file; at any moment it is the old file or the new one.

    Raises
    ------
    ResourceError
        If the disk is full.
    DataError
        If the file cannot be written for another reason.
    """
    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    content = save(apart, {"mitocore": header.model_dump_json()})  # safetensors' own files are for one user only
    with replaced(path) as file:
        file.write(content)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises
    ------
    DataError
        If it is missing, truncated or of another format.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        hint = "fetch or copy it again; a .pth file is converted by `mitocore weights add`"
        raise DataError(f"{str(path)!r} is not a readable safetensors file: {error}", hint=hint) from error
    return state


def trained(model: Model, path: Path) -> nn.Module:
    """The network of a model with the tensors of a weights file, on the CPU, in evaluation mode.

    Raises
    ------
    DataError
        If the tensors do not fit the model.
    """
    network = None if path.suffix == ".safetensors" else model.load(str(path))
    if network is None:
        network = model.build()
        fill(network, load_weights(path), str(path))
    return network.eval()


@contextmanager
def ready(model: Model, path: Path, device: str) -> Iterator[nn.Module]:
    """The network of `trained` on a device, for as long as the block lasts.

    The last two are kept, so that a process loads a network once for many inputs; a file that changed is loaded again.
    While one is in use nobody else gets it: two runs at the same time have a network each.

    Raises
    ------
    DataError
        If the file cannot be read, or the tensors do not fit the model.
    """
    files = [path, *(Path(file) for option in sorted(model.marked(File)) if (file := getattr(model, option)))]
    key = type(model), model.model_dump_json(), device, *map(_identity, files)
    with _LOCK:
        network = _KEPT.pop(key, None)
    if network is None:
        network = trained(model, path).to(device)
    try:
        yield network.eval()
    finally:
        with _LOCK:
            _KEPT.pop(key, None)
            _KEPT[key] = network
            while len(_KEPT) > _MOST:
                del _KEPT[next(iter(_KEPT))]


def _identity(path: Path) -> tuple[str, int, int, int]:
    """What changes when a file is replaced or written to."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}", hint="was it moved while we ran?") from error
    return str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns


def fill(network: nn.Module, state: State, where: str) -> None:
    """Copy tensors into a network of exactly these names and shapes.

    Raises
    ------
    DataError
        Naming the first that are missing, unknown or of another shape.
    """
    if problems := _misfits(network, state):
        raise DataError(f"the weights do not fit the model: {problems}", where=where, hint="are they of another model?")
    network.load_state_dict(dict(state))


def convert(path: Path, target: Path, model: Model, header: WeightsHeader) -> None:
    """Turn a `.pth` state dict of another program into a weights file with a header.

    Tried are the tensors as they are and without the prefixes that wrappers add, each as `model.adapt` renames them.

    Raises
    ------
    DataError
        If the file holds more than tensors, or they fit the model in no such form.
    ContractError
        If `model.adapt` fails.
    """
    network, found = model.build(), unpickled(path)
    problems = []
    for state in variants(found):
        try:
            renamed = model.adapt(dict(state))
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ContractError(
                f"{header.component!r} cannot rename these tensors: {error!r}", where=str(path)
            ) from error
        if problem := _misfits(network, renamed):
            problems.append(problem)
        else:
            save_weights(target, renamed, header)
            return
    hint = "check the options of --model; `mitocore describe model NAME` lists them"
    raise DataError(f"the tensors fit {header.component!r} in no form: {problems[-1]}", where=str(path), hint=hint)


def update_header(path: Path, **fields: Any) -> None:
    """Replace fields of the header inside a safetensors file; the tensors stay."""
    save_weights(path, load_weights(path), read_header(path).model_copy(update=fields))


def _misfits(network: nn.Module, state: State) -> str:
    wanted = network.state_dict()
    groups = {
        "missing": [name for name in wanted if name not in state],
        "not of the model": [name for name in state if name not in wanted],
        "of another shape": [n for n in wanted if n in state and wanted[n].shape != state[n].shape],
    }
    texts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' * (len(names) > 3)})"
        for what, names in groups.items()
        if names
    ]
    return "; ".join(texts)


def unpickled(path: Path) -> State:
    """The tensors of a bare or wrapped state dict.

    Raises
    ------
    DataError
        If it cannot be read, or holds more than tensors.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        hint = "save its tensors alone: torch.save(network.state_dict(), …)"
        raise DataError(f"{str(path)!r} holds Python objects, which are never loaded", hint=hint) from error
    except (OSError, RuntimeError, EOFError, KeyError) as error:
        raise DataError(f"{str(path)!r} is not a readable state dict: {str(error).splitlines()[0]}") from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        names = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        hint = "save its tensors alone: torch.save(network.state_dict(), …)"
        raise DataError(f"{str(path)!r} holds no state dict, but: {names[:80]}", hint=hint)
    return found


def variants(state: State) -> Iterator[State]:
    """A state dict as it is, and without the prefixes that wrappers add to all names."""
    yield state
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        yield state
