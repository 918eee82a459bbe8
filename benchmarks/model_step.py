"""The model step of a run over the bare forward passes on the same lattice, each tile counted once.

    python benchmarks/model_step.py [--size 32 384 384] [--window 16 128 128] [--overlap 4 32 32] [--repeat 3]

Both are measured in one process, in turn, on the same tiles; the network has random weights. "step" is the whole model
step: reading, normalising, cutting, forward passes, blending, settling, writing scratch durably, journal.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import mitocore
from mitocore.blockwise.tiles import TileLattice
from mitocore.header import WeightsHeader
from mitocore.learn.checkpoint import save_weights, trained
from mitocore.specs import Window
from mitocore.volumes import installed


def main() -> None:
    """Print the seconds of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(32, 384, 384), help="volume (z, y, x)")
    parser.add_argument("--window", type=int, nargs=3, default=(16, 128, 128), help="window of the network")
    parser.add_argument("--overlap", type=int, nargs=3, default=(4, 32, 32), help="overlap of tiles")
    parser.add_argument("--repeat", type=int, default=3, help="times each is measured")
    arguments = parser.parse_args()
    window = Window(tuple(arguments.window), overlap=tuple(arguments.overlap))
    model = installed().find("model", "rsunet").load()(preset="anisotropic", widths=(8, 16, 24, 32))
    lattice = TileLattice(tuple(arguments.size), window)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rng = np.random.default_rng(0)
        np.save(folder / "raw.npy", rng.integers(0, 255, arguments.size, dtype="u1"))
        header = WeightsHeader(
            component="rsunet/rsunet",
            options=model.model_dump(mode="json"),
            channels=model.channels(),
            heads=model.heads(),
            window=window,
            normalizer={"normalizer": "builtin/zscore"},
        )
        torch.manual_seed(0)
        save_weights(folder / "net.safetensors", model.build().state_dict(), header)
        network = trained(model, folder / "net.safetensors")
        ratios = []
        for turn in range(arguments.repeat + 1):  # the first warms up
            bare = _bare(network, lattice)
            step = _step(folder, turn)
            if turn:
                ratios.append(step / bare)
                print(f"{len(lattice)} tiles: bare {bare:.2f} s, step {step:.2f} s, ratio {step / bare:.3f}")
        print(f"model step / bare forward passes: {statistics.median(ratios):.3f} (median of {len(ratios)})")


def _bare(network: torch.nn.Module, lattice: TileLattice) -> float:
    tile = torch.rand((1, 1, *lattice.tile))
    begin = time.perf_counter()
    with torch.inference_mode():
        for _ in range(len(lattice)):
            network(tile)
    return time.perf_counter() - begin


def _step(folder: Path, turn: int) -> float:
    text = f"""
mitocore = 1
[input]
path = "raw.npy"
[[step]]
name = "net"
weights = "./net.safetensors"
[run]
folder = "run-{turn}"
"""
    (folder / "pipeline.toml").write_text(text, "utf-8")
    result = mitocore.load(folder / "pipeline.toml").run()
    return float(result.record["steps"]["net"]["seconds"])


if __name__ == "__main__":
    main()
