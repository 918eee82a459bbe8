"""A registry of chosen components, and none of those that happen to be installed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

from mitocore import volumes
from mitocore.component import Component
from mitocore.registry import Registry, discover


@contextmanager
def isolated_registry(
    components: Mapping[str, type[Component]] | None = None, *, plugin: str = "test"
) -> Iterator[Registry]:
    """Inside, mitocore knows its built-in components and these, by name, as those of a plugin; nothing installed.

    The classes are defined at the top of a module.

    >>> from mitocore.testing.minimal import Widen
    >>> with isolated_registry({"widen": Widen}) as registry:
    ...     registry.find("postprocessor", "widen").qualified, registry.names("model")
    ('test/widen', [])
    """
    with patch.dict("os.environ", {"MITOCORE_PLUGINS": "builtin"}):
        registry = discover()
    registry._plugin = plugin
    registry.versions[plugin] = "0"
    for name, component in (components or {}).items():
        summary = (component.__doc__ or "").strip().partition("\n")[0]
        registry.add(component.kind, name, f"{component.__module__}:{component.__qualname__}", summary)
    with patch.object(volumes, "discover", lambda: registry):
        volumes.installed.cache_clear()
        try:
            yield registry
        finally:
            volumes.installed.cache_clear()
