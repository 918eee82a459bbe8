"""Results at another resolution, chunk files in, a challenge's submission out: as a person asks for them."""

import json

import h5py
import numpy as np
import pytest

from mitocore import ArraySpec, Kind, LocalPostProcessor, Need, Pipeline, load
from mitocore.builtin.postprocess import Threshold
from mitocore.errors import ConfigError, DataError
from mitocore.geometry import Roi
from mitocore.volumes import open_volume


def whole(place):
    with open_volume(place) as volume:
        return volume.spec, volume.read(Roi.whole(volume.spec.shape))[0]


@pytest.fixture
def halved(work):
    text = (work / "seg.toml").read_text()
    (work / "half.toml").write_text(
        text.replace('path = "out.zarr"', 'path = "half.zarr"\nscale_factors = [1, 0.5, 0.5]')
    )
    return work


def test_a_run_writes_its_result_at_the_resolution_that_is_asked_for(halved, succeeds, refused):
    succeeds("run", "seg.toml")
    assert "4 objects" in succeeds("run", "half.toml")
    _, full = whole("out.zarr::cells.instances")
    spec, half = whole("half.zarr::cells.instances")
    assert (spec.shape, spec.voxel_size.edges) == ((24, 20, 20), (8, 16, 16))
    np.testing.assert_array_equal(half, full[:, 1::2, 1::2])
    record = (halved / "runs/half/record.json").read_text()
    succeeds("run", "half.toml")
    assert (halved / "runs/half/record.json").read_text() == record
    other = ("--set", "output.scale_factors=[1,0.25,0.25]")
    text = refused(5, "run", "half.toml", *other)
    assert "of shape (24, 20, 20), where (24, 10, 10) will be written" in text or "[24, 10, 10] will be written" in text
    succeeds("run", "half.toml", *other, "--set", "output.path=quarter.zarr")
    np.testing.assert_array_equal(whole("quarter.zarr::cells.instances")[1], full[:, 2::4, 2::4])


def test_an_output_that_was_begun_at_another_resolution_is_continued(halved, succeeds, monkeypatch):
    monkeypatch.setattr("mitocore.blockwise.passes._BOX", 3000)
    succeeds("run", "seg.toml")

    def interrupt(label, done, _total):
        if label == "output" and done:
            raise KeyboardInterrupt

    planned = load("half.toml", ['output.path="half.h5"'])
    with pytest.raises(KeyboardInterrupt):
        planned.run(progress=interrupt)
    assert not (halved / "half.h5").exists()
    seen = []
    with planned.run(progress=lambda label, done, total: seen.append((label, done, total))) as result:
        half = result.arrays()["cells.instances"]
    assert next(done for label, done, _ in seen if label == "output") > 0
    np.testing.assert_array_equal(half, whole("out.zarr::cells.instances")[1][:, 1::2, 1::2])


def test_all_arrays_of_a_region_are_scaled_and_lie_at_their_place(halved, succeeds):
    region, saved = ("--roi", "4:20,1:40,:"), ("--set", 'output.save=["all"]')
    succeeds("run", "seg.toml", *saved, *region)
    succeeds("run", "half.toml", *saved, *region, "--set", "output.path=part.h5")
    (full, mask), (spec, half) = (whole(f"{path}::threshold.mask") for path in ("out.zarr", "part.h5"))
    assert (full.origin, spec.origin) == (
        (32, 8, 0),
        (32, 0, 0),
    )  # the middle of voxel 0 lies at the face of the region
    assert half.dtype == bool
    np.testing.assert_array_equal(half, mask[:, ::2, 1::2])
    np.testing.assert_array_equal(
        whole("part.h5::cells.instances")[1] > 0, whole("out.zarr::cells.instances")[1][:, ::2, 1::2] > 0
    )


def test_probabilities_become_means(work, succeeds):
    succeeds("convert", "prob.npy", "p.npy", "--kind", "probability", "--scale", "1,0.5,0.5")
    found, exact = np.load("p.npy"), np.load("prob.npy").reshape(24, 20, 2, 20, 2).mean((2, 4))
    np.testing.assert_allclose(found, exact, atol=1e-6)


@pytest.mark.parametrize("stated", ["0.5", "[1,2]", "[0,1,1]"])
def test_factors_that_are_none_are_refused(halved, refused, stated):
    assert "is not three factors" in refused(3, "run", "half.toml", "--set", f"output.scale_factors={stated}")


def test_a_resolution_at_which_nothing_is_left_is_refused_before_anything_is_computed(halved, refused):
    text = refused(5, "validate", "half.toml", "--set", "output.scale_factors=[0.01,1,1]")
    assert "'cells.instances': (0.01, 1.0, 1.0) times the resolution leaves nothing" in text
    assert not (halved / "half.zarr").exists()


def test_validate_says_the_resolution_of_the_output_and_its_shape(halved, succeeds):
    assert "1, 0.5, 0.5 times the resolution: (24, 20, 20) voxels of 8 x 16 x 16 nm" in succeeds(
        "validate", "half.toml"
    )


def test_affinities_at_another_resolution_are_refused_before_anything_is_computed(tmp_path):
    class Neighbours(LocalPostProcessor):
        """Whether voxels and the ones before them are alike."""

        def needs(self):
            return {"image": Need((Kind.IMAGE,))}

        def gives(self, given):
            return {"pairs": ArraySpec(Kind.AFFINITY, ("z",), offsets=((-1, 0, 0),))}

        def process(self, block):
            raise RuntimeError("nothing is computed")

    pipeline, image, target = Pipeline([Neighbours()]), np.zeros((4, 4, 4), "u1"), tmp_path / "a.zarr"
    with pytest.raises(DataError, match=r"'neighbours\.pairs': affinity values speak of voxels of one size"):
        pipeline.plan(image, output=target, scale_factors=(1, 0.5, 0.5))
    with pytest.raises(ConfigError, match="without an output"):
        pipeline.plan(image, scale_factors=(1, 0.5, 0.5))


def test_a_pipeline_in_python_takes_factors_of_its_output(work, tmp_path):
    options = {"kind": "probability", "voxel_size": 8, "output": tmp_path / "mask.zarr", "scale_factors": (1, 0.5, 0.5)}
    with Pipeline([Threshold()]).run(np.load("prob.npy"), **options) as result:
        assert result["threshold.mask"].spec.shape == (24, 20, 20)
        again = result.rerun({"threshold.threshold": 0.4})
        assert again["threshold.mask"].spec.shape == (24, 40, 40)


@pytest.fixture
def chunks(work):
    """prob.npy as uint8 in the chunk files of a prediction."""
    values = np.rint(np.load("prob.npy") * 255).astype("u1")
    np.save("whole.npy", values)
    (work / "chunks").mkdir()
    for z in (0, 12):
        for x in (0, 20):
            with h5py.File(work / "chunks" / f"result_{z}-{z + 12}-0-40-{x}-{x + 20}_xy.h5", "w") as file:
                file.create_dataset("vol0", data=values[None, z : z + 12, :, x : x + 20], compression="gzip")
    return values


def test_chunks_are_merged_and_segmented_as_they_are(work, chunks, succeeds):
    printed = succeeds("convert", "chunks", "merged.zarr", "--reader", "chunks", "--kind", "probability")
    assert "24 x 40 x 40" in printed
    np.testing.assert_array_equal(whole("merged.zarr")[1], chunks)
    assert "24 x 40 x 40" in succeeds("convert", "chunks/result_*_xy.h5", "some.zarr", "--reader", "chunks")
    for name, path in (("a", "whole.npy"), ("b", "chunks/*.h5")):
        places = (f"input.path={path}", f"output.path={name}.zarr", f"run.folder={name}")
        assert "4 objects" in succeeds("run", "seg.toml", *(part for place in places for part in ("--set", place)))
    np.testing.assert_array_equal(whole("b.zarr::cells.instances")[1], whole("a.zarr::cells.instances")[1])


def test_folders_of_chunks_are_the_volumes_of_a_batch(work, chunks, succeeds):
    source = ("--set", "input.path=chunks", "--set", "input.reader=chunks")
    succeeds("run", "seg.toml", *source, "--set", "output.path=segmented/{stem}.zarr")
    assert [path.name for path in (work / "segmented").iterdir()] == ["chunks.zarr"]


def test_a_chunk_that_is_cut_short_is_refused_and_named(work, chunks, refused):
    path = work / "chunks" / "result_12-24-0-40-0-20_xy.h5"
    path.write_bytes(path.read_bytes()[:-500])
    for command in (("convert", "chunks/*.h5", "merged.zarr"), ("run", "seg.toml", "--set", "input.path=chunks/*.h5")):
        text = refused(5, "-q", *command)
        assert path.name in text
        assert "run the prediction of this chunk again" in text
    assert not (work / "merged.zarr").exists()
    text = refused(5, "-q", "convert", "chunks/result_*_xy.h5", "merged.zarr")
    assert "a pattern of the files of one volume: --reader chunks" in text
    path.unlink()
    assert "chunks are missing: 12-24-0-40-0-20" in refused(5, "-q", "convert", "chunks/*.h5", "merged.zarr")
    assert '"chunks/*.h5" for its chunks as one volume' in refused(5, "-q", "convert", "chunks", "merged.zarr")


def test_instances_become_a_submission_of_the_mitoem_challenge(work, succeeds, refused):
    succeeds("run", "seg.toml")
    succeeds("convert", "out.zarr::cells.instances", "1_rat_instance_seg_pred.h5::main", "--dtype", "uint16")
    with h5py.File("1_rat_instance_seg_pred.h5") as file:
        assert list(file) == ["main"]
        assert (file["main"].shape, file["main"].dtype, file["main"].compression) == ((24, 40, 40), "uint16", "gzip")
        np.testing.assert_array_equal(file["main"][:], whole("out.zarr::cells.instances")[1])
    np.save("many.npy", np.array([[[1, 70_000]]], "u4"))
    text = refused(5, "-q", "convert", "many.npy", "s.h5::main", "--kind", "instance", "--dtype", "uint16")
    assert "'many.npy' holds id 70000; uint16 holds ids from 0 to 65534" in text
    assert (
        json.loads(succeeds("evaluate", "1_rat_instance_seg_pred.h5::main", "truth.npy", "--json"))["voxel"]["iou"] == 1
    )


@pytest.mark.parametrize(
    ("channels", "kind", "said", "hint"),
    [
        (2, "probability", "needs a probability array", 'inputs = { foreground = "input.image:0" }'),
        (2, "image", "above it are only input.image (image)", 'kind = "probability" in [input]'),
        (1, "probability", "both for 'foreground' and for 'boundary'", 'inputs = { foreground = "step.array"'),
    ],
)
def test_a_prediction_whose_channels_nobody_named_is_refused_with_what_to_type(
    work, refused, channels, kind, said, hint
):
    np.save("prediction.npy", np.zeros((channels, 4, 8, 8), "f4"))
    (work / "bc.toml").write_text(
        f'mitocore = 1\n[input]\npath = "prediction.npy"\nkind = "{kind}"\n[[step]]\npostprocessor = "bc_watershed"\n'
    )
    text = refused(3, "validate", "bc.toml")
    assert said in text
    assert hint in text
