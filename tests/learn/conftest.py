import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitocore.builtin import plugin
from mitocore.config.toml import Document
from mitocore.registry import Registry
from mitocore.training import TrainingPlan, plan_training

sys.path.insert(0, str(Path(__file__).parent))  # spawned workers inherit it and find tiny_net


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny networks are slower on several threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry._plugin = "builtin"
    plugin.mitocore_register(registry)
    registry._plugin = "tiny"
    registry.add("model", "tinynet", "tiny_net:TinyNet")
    registry.add("model", "plainnet", "tiny_net:PlainNet")
    registry.add("model", "partednet", "tiny_net:PartedNet")
    registry.add("augment", "wide", "tiny_net:Wide")
    registry.add("augment", "shrinking", "tiny_net:Shrinking")
    registry.add("target", "near", "tiny_net:Near")
    registry.add("normalizer", "plane_mean", "tiny_net:PlaneMean")
    return registry


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    """A training of 8 steps on a volume of bright balls."""
    rng = np.random.default_rng(3)
    z, y, x = np.ogrid[:24, :32, :32]
    truth = np.zeros((24, 32, 32), np.uint8)
    for number, (a, b, c) in enumerate([(4, 8, 8), (12, 22, 10), (18, 12, 22), (22, 25, 25)], 1):
        truth[(z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 < 25] = number
    image = np.where(truth > 0, 150, 90) + rng.normal(0, 12, truth.shape)
    np.save(tmp_path / "raw.npy", image.clip(0, 255).astype(np.uint8))
    np.save(tmp_path / "truth.npy", truth)
    return {
        "mitocore": 1,
        "seed": 5,
        "model": "tinynet",
        "normalizer": "zscore",
        "volume": [{"path": "raw.npy", "labels": "truth.npy", "split": {"validation": "z:16-24", "gap": 1}}],
        "augment": ["flip_rotate", "contrast"],
        "objective": [{"head": "foreground", "target": "foreground", "loss": "dice_ce"}],
        "train": {"steps": 8, "validate_every": 4, "devices": "cpu", "folder": "run", "batch": 2, "pictures": False},
    }


@pytest.fixture
def planned(tables: dict[str, Any], registry: Registry, tmp_path: Path) -> Callable[..., TrainingPlan]:
    """Plans the training, with some keys of [train] and other tables replaced."""

    def plan(train: dict[str, Any] | None = None, **more: Any) -> TrainingPlan:
        data = {**tables, **more, "train": {**tables["train"], **(train or {})}}
        return plan_training(Document(data, tmp_path / "train.toml"), registry)

    return plan
