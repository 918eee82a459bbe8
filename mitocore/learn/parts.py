"""Which tensors of a network belong to a named part, and which of them are frozen at a step."""

from collections.abc import Mapping

from torch import nn

from mitocore.config.optimisation import Train
from mitocore.errors import ConfigError, ContractError
from mitocore.interfaces import Model
from mitocore.training.parts import check_parts

Parts = Mapping[str, frozenset[str]]
"""Names of parameters and buffers by part, in the order of the parts."""


def parts_of(network: nn.Module, model: Model) -> Parts:
    """The parts that the model names; if it names none, the children of the network, looking through wrappers.

    Raises
    ------
    ContractError
        If a part that the model names holds no tensor.
    """
    names = list(network.state_dict())
    stated = model.parts()
    parts = {part: _under(names, prefixes) for part, prefixes in (stated or _children(network)).items()}
    for part in stated:
        if not parts[part]:
            problem = f"part {part!r} of {type(model).__name__} holds no tensor: none begins with {stated[part]}"
            raise ContractError(problem, hint="mend the model's parts()")
    return {part: tensors for part, tensors in parts.items() if tensors}


def _children(network: nn.Module) -> dict[str, tuple[str, ...]]:
    prefix, children = "", dict(network.named_children())
    while len(children) == 1:  # a wrapper, such as `Named`
        (name, only), inner = children.popitem(), {}
        inner = dict(only.named_children())
        if not inner or next(only.parameters(recurse=False), None) is not None:
            return {name: (prefix + name,)}
        prefix, children = f"{prefix}{name}.", inner
    return {name: (prefix + name,) for name in children}


def _under(names: list[str], prefixes: tuple[str, ...]) -> frozenset[str]:
    """Tensors whose dotted names begin with one of the prefixes, by whole words.

    >>> sorted(_under(["down.1.weight", "down.10.weight", "up.weight"], ("down.1", "up.weight")))
    ['down.1.weight', 'up.weight']
    """
    return frozenset(n for n in names if any(f"{n}.".startswith(f"{prefix.rstrip('.')}.") for prefix in prefixes))


def rate_of(tensor: str, parts: Parts, train: Train) -> float:
    """Learning rate of a tensor as a multiple of the stated one."""
    rate = 1.0
    for place, (part, tensors) in enumerate(reversed(list(parts.items()))):
        if tensor in tensors:
            rate *= train.rates.get(part, 1.0) * train.rate_decay**place
    return rate


class Freezing:
    """Keeps exactly the tensors of frozen parts as they are: parameters, and running statistics of norms.

    Raises
    ------
    ConfigError
        If a part is unknown, or nothing is left to train in the first step.
    """

    def __init__(self, network: nn.Module, parts: Parts, train: Train) -> None:
        check_parts(train, parts)
        self._parts, self._train = parts, train
        ever = self._tensors(train.freeze)
        self._parameters = [(name, p) for name, p in network.named_parameters() if name in ever]
        owners = [(f"{name}." if name else "", module) for name, module in network.named_modules()]
        buffers = [(m, [prefix + name for name, _ in m.named_buffers(recurse=False)]) for prefix, m in owners]
        self._modules = [(module, names) for module, names in buffers if ever.intersection(names)]
        self.hold(0)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            problem = "freeze leaves nothing to train in the first step"
            raise ConfigError(problem, where="[train]", hint="leave a part out of freeze")
        self.hold(train.steps)  # optimiser and DDP are shown all that is ever trained

    def hold(self, step: int) -> None:
        """Freeze what is frozen after `step` steps, and nothing else; a network in training mode has thawed it."""
        if not self._train.freeze:
            return
        thawed = {part for stage in self._train.unfreeze if stage.step <= step for part in stage.parts}
        frozen = self._tensors(tuple(part for part in self._train.freeze if part not in thawed))
        for name, parameter in self._parameters:
            parameter.requires_grad_(name not in frozen)
        for module, buffers in self._modules:
            module.training = not frozen.intersection(buffers)

    def _tensors(self, parts: tuple[str, ...]) -> frozenset[str]:
        return frozenset().union(*(self._parts[part] for part in parts))
