"""The numbers on the page about backbones are those of the networks."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mitocore.config.components import build
from mitocore.volumes import installed

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "choose-a-backbone.md"
ROW = re.compile(r"^\| (`\w+`.*?) \| (\d+) \| ([\d,]+) \|$", re.MULTILINE)
OPTIONS: dict[str, dict[str, Any]] = {
    "`monai_unet`": {"model": "monai_unet"},
    "`unet3d`": {"model": "unet3d"},
    "`residual_unet`": {"model": "residual_unet"},
    "`residual_unet` with `edge = 5`, all levels isotropic": {
        "model": "residual_unet",
        "edge": 5,
        "isotropic": [True] * 5,
    },
    "`residual_unet` with `plus = true`, widths 32 … 160": {
        "model": "residual_unet",
        "plus": True,
        "widths": [32, 64, 96, 128, 160],
    },
    "`unet25d`": {"model": "unet25d"},
    "`rsunet`, anisotropic": {"model": "rsunet", "preset": "anisotropic"},
    "`rsunet`, isotropic": {"model": "rsunet"},
}


def test_the_table_lists_these_networks_from_the_cheapest_on() -> None:
    rows = ROW.findall(PAGE.read_text("utf-8"))
    assert [name for name, _, _ in rows] == list(OPTIONS)
    assert [int(work) for _, work, _ in rows] == sorted(int(work) for _, work, _ in rows)


@pytest.mark.parametrize(("name", "work", "parameters"), ROW.findall(PAGE.read_text("utf-8")))
def test_a_network_has_so_many_parameters_and_multiplications(name: str, work: str, parameters: str) -> None:
    model: Any = build("model", OPTIONS[name], installed())[0]
    crop, divisor = model.window().crop, model.window().divisor
    shape = [2 * c + max(1, 32 // d) * d if not c else 2 * c + 1 for c, d in zip(crop, divisor, strict=True)]
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = model.build().eval()
        (logits,) = network(torch.zeros(1, 1, *shape)).values()
    assert sum(values.numel() for values in network.parameters()) == int(parameters.replace(",", ""))
    per_voxel = counter.get_total_flops() / 2 / logits[0, 0].numel() / 1000  # a flop is half a multiply-add
    assert per_voxel == pytest.approx(int(work), rel=0.04, abs=0.5)
