"""Worker processes from scripts as people write them: no `if __name__ == "__main__"`, whatever way they are started."""

import os
import subprocess
import sys

import numpy as np
import pytest

PARTS = """\
import os
from pathlib import Path

from mitocore import ArraySpec, Kind, LocalPostProcessor, Need, PathOption


class Noted(LocalPostProcessor):
    \"\"\"A mask of what is larger than half; notes which process computed it.\"\"\"

    folder: PathOption

    def needs(self):
        return {"values": Need((Kind.PROBABILITY,))}

    def gives(self, given):
        return {"mask": ArraySpec(Kind.MASK)}

    def halo(self):
        return (1, 1, 1)

    def process(self, block):
        Path(self.folder, str(os.getpid())).touch()
        return {"mask": block["values"] > 0.5}
"""

SCRIPT = """\
import os
import numpy as np
import mitocore
from parts import Noted

print("imported", flush=True)
os.mkdir("pids")
values = np.random.default_rng(0).random((8, 16, 16), np.float32)
pipeline = mitocore.Pipeline([mitocore.Step(Noted(folder="pids"))], engine="processes", workers=2, block=(4, 8, 8))
mask = pipeline.run(values, kind="probability").arrays()["noted.mask"]
np.testing.assert_array_equal(mask, values.astype("f2") > 0.5)
print(len(os.listdir("pids")), str(os.getpid()) in os.listdir("pids"))
"""

OWN = """\
import numpy as np
import mitocore
import parts

class Mine(parts.Noted):
    pass

pipeline = mitocore.Pipeline([mitocore.Step(Mine(folder="."))], engine="processes", workers=2, block=(4, 8, 8))
try:
    pipeline.run(np.zeros((8, 16, 16), np.float32), kind="probability")
except mitocore.ConfigError as error:
    print(error)
"""


def run(folder, *command, text=None):
    (folder / "parts.py").write_text(PARTS, "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, input=text, capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", [["script.py"], ["-m", "script"], ["-"]], ids=["file", "module", "stdin"])
def test_an_unguarded_script_runs_once_and_its_blocks_in_other_processes(tmp_path, command):
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    imported, pids = run(tmp_path, *command, text=SCRIPT)
    assert imported == "imported"
    workers, driver_worked = pids.split()
    assert 1 <= int(workers) <= 2
    assert driver_worked == "False"


def test_a_class_of_the_script_itself_is_refused_in_three_lines_that_say_what_to_do(tmp_path):
    (tmp_path / "script.py").write_text(OWN, "utf-8")
    lines = run(tmp_path, "script.py")
    assert len(lines) <= 3
    assert lines[0].startswith("Mine is defined in the script itself")
    assert 'engine = "threads"' in lines[-1]
    assert "module" in lines[-1]


def test_neither_engine_nor_format_changes_a_voxel(tmp_path):
    script = """\
import numpy as np
import mitocore
from mitocore.builtin.postprocess import Median, Threshold
from mitocore_rsunet.instances import ConnectedComponents

values = np.random.default_rng(0).random((12, 24, 24), np.float32)
np.save("values.npy", values)
components = {"median": Median(), "mask": Threshold(threshold=0.55), "cc": ConnectedComponents()}
steps = [mitocore.Step(component, name=name) for name, component in components.items()]
for engine, suffix in (("threads", "npy"), ("processes", "npy"), ("processes", "zarr")):
    pipeline = mitocore.Pipeline(steps, engine=engine, workers=2, block=(6, 12, 12))
    pipeline.run("values.npy", kind="probability", output=f"{engine}.{suffix}").close()
whole = mitocore.Pipeline(steps).run(values, kind="probability").arrays()["cc.instances"]
np.save("whole.npy", whole)
"""
    run(tmp_path, "-", text=script)
    from mitocore import Roi, open  # noqa: A004 - the name of the library

    whole = np.load(tmp_path / "whole.npy")
    assert whole.max() > 3
    for name in ("threads.npy", "processes.npy", "processes.zarr"):
        with open(tmp_path / name) as volume:
            np.testing.assert_array_equal(volume.read(Roi.whole(volume.spec.shape))[0], whole)
