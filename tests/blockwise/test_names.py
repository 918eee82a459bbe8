"""What steps that give objects leave in their run folder has the names that are asked for, and no others."""

import numpy as np
import pytest

from mitocore import ArraySpec, Kind, Lattice, Roi, RunError
from mitocore.blockwise.grid import BlockGrid
from mitocore.blockwise.names import Names
from mitocore.testing.minimal import Components, Flood

pytestmark = pytest.mark.usefixtures("no_power_is_lost")

GRID = BlockGrid(Roi.whole((6, 6, 6)), (3, 6, 3))


def left(folder, part):
    return {path.stem if part == "state" else path.name for path in (folder / part).iterdir()}


@pytest.mark.parametrize("scope", ["stitched", "objectwise"])
@pytest.mark.parametrize("keep_ids", [False, True])
def test_names_are_those_of_all_files_of_a_step(tmp_path, at_work, job, scope, keep_ids):
    values = np.ones((1, 6, 6, 6), np.float32)
    if scope == "stitched":
        work = job(Components(), {"mask": values > 0}, {"mask": ArraySpec(Kind.MASK)}, GRID)
    else:
        step = Flood(oversize="tile", largest=8, tiles=Lattice((3, 3, 3), (0, 0, 0)))
        work = job(step, {"probability": values}, {"probability": ArraySpec(Kind.PROBABILITY)}, GRID)
    names = Names("step", "e", "l", tuple(work.gives) if scope == "objectwise" else ())
    with at_work(tmp_path) as workspace:
        getattr(work, scope)(workspace, keep_ids=keep_ids)
    assert left(tmp_path, "state") == {*names.late_state, *(names.early_state if keep_ids else ())}
    assert left(tmp_path, "scratch") == {"out.instances.l", *(names.scratch if keep_ids else ())}


@pytest.mark.parametrize("table", [np.zeros(0, "u8"), np.zeros((2, 2), "u8"), np.zeros(3, "f4")])
def test_a_table_that_holds_no_ids_is_damaged(tmp_path, at_work, job, table):
    work = job(Components(), {"mask": np.ones((1, 6, 6, 6), bool)}, {"mask": ArraySpec(Kind.MASK)}, GRID)
    with at_work(tmp_path) as workspace:
        work.stitched(workspace)
        workspace.save("step.final.l", table)
        with pytest.raises(RunError, match=r"'step\.final\.l\.npy' is damaged"):
            work.stitched(workspace)
