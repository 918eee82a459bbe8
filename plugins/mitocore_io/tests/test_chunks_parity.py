"""Tiles and the grid of chunks against recorded outputs of PyTorch Connectomics."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitocore import DataError, Roi
from mitocore_io.chunk_names import chunk_of, missing_of, refuse_overlaps
from mitocore_io.tiles_reader import TilesReader

SHARED = Path(__file__).parents[4] / "shared" / "parity" / "connectomics"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the recorded outputs are not on this machine")


def chunks_of(boxes):
    return [chunk_of(Path("out") / f"result_{'-'.join(map(str, box))}.h5") for box in boxes]


def test_chunks_of_inference_are_one_volume_and_those_of_training_overlap():
    seen = set()
    for case in json.loads((SHARED / "tiling_expected.json").read_text())["tile_chunks"]:
        stated, boxes = case["args"], list(case["chunk_id_to_z0z1y0y1x0x1"].values())
        if len(boxes) < np.prod(stated["num"]):
            continue  # only some of the grid were recorded
        seen.add(stated["mode"])
        chunks = chunks_of(boxes)
        z0, z1, y0, y1, x0, x1 = stated.get("coord", (0, stated["depth"], 0, stated["h"], 0, stated["w"]))
        whole = Roi((z0, y0, x0), (z1, y1, x1))
        if stated["mode"] == "test":
            refuse_overlaps(chunks, "out")
            assert missing_of(chunks, whole) == ""
            assert missing_of(chunks[1:], whole) == "-".join(map(str, boxes[0]))
        else:
            with pytest.raises(DataError, match="overlap"):
                refuse_overlaps(chunks, "out")
    assert seen == {"test", "train"}


def test_boxes_of_tiles_are_those_the_peer_reads(tmp_path):
    with np.load(SHARED / "tile2volume_v1.npz") as arrays:
        full = arrays["full"]
        boxes = [(arrays[f"coord_{number}"], arrays[f"out_{number}"]) for number in range(4)]
    depth, height, width = full.shape
    for z, y, x in np.ndindex(depth, -(-height // 32), -(-width // 32)):
        tile = full[z, y * 32 : y * 32 + 32, x * 32 : x * 32 + 32]
        Image.fromarray(tile).save(tmp_path / f"{z}_{y}_{x}.png")
    stated = {"height": height, "width": width, "tile_size": 32, "depth": depth, "ndim": 1, "dtype": "uint8"}
    stated["image"] = [f"{z}_{{row}}_{{column}}.png" for z in range(depth)]
    (tmp_path / "im.json").write_text(json.dumps(stated))
    with TilesReader(path=str(tmp_path / "im.json")).open() as volume:
        for coord, wanted in boxes:
            start, stop = np.maximum(coord[::2], 0), np.minimum(coord[1::2], full.shape)
            beyond = list(zip(start - coord[::2], coord[1::2] - stop, strict=True))
            inside = volume.read(Roi(tuple(map(int, start)), tuple(map(int, stop))))[0]
            np.testing.assert_array_equal(np.pad(inside, beyond, mode="reflect"), wanted)
