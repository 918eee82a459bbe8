"""The one hook a plugin implements."""

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mitocore.registry import Registry

hookspec = pluggy.HookspecMarker("mitocore")


@hookspec
def mitocore_register(registry: "Registry") -> None:
    """Declare components: ``registry.add(kind, name, "module:Class", summary)``. Import nothing heavy here."""
