"""Discovery and lookup of components; a broken plugin is reported, never fatal."""

import difflib
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from mitocore import hookspecs
from mitocore.component import KINDS
from mitocore.errors import PluginError

API_GROUP = "mitocore.v1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One declared component: a name and where to import it from."""

    kind: str
    name: str
    target: str
    summary: str
    plugin: str
    suffixes: tuple[str, ...] = ()

    @property
    def qualified(self) -> str:
        """The name that is never ambiguous, "plugin/name"."""
        return f"{self.plugin}/{self.name}"

    def load(self) -> Any:
        """Import the target. The original import error is chained and shown."""
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            problem = f"{self.kind} {self.name!r} of plugin {self.plugin!r} does not load: {error!r}"
            hint = f"pip install --upgrade or mend the plugin {self.plugin!r}; `mitocore plugins` lists what works"
            raise PluginError(problem, where=self.target, hint=hint) from error


@dataclass(slots=True)
class Registry:
    """What the installed plugins declare."""

    entries: list[Entry] = field(default_factory=list)
    broken: dict[str, Exception] = field(default_factory=dict)
    """Plugins that could not be asked, with the reason."""
    versions: dict[str, str] = field(default_factory=dict)
    """Version of each plugin's distribution."""
    _plugin: str = ""

    def add(self, kind: str, name: str, target: str, summary: str = "", *, suffixes: tuple[str, ...] = ()) -> None:
        """Declare a component. `target` is "module:Class", not imported here; `suffixes` for readers and writers."""
        if kind not in KINDS:
            raise PluginError(f"{kind!r} is not a kind of component", hint=f"kinds: {', '.join(KINDS)}")
        self._declare(kind, name, target, summary, suffixes)

    def demo(self, name: str, target: str, summary: str = "") -> None:
        """Declare a demo; `target` is "package:folder" with a pipeline.toml and the weights it names."""
        self._declare("demo", name, target, summary)

    def names(self, kind: str) -> list[str]:
        """Names of a kind, sorted."""
        return sorted({entry.name for entry in self.entries if entry.kind == kind})

    def _declare(self, kind: str, name: str, target: str, summary: str, suffixes: tuple[str, ...] = ()) -> None:
        if any((e.kind, e.name, e.plugin) == (kind, name, self._plugin) for e in self.entries):
            raise PluginError(f"{kind} {name!r} is declared twice by {self._plugin!r}")
        self.entries.append(Entry(kind, name, target, summary, self._plugin, suffixes))

    def find(self, kind: str, name: str) -> Entry:
        """The component of a bare or qualified name.

        Raises
        ------
        PluginError
            If it is unknown (near miss suggested), or several plugins provide it.
        """
        plugin, _, bare = name.rpartition("/")
        hits = [e for e in self.entries if e.kind == kind and e.name == bare and plugin in ("", e.plugin)]
        if not hits and (blame := self._blame(plugin)):
            raise blame
        if not hits:
            have = self.names(kind)
            near = difflib.get_close_matches(bare, have, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"installed: {', '.join(have) or 'none'}"
            if self.broken and not near:
                hint = f"plugin {', '.join(self.broken)} does not load; `mitocore plugins` shows why"
            raise PluginError(f"no {kind} is called {name!r}", hint=hint)
        return _only(hits, f"{kind} {bare!r}")

    def _blame(self, plugin: str) -> PluginError | None:
        """The import error of a broken plugin that is asked for by name."""
        if plugin not in self.broken:
            return None
        return PluginError(f"plugin {plugin!r} does not load: {self.broken[plugin]!r}", hint="mitocore plugins")

    def find_for(self, kind: str, path: str) -> Entry:
        """The reader or writer of a path, by its longest declared suffix."""
        fits = [(len(s), e) for e in self.entries if e.kind == kind for s in e.suffixes if path.lower().endswith(s)]
        best = max((length for length, _ in fits), default=0)
        if not best:
            raise PluginError(f"no {kind} is known for {path!r}", hint=self._hint_for(kind, path))
        return _only([entry for length, entry in fits if length == best], f"{kind} of {path!r}")

    def _hint_for(self, kind: str, path: str) -> str:
        """What to type where no suffix tells what reads or writes a path."""
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - of an address, too
        slices = {"/", suffix}
        sliced = any(entry.kind == "reader" and slices <= set(entry.suffixes) for entry in self.entries)
        if kind == "writer" and suffix and sliced:
            return f"{path[: -len(suffix)]}/ writes a folder of slices"
        table = "input" if kind == "reader" else "output"
        return f'{kind} = "…" in [{table}], or --{kind} NAME of convert; `mitocore describe {kind}` lists them'


def _only(hits: list[Entry], what: str) -> Entry:
    if len(hits) > 1:
        hint = "write " + " or ".join(f'"{e.plugin}/{e.name}"' for e in hits)
        raise PluginError(f"{what} is provided by {len(hits)} plugins", hint=hint)
    return hits[0]


def discover(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Ask every installed plugin what it declares. Never raises: see `Registry.broken`."""
    manager, registry = pluggy.PluginManager("mitocore"), Registry()
    manager.add_hookspecs(hookspecs)
    allowed = os.environ.get("MITOCORE_PLUGINS")  # unset: all; "": none; "a,b": those
    wanted = None if allowed is None else {name.strip() for name in allowed.split(",")}
    found = entry_points(group=API_GROUP) if points is None else points
    unique = {(p.name, p.value): p for p in found}  # editable installs can list one twice
    for point in sorted(unique.values(), key=lambda p: p.name):
        if wanted is not None and point.name not in wanted:
            continue
        if manager.has_plugin(point.name):
            clash = PluginError(f"two installed packages call their plugin {point.name!r}", where=point.value)
            registry.broken[f"{point.name} ({point.value})"] = clash
            continue
        try:
            manager.register(point.load(), name=point.name)
        except Exception as error:  # noqa: BLE001 - a broken plugin must not take the others down
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)  # pluggy's register is not atomic
            registry.broken[point.name] = error
        else:
            registry.versions[point.name] = point.dist.version if point.dist else "0"
    for name, plugin in manager.list_name_plugin():
        registry._plugin, before = name, len(registry.entries)
        others = [p for p in manager.get_plugins() if p is not plugin]
        try:
            manager.subset_hook_caller("mitocore_register", others)(registry=registry)
        except Exception as error:  # noqa: BLE001
            del registry.entries[before:], registry.versions[name]
            registry.broken[name] = error
    return registry
