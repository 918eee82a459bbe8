"""What a step that gives objects leaves in the run folder, and what it goes on from."""

from dataclasses import dataclass

from mitocore.blockwise.workspace import Table, Workspace
from mitocore.durable import damaged


@dataclass(frozen=True, slots=True)
class Names:
    """The names of journals, tables and scratch of a Stitched or an Objectwise step.

    >>> names = Names("cc", early="0a", late="1b")
    >>> names.early_state, names.late_state, names.scratch
    (('cc.label.0a', 'cc.link.0a'), ('cc.final.1b', 'cc.relabel.1b'), ('cc.ids.0a',))
    """

    step: str
    early: str
    """Digest of all that provisional ids depend on."""
    late: str
    """Digest of that and of the options that only later passes read."""
    arrays: tuple[str, ...] = ()
    """The outputs of an Objectwise step; a Stitched step has none before its ids are final."""

    @property
    def label(self) -> str:
        """The journal of the pass that finds objects in blocks."""
        return f"{self.step}.label.{self.early}"

    @property
    def link(self) -> str:
        """The journal of the pass that joins them across blocks."""
        return f"{self.step}.link.{self.early}"

    @property
    def objects(self) -> str:
        """The journal of the pass over the objects of an Objectwise step."""
        return f"{self.step}.objects.{self.early}"

    @property
    def pieces(self) -> str:
        """The journal of the pass that joins tiles of oversize objects."""
        return f"{self.step}.pieces.{self.early}"

    @property
    def final(self) -> str:
        """The table of final ids."""
        return f"{self.step}.final.{self.late}"

    @property
    def relabel(self) -> str:
        """The journal of the pass that writes the outputs; an Objectwise step paints in it."""
        return f"{self.step}.relabel.{self.late}"

    @property
    def ids(self) -> str:
        """Scratch: ids in blocks."""
        return f"{self.step}.ids.{self.early}"

    @property
    def blocks(self) -> dict[str, str]:
        """Scratch, by output: what was found inside blocks."""
        return {array: f"{self.step}.blocks.{array}.{self.early}" for array in self.arrays}

    @property
    def parts(self) -> dict[str, str]:
        """Scratch, by output: what was found across blocks."""
        return {array: f"{self.step}.parts.{array}.{self.early}" for array in self.arrays}

    @property
    def early_state(self) -> tuple[str, ...]:
        """Journals of the passes that another late option does not repeat; they say that `scratch` is there."""
        both = self.label, self.link
        return (*both, self.objects, self.pieces) if self.arrays else both

    @property
    def late_state(self) -> tuple[str, ...]:
        """The table of final ids, and the journal of the pass that writes them."""
        return self.final, self.relabel

    @property
    def scratch(self) -> tuple[str, ...]:
        """All scratch but the outputs."""
        return self.ids, *self.blocks.values(), *self.parts.values()

    def ids_so_far(self, workspace: Workspace) -> Table | None:
        """The table of final ids, if it was saved.

        Raises
        ------
        RunError
            If it is damaged.
        """
        found = workspace.table(self.final)
        if found is not None and (found.ndim != 1 or found.dtype.kind not in "ui" or not len(found)):
            raise damaged(workspace.state(f"{self.final}.npy"))
        return found

    def written(self, workspace: Workspace, blocks: int) -> bool:
        """Whether the outputs of all blocks were written."""
        with workspace.journal(self.relabel) as journal:
            return len(journal.tables) == blocks

    def discard(self, workspace: Workspace) -> None:
        """Remove what only another late option would need."""
        for journal in self.early_state:
            workspace.forget(journal)  # before the scratch, which they say is there
        for array in self.scratch:
            workspace.discard(array)
