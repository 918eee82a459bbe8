"""The model step of a run over bare forward passes on the same tiles, and over MONAI's sliding window.

    python benchmarks/model_step.py [--size 28 160 160] [--repeat 5] [--threads 2]

The network, its window and its overlap are those of the demo `mito`. All are measured in one process, in turn, and the
median of the ratios of each turn counts:

* step: the whole model step of a run. It reads, normalises, cuts, runs, blends, settles, writes scratch durably and
  keeps a journal.
* bare: a forward pass per tile of the lattice, each tile counted once; nothing else.
* MONAI: the same job with `sliding_window_inference` at the same window and overlap, batches of one: the volume is
  read and normalised, the result saved as float16 (not durably).

Wall time is what counts. The time of all threads on the processors says how far other programs got in the way; that of
"step" is of the whole run: planning and statistics too.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn

import mitocore
from mitocore.blockwise.tiles import TileLattice
from mitocore.geometry import Shape, as_shape
from mitocore.header import read_header
from mitocore.learn.checkpoint import trained
from mitocore.volumes import installed

PIPELINE = """
mitocore = 1
[input]
path = "raw.npy"
[[step]]
name = "net"
weights = "{weights}"
[run]
folder = "run-{turn}"
devices = "cpu"
"""


def main() -> None:
    """Print the seconds of each and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(28, 160, 160), help="volume (z, y, x)")
    parser.add_argument("--repeat", type=int, default=5, help="times each is measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape, weights = as_shape(arguments.size), _weights()
    header = read_header(weights)
    network = trained(installed().find("model", header.component).load()(**header.options), weights)
    lattice = TileLattice(shape, header.window)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "raw.npy", np.random.default_rng(0).integers(0, 255, shape, dtype="u1"))
        measured: dict[str, Callable[[int], float]] = {
            "bare": lambda _: _timed(lambda: _bare(network, lattice)),
            "step": lambda turn: _step(folder, weights, turn),
            "MONAI constant": lambda _: _timed(lambda: _monai(network, lattice, folder, "constant")),
            "MONAI gaussian": lambda _: _timed(lambda: _monai(network, lattice, folder, "gaussian")),
        }
        wall: dict[str, list[float]] = {name: [] for name in measured}
        processors: dict[str, list[float]] = {name: [] for name in measured}
        print(f"{len(lattice)} tiles of {lattice.tile} voxels, {torch.get_num_threads()} threads")
        for turn in range(arguments.repeat + 1):  # the first warms up
            for name, measure in measured.items():
                begin = time.process_time()
                seconds = measure(turn)
                if turn:
                    wall[name].append(seconds)
                    processors[name].append(time.process_time() - begin)
                    print(f"turn {turn}: {name:16} {seconds:7.2f} s", flush=True)
    print(f"medians of {arguments.repeat}:")
    for name in measured:
        print(f"{name:16} {statistics.median(wall[name]):7.2f} s   {statistics.median(processors[name]):7.2f} s of CPU")
    for other in ("bare", "MONAI constant", "MONAI gaussian"):
        ratios = [_ratio(times["step"], times[other]) for times in (wall, processors)]
        print(f"step / {other:16} {ratios[0]:.3f} by wall time, {ratios[1]:.3f} by CPU time")


def _weights() -> Path:
    spec = importlib.util.find_spec("mitocore_rsunet")
    places = (spec.submodule_search_locations or []) if spec else []
    return next(path for place in places for path in Path(place).glob("demos/mito/*.safetensors"))


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _timed(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@torch.inference_mode()
def _bare(network: nn.Module, lattice: TileLattice) -> None:
    tile = torch.rand((1, 1, *lattice.tile))
    for _ in range(len(lattice)):
        network(tile)


@torch.inference_mode()
def _monai(network: nn.Module, lattice: TileLattice, folder: Path, mode: str) -> None:
    passes = 0

    def predict(tile: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        logits: torch.Tensor = network(tile)["foreground"]
        return logits.sigmoid()

    shared: Shape = lattice.window.overlap
    overlap = tuple(v / n for v, n in zip(shared, lattice.tile, strict=True))
    raw = np.load(folder / "raw.npy").astype(np.float32)
    image = torch.from_numpy((raw - 127) / 74)[None, None]  # as in a run, the statistics are known before
    found = sliding_window_inference(image, lattice.tile, 1, predict, overlap, mode)
    np.save(folder / "monai.npy", found.numpy().astype(np.float16))
    if passes != len(lattice):
        raise SystemExit(f"MONAI cuts {passes} windows, the lattice {len(lattice)}: choose another --size")


def _step(folder: Path, weights: Path, turn: int) -> float:
    (folder / "pipeline.toml").write_text(PIPELINE.format(weights=weights.as_posix(), turn=turn), "utf-8")
    result = mitocore.load(folder / "pipeline.toml").run()
    return float(result.record["steps"]["net"]["seconds"])


if __name__ == "__main__":
    main()
