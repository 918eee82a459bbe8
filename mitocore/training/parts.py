"""Named parts of a network, which may be frozen or trained at a rate of their own."""

from collections.abc import Collection

from mitocore.config.optimisation import Train
from mitocore.errors import ConfigError


def check_parts(train: Train, known: Collection[str]) -> None:
    """Refuse names of parts that the network does not have.

    Raises
    ------
    ConfigError
        Naming the first of them, and the parts there are.
    """
    for option, names in (("freeze", train.freeze), ("rates", train.rates)):
        for name in names:
            if name not in known:
                problem = f"{option} names {name!r}, which is no part of the network"
                raise ConfigError(problem, where="[train]", hint=f"its parts are {', '.join(known)}")
