"""What can change a bit of the model step on this machine: strips, resumes, regions, threads, batches.

    python benchmarks/determinism.py [--size 16 192 192] [--window 8 64 64] [--overlap 2 16 16] [--device cpu]

Every line compares the values of one head with those of a plain walk (whole section, batch 1, all threads), before they
are settled and after they are rounded to float16.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitocore.blockwise.tiles import TileLattice
from mitocore.geometry import Roi, as_shape
from mitocore.learn.predict import Inference, slab_boxes, slabs
from mitocore.specs import Window
from mitocore.volumes import installed


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(16, 192, 192), help="volume (z, y, x)")
    parser.add_argument("--window", type=int, nargs=3, default=(8, 64, 64), help="window of the network")
    parser.add_argument("--overlap", type=int, nargs=3, default=(2, 16, 16), help="overlap of tiles")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    arguments = parser.parse_args()
    window = Window(tuple(arguments.window), overlap=tuple(arguments.overlap))
    lattice = TileLattice(tuple(arguments.size), window)
    region = Roi(*(as_shape(n * part // 7 for n in lattice.volume) for part in (2, 5)))
    model = installed().find("model", "rsunet").load()(preset="anisotropic", widths=(8, 16, 24, 32))
    torch.manual_seed(0)
    network = model.build().to(arguments.device).eval()
    image = np.random.default_rng(0).standard_normal((1, *arguments.size), dtype=np.float32)

    def walk(
        *, lattice: TileLattice = lattice, finished: int = 0, seams: Path | None = None, **settings: Any
    ) -> NDArray[np.float32]:
        found = np.zeros((1, *lattice.volume), np.float32)
        inference = Inference(device=arguments.device, **settings)
        for slab in slabs(
            network, model.heads(), lambda roi: image[(slice(None), *roi.slices)], lattice, inference,
            finished=finished, seams=seams,
        ):  # fmt: skip
            found[(slice(None), *slab.roi.slices)] = slab.heads["foreground"]
        return found

    threads = torch.get_num_threads()
    print(f"{len(lattice)} tiles on {arguments.device}, torch {torch.__version__}, {threads} threads")
    for precision in ("float32", "bf16"):
        plain = walk(precision=precision)
        _line(precision, "the same again", walk(precision=precision), plain)
        with tempfile.TemporaryDirectory() as folder:
            _line(precision, "strips of one row", walk(precision=precision, rows=1, seams=Path(folder)), plain)
            boxes = slab_boxes(lattice, 1)
            half = len(boxes) // 2
            again = walk(precision=precision, rows=1, seams=Path(folder), finished=half)
            for box in boxes[:half]:  # what the first run had committed
                part = (slice(None), *box.within(Roi.whole(lattice.volume)))
                again[part] = plain[part]
            _line(precision, "killed half-way, resumed", again, plain)
        for batch in (1, 4):
            whole = plain if batch == 1 else walk(precision=precision, batch=batch)
            found = walk(lattice=TileLattice(lattice.volume, window, region), precision=precision, batch=batch)
            cut = (slice(None), *region.slices)
            _line(precision, f"a region, batch {batch}, and its cut", found[cut], whole[cut])
        if arguments.device == "cpu":
            torch.set_num_threads(1)
            _line(precision, "one thread", walk(precision=precision), plain)
            torch.set_num_threads(threads)
        for batch in (2, 4):
            _line(precision, f"batch {batch}", walk(precision=precision, batch=batch), plain)


def _line(precision: str, what: str, found: NDArray[np.float32], plain: NDArray[np.float32]) -> None:
    same, settled = np.array_equal(found, plain), np.array_equal(found.astype("f2"), plain.astype("f2"))
    words = "equal, bit for bit" if same else "equal once settled" if settled else "differs in last bits"
    print(f"{precision:8} {what:30} {words}; largest difference {np.abs(found - plain).max():.1e}")


if __name__ == "__main__":
    main()
