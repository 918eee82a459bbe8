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
    "`monai_segresnet` with `width = 8`": {"model": "monai_segresnet", "width": 8},
    "`fpn`": {"model": "fpn"},
    "`monai_attention_unet`": {"model": "monai_attention_unet"},
    "`unet3d`": {"model": "unet3d"},
    "`residual_unet`": {"model": "residual_unet"},
    '`residual_unet` with `block = "residual"`': {"model": "residual_unet", "block": "residual"},
    "`monai_segresnet`": {"model": "monai_segresnet"},
    "`residual_unet` with `edge = 5`, all levels isotropic": {
        "model": "residual_unet",
        "edge": 5,
        "isotropic": [True] * 5,
    },
    "`fpn` with `edge = 5`, all levels isotropic": {"model": "fpn", "edge": 5, "isotropic": [True] * 5},
    "`monai_swin_unetr`": {"model": "monai_swin_unetr"},
    "`residual_unet` with `plus = true`, widths 32 … 160": {
        "model": "residual_unet",
        "plus": True,
        "widths": [32, 64, 96, 128, 160],
    },
    "`monai_basic_unet`": {"model": "monai_basic_unet"},
    "`unet25d`": {"model": "unet25d"},
    '`rsunet`, anisotropic, `skips = "sum"`': {"model": "rsunet", "preset": "anisotropic", "skips": "sum"},
    "`rsunet`, anisotropic": {"model": "rsunet", "preset": "anisotropic"},
    "`rsunet` with `catena_compat = true`": {"model": "rsunet", "catena_compat": True},
    "`rsunet`, isotropic": {"model": "rsunet"},
    "`monai_swin_unetr` with `feature_size = 48`": {"model": "monai_swin_unetr", "feature_size": 48},
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
    swin = OPTIONS[name]["model"] == "monai_swin_unetr"
    if swin:
        shape[2] *= 2  # instance norm needs more than one voxel at the deepest level
    # MONAI's Swin looks at numbers while it is built, which a network without any has not
    with torch.device("cpu" if swin else "meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = model.build().eval()
        (logits,) = network(torch.zeros(1, 1, *shape)).values()
    assert sum(values.numel() for values in network.parameters()) == int(parameters.replace(",", ""))
    per_voxel = counter.get_total_flops() / 2 / logits[0, 0].numel() / 1000  # a flop is half a multiply-add
    padded = 0.08 if swin else 0.04  # windows of 7 voxels do not fit so small a box
    assert per_voxel == pytest.approx(int(work), rel=padded, abs=0.5)
