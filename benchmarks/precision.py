"""Forward passes of the shipped networks in float32 and in bf16, side by side on one device.

    python benchmarks/precision.py [--device cpu] [--window 16 64 64] [--repeat 7] [--threads 2]

The evidence for what `precision = "auto"` means: it must say bf16 where the last column is above 1, and float32 where
it is below. Weights are random: they change neither the work nor its time.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from mitocore.learn.device import chosen
from mitocore.learn.predict import precision_of
from mitocore.volumes import installed

NETWORKS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "rsunet, widths of the demo": ("rsunet", {"preset": "anisotropic", "widths": (16, 16, 24, 32)}),
    "rsunet, its defaults": ("rsunet", {}),
    "monai_unet, its defaults": ("monai_unet", {}),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:0")
    parser.add_argument("--window", type=int, nargs=3, default=(16, 64, 64), help="window of the networks")
    parser.add_argument("--repeat", type=int, default=7, help="times each is measured, in turn; the median counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on a CPU")
    arguments = parser.parse_args()
    device = chosen(arguments.device)
    torch.set_num_threads(arguments.threads)
    said = precision_of("auto", device)
    print(f'torch {torch.__version__} on {_name(device)}; precision = "auto" means {said}')
    print(f"{'network':28} {'float32':>9} {'bf16':>9}   float32 / bf16")
    image = torch.rand((1, 1, *arguments.window), device=device)
    for name, (component, options) in NETWORKS.items():
        network = installed().find("model", component).load()(**options).build().to(device).eval()
        seconds: dict[str, list[float]] = {"float32": [], "bf16": []}
        for turn in range(arguments.repeat + 2):  # the first two warm up
            for precision, found in seconds.items():
                passed = _forward(network, image, precision)
                if turn > 1:
                    found.append(passed)
        full, half = (statistics.median(found) for found in seconds.values())
        print(f"{name:28} {full:7.3f} s {half:7.3f} s   {full / half:.2f}")


def _name(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads"


@torch.inference_mode()
def _forward(network: nn.Module, image: Tensor, precision: str) -> float:
    _finished(image.device)
    begin = time.perf_counter()
    with torch.autocast(image.device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
        network(image)
    _finished(image.device)
    return time.perf_counter() - begin


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
