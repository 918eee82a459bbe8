"""Zarr: which array is meant, OME-NGFF metadata, and the levels that are written."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import zarr
import zarr.storage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitocore import DataError, Kind, Roi, VolumeSpec, VoxelSize
from mitocore_io.zarr_reader import ZarrReader
from mitocore_io.zarr_writer import ZarrWriter


def add(group, path, shape=(4, 16, 16), dtype="uint8", **attributes):
    array = group.create_array(path, shape=shape, dtype=dtype, chunks=tuple(min(n, 8) for n in shape))
    array[:] = np.arange(np.prod(shape)).reshape(shape)
    array.update_attributes(attributes)
    return array


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    return zarr.open_group(str(tmp_path / "em.zarr"), mode="w", zarr_format=request.param), str(tmp_path / "em.zarr")


def test_catena_layout_opens_raw_without_a_key_and_labels_by_theirs(store):
    group, path = store
    add(group, "volumes/raw", resolution=[50, 4, 4], offset=[100, 0, 8])
    add(group, "volumes/labels/mito_ids", dtype="uint64", resolution=[50, 4, 4], offset=[0, 0, 0])
    add(group, "volumes/labels/neuron_ids", dtype="uint64")
    raw = ZarrReader(path=path).open().spec
    assert (raw.dtype, raw.voxel_size, raw.origin) == ("uint8", VoxelSize(50, 4, 4), (100.0, 0.0, 8.0))
    assert ZarrReader(path=path, key="volumes/labels/mito_ids").open().spec.dtype == "uint64"
    assert ZarrReader(path=path, key="/volumes/labels/neuron_ids/").open().spec.voxel_size is None


def test_several_arrays_without_a_key_are_listed(store):
    group, path = store
    add(group, "a/raw")
    add(group, "a/mito")
    with pytest.raises(DataError, match="holds 2 arrays") as error:
        ZarrReader(path=path).open()
    assert "there are: a/mito, a/raw" in error.value.hint
    with pytest.raises(DataError, match="'a' holds 2 arrays"):
        ZarrReader(path=path, key="a").open()


def test_a_missing_key_is_refused_with_the_nearest_one_first(store):
    group, path = store
    add(group, "volumes/raw")
    add(group, "volumes/labels/mito_ids")
    with pytest.raises(DataError, match="has no array 'volumes/mito_ids'") as error:
        ZarrReader(path=path, key="volumes/mito_ids").open()
    assert error.value.hint.startswith('key = "volumes/labels/mito_ids"')


def test_an_empty_store_and_a_plain_folder_are_refused(store, tmp_path):
    with pytest.raises(DataError, match="holds no zarr array"):
        ZarrReader(path=store[1]).open()
    (tmp_path / "plain.zarr").mkdir()
    with pytest.raises(DataError, match="not a zarr store"):
        ZarrReader(path=str(tmp_path / "plain.zarr")).open()


def multiscale(group, axes, levels, version):
    datasets = [{"path": path, "coordinateTransformations": steps} for path, steps in levels]
    image = {"version": version, "axes": axes, "datasets": datasets}
    group.update_attributes(
        {"multiscales": [image]} if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}
    )


AXES = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]


@pytest.fixture(params=["0.4", "0.5"])
def ome(request, tmp_path):
    path = tmp_path / "em.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if request.param == "0.4" else 3)
    image = group.create_group("em")
    add(image, "s0", (8, 16, 16))
    add(image, "s1", (8, 8, 8))
    levels = [
        ("s0", [{"type": "scale", "scale": [40, 8, 8]}, {"type": "translation", "translation": [80, 0, 4]}]),
        ("s1", [{"type": "scale", "scale": [40, 16, 16]}, {"type": "translation", "translation": [80, 4, 8]}]),
    ]
    multiscale(image, AXES, levels, request.param)
    return str(path)


def test_a_multiscale_counts_as_one_array_and_its_level_is_chosen(ome):
    finest = ZarrReader(path=ome).open().spec
    assert (finest.shape, finest.voxel_size, finest.origin) == ((8, 16, 16), VoxelSize(40, 8, 8), (80.0, 0.0, 4.0))
    coarse = ZarrReader(path=ome, key="em", level=1).open().spec
    assert (coarse.shape, coarse.voxel_size, coarse.origin) == ((8, 8, 8), VoxelSize(40, 16, 16), (80.0, 4.0, 8.0))


def test_the_key_of_a_level_knows_its_voxel_size_too(ome):
    assert ZarrReader(path=ome, key="em/s1").open().spec.voxel_size == VoxelSize(40, 16, 16)


def test_a_level_that_is_not_there_is_refused(ome):
    with pytest.raises(DataError, match="level 2 is not there: there are 2, from 0"):
        ZarrReader(path=ome, level=2).open()
    with pytest.raises(DataError, match="no levels"):
        ZarrReader(path=ome, key="em/s0", level=1).open()


def test_channels_come_first_and_one_time_point_is_dropped(tmp_path):
    path = str(tmp_path / "a.zarr")
    group = zarr.open_group(path, mode="w", zarr_format=2)
    values = add(group, "0", (1, 4, 2, 6, 5), "uint16")[:]
    axes = [{"name": "t", "type": "time", "unit": "second"}, AXES[0], {"name": "c", "type": "channel"}, *AXES[1:]]
    multiscale(group, axes, [("0", [{"type": "scale", "scale": [1, 30, 1, 5, 5]}])], "0.4")
    volume = ZarrReader(path=path).open()
    assert (volume.spec.shape, volume.spec.channels, volume.spec.chunks) == ((4, 6, 5), ("0", "1"), (4, 6, 5))
    assert volume.spec.voxel_size == VoxelSize(30, 5, 5)
    np.testing.assert_array_equal(
        volume.read(Roi((1, 2, 0), (3, 6, 4))), values[0].transpose(1, 0, 2, 3)[:, 1:3, 2:6, :4]
    )


def test_several_time_points_are_refused(store):
    group, path = store
    add(group, "a", (3, 1, 4, 4, 4))
    with pytest.raises(DataError, match="3 time points"):
        ZarrReader(path=path).open()


def test_axes_may_be_named_where_the_store_does_not(store):
    group, path = store
    values = add(group, "a", (4, 6, 5, 2))[:]
    volume = ZarrReader(path=path, axes="zyxc").open()
    assert volume.spec.shape == (4, 6, 5)
    np.testing.assert_array_equal(volume.read(Roi.whole((4, 6, 5))), values.transpose(3, 0, 1, 2))
    with pytest.raises(DataError, match="axes 'zyq' do not describe"):
        ZarrReader(path=path, axes="zyq").open()


def test_a_scale_without_unit_is_an_unknown_voxel_size(tmp_path):
    path = str(tmp_path / "a.zarr")
    group = zarr.open_group(path, mode="w", zarr_format=3)
    add(group, "0")
    multiscale(
        group, [{"name": a, "type": "space"} for a in "zyx"], [("0", [{"type": "scale", "scale": [1, 1, 1]}])], "0.5"
    )
    assert ZarrReader(path=path).open().spec.voxel_size is None


def test_metadata_that_are_cut_short_or_wrong_are_refused(ome, tmp_path):
    level = tmp_path / "em.zarr" / "em" / "s0"
    file = level / "zarr.json" if (level / "zarr.json").exists() else level / ".zarray"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut short|cannot be read"):
        ZarrReader(path=ome, key="em/s0").open()
    file.write_text(whole.replace('"shape"', '"form"'))
    with pytest.raises(DataError, match="cannot be read"):
        ZarrReader(path=ome).open()


def test_multiscales_that_do_not_follow_the_standard_are_refused(store):
    group, path = store
    add(group, "0")
    group.update_attributes({"multiscales": [{"axes": "zyx"}]})
    with pytest.raises(DataError, match="do not follow OME-NGFF"):
        ZarrReader(path=path).open()


def test_a_damaged_chunk_is_an_error_of_three_lines(store, tmp_path):
    group, path = store
    add(group, "a")
    chunk = max(
        (f for f in (tmp_path / "em.zarr" / "a").rglob("*") if f.is_file()),
        key=lambda f: f.name not in ("zarr.json", ".zarray", ".zattrs"),
    )
    chunk.write_bytes(chunk.read_bytes()[:9])
    with pytest.raises(DataError, match="cannot be decoded") as error:
        ZarrReader(path=path).open().read(Roi.whole((4, 16, 16)))
    assert len(str(error.value).splitlines()) == 3


def test_only_the_chunks_of_the_box_are_read(store, monkeypatch):
    group, path = store
    add(group, "a", (16, 16, 16))
    volume = ZarrReader(path=path).open()
    asked, get = [], zarr.storage.LocalStore.get

    async def counted(self, key, *arguments, **options):
        asked.append(key)
        return await get(self, key, *arguments, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    assert volume.spec.chunks == (8, 8, 8)
    volume.read(Roi((1, 1, 1), (7, 7, 9)))
    assert len(asked) == 2


def test_opening_reads_no_chunk(ome, monkeypatch):
    asked, get = [], zarr.storage.LocalStore.get

    async def counted(self, key, *arguments, **options):
        asked.append(key)
        return await get(self, key, *arguments, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    ZarrReader(path=ome).open()
    assert all(key.endswith(("zarr.json", ".zarray", ".zattrs")) for key in asked)


def written(path, spec, values, **options):
    writer = ZarrWriter(path=str(path), **options)
    with writer.create("a", spec) as volume:
        volume.write(Roi.whole(spec.shape), values)
        volume.finish()
    return writer


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3), kind=st.sampled_from([Kind.IMAGE, Kind.INSTANCE]), seed=st.integers(0, 9)
)
def test_a_coarse_voxel_is_the_mean_of_its_cell_or_one_of_its_labels(tmp_path_factory, shape, kind, seed):
    path = tmp_path_factory.mktemp("levels") / "a.zarr"
    values = np.random.default_rng(seed).integers(0, 250, (1, *shape)).astype("uint16")
    written(path, VolumeSpec(shape, "uint16", kind=kind), values, levels=2, chunks=(2, 2, 2))
    if max(shape) == 1:
        return
    coarse = ZarrReader(path=str(path), level=1).open()
    z, y, x = (-(-n // 2) for n in shape)
    assert coarse.spec.shape == (z, y, x)
    found = coarse.read(Roi.whole((z, y, x)))[0]
    for place in np.ndindex(z, y, x):
        cell = values[0][tuple(slice(2 * i, 2 * i + 2) for i in place)]
        wanted = np.rint(cell.mean()) if kind is Kind.IMAGE else cell.flat[0]
        assert abs(int(found[place]) - int(wanted)) <= (kind is Kind.IMAGE)


def test_levels_make_voxels_more_isotropic_and_are_listed_with_their_place(tmp_path):
    spec = VolumeSpec((4, 600, 600), "uint8", voxel_size=VoxelSize(40, 10, 10), origin=(0.0, 100.0, 0.0))
    written(tmp_path / "a.zarr", spec, np.zeros((1, *spec.shape), "uint8"))
    attributes = json.loads((tmp_path / "a.zarr" / "a" / "zarr.json").read_text())["attributes"]["ome"]
    assert attributes["version"] == "0.5"
    (image,) = attributes["multiscales"]
    assert [axis["unit"] for axis in image["axes"]] == ["nanometer"] * 3
    steps = [dataset["coordinateTransformations"] for dataset in image["datasets"]]
    assert [step[0]["scale"] for step in steps] == [[40, 10, 10], [40, 20, 20], [40, 40, 40]]
    assert [step[1]["translation"] for step in steps] == [[0, 100, 0], [0, 105, 5], [0, 115, 15]]
    assert ZarrReader(path=str(tmp_path / "a.zarr"), level=2).open().spec.shape == (4, 150, 150)


def test_label_groups_are_marked_as_labels(tmp_path):
    spec = VolumeSpec((2, 4, 4), "uint32", kind=Kind.INSTANCE)
    written(tmp_path / "a.zarr", spec, np.ones((1, 2, 4, 4), "uint32"), version="0.4")
    attributes = json.loads((tmp_path / "a.zarr" / "a" / ".zattrs").read_text())
    assert attributes["image-label"] == {"version": "0.4"}
    assert attributes["multiscales"][0]["version"] == "0.4"


def test_catena_layout_is_one_zarr_v2_array_with_its_attributes(tmp_path):
    spec = VolumeSpec((4, 8, 8), "uint64", voxel_size=VoxelSize(50, 4.6, 4.6), kind=Kind.INSTANCE)
    values = np.full((1, 4, 8, 8), 2**40, "uint64")
    written(tmp_path / "a.zarr", spec, values, layout="catena", key="volumes/labels/mito_ids")
    node = tmp_path / "a.zarr" / "volumes" / "labels" / "mito_ids"
    attributes = json.loads((node / ".zattrs").read_text())
    assert (attributes["resolution"], attributes["offset"]) == ([50, 4.6, 4.6], [0, 0, 0])
    array = zarr.open_array(str(node), mode="r", zarr_format=2)
    np.testing.assert_array_equal(array[:], values[0])


def test_the_multiscales_appear_when_the_array_is_finished(tmp_path):
    spec = VolumeSpec((2, 4, 4), "uint8")
    with ZarrWriter(path=str(tmp_path / "a.zarr")).create("a", spec) as volume:
        assert "ome" not in zarr.open_group(str(tmp_path / "a.zarr" / "a"), mode="r").attrs
        volume.finish()
    assert "ome" in zarr.open_group(str(tmp_path / "a.zarr" / "a"), mode="r").attrs


def test_an_array_killed_while_its_levels_were_made_is_finished_again(tmp_path, monkeypatch):
    spec = VolumeSpec((2, 40, 40), "uint8")
    writer = ZarrWriter(path=str(tmp_path / "a.zarr"), levels=3)
    volume = writer.create("a", spec)
    volume.write(Roi.whole(spec.shape), np.full((1, 2, 40, 40), 9, "uint8"))
    with monkeypatch.context() as patch:
        patch.setattr("mitocore_io.ngff.attributes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            volume.finish()
    with pytest.raises(DataError, match="not finished"):
        ZarrReader(path=str(tmp_path / "a.zarr"), key="a/0").open()
    writer.create("a", spec, resume=True).finish()
    assert (ZarrReader(path=str(tmp_path / "a.zarr"), level=2).open().read(Roi.whole((1, 10, 10))) == 9).all()


def test_a_store_of_the_other_zarr_version_is_refused_with_the_option(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    with pytest.raises(DataError, match="is zarr v2, not v3") as error:
        ZarrWriter(path=str(tmp_path / "a.zarr")).create("a", VolumeSpec((2, 4, 4), "uint8"))
    assert error.value.hint == 'version = "0.4"'


def test_a_folder_of_other_things_is_not_made_a_store(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="no zarr store"):
        ZarrWriter(path=str(tmp_path)).create("a", VolumeSpec((2, 4, 4), "uint8"))


def test_levels_are_made_in_bounded_memory(tmp_path):
    spec = VolumeSpec((64, 512, 512), "uint8")
    volume = ZarrWriter(path=str(tmp_path / "a.zarr"), chunks=(16, 64, 64), levels=2).create("a", spec)
    volume.write(Roi((0, 0, 0), (64, 512, 64)), np.ones((1, 64, 512, 64), "uint8"))
    tracemalloc.start()
    volume.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 512 * 512 / 2


def test_two_processes_write_one_array_at_the_same_time(tmp_path):
    spec = VolumeSpec((4, 32, 32), "uint16")
    writer = ZarrWriter(path=str(tmp_path / "a.zarr"), chunks=(2, 16, 16))
    half = (
        "import sys, numpy; from mitocore import Roi; from mitocore_io.zarr_writer import ZarrWriter\n"
        "volume = ZarrWriter.model_validate_json(sys.argv[1]).open('a')\n"
        "for z in (0, 2):\n"
        "    for y in (0, 16):\n"
        "        x = int(sys.argv[2])\n"
        "        box = Roi((z, y, x), (z + 2, y + 16, x + 16))\n"
        "        volume.write(box, numpy.full((1, 2, 16, 16), x + z + 1, 'uint16'))\n"
    )
    with writer.create("a", spec) as volume:
        command = [sys.executable, "-c", half, writer.model_dump_json()]
        for process in [subprocess.Popen([*command, x]) for x in ("0", "16")]:
            assert process.wait() == 0
        found = volume.read(Roi.whole(spec.shape))[0]
    np.testing.assert_array_equal(found[::2, 0, ::16], [[1, 17], [3, 19]])
    assert found.all()


def test_the_fingerprint_is_of_one_array_down_to_its_chunks_and_not_of_its_store(tmp_path):
    group = zarr.open_group(str(tmp_path / "em.zarr"), mode="w", zarr_format=3)
    raw = add(group, "raw", (8, 16, 16))
    reader = ZarrReader(path=str(tmp_path / "em.zarr"), key="raw")
    before = reader.fingerprint()
    add(group, "labels", (8, 16, 16))
    assert reader.fingerprint() == before
    raw[:8, 8:, 8:] = np.random.default_rng(0).integers(0, 255, (8, 8, 8))
    assert reader.fingerprint() != before


def test_the_coarser_levels_report_how_far_they_are(tmp_path):
    writer = ZarrWriter(path=str(tmp_path / "em.zarr"), chunks=(8, 8, 8), levels=3)
    told = []
    with writer.create("raw", VolumeSpec((8, 32, 32), "uint8")) as volume:
        volume.finish(lambda done, total: told.append((done, total)))
    (done, total) = told[-1]
    assert done == total == len(told) > 2


@pytest.fixture(params=["0.4", "0.5"])
def pyramid_of_three(request, tmp_path):
    path = tmp_path / "em.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if request.param == "0.4" else 3)
    scales = [(40, 7.99, 7.99), (40, 16, 16), (40, 32, 32), (80, 64, 64)]
    for level in range(4):
        add(group, str(level), (4, 64 // 2**level, 64))
    levels = [(str(i), [{"type": "scale", "scale": list(scale)}]) for i, scale in enumerate(scales)]
    multiscale(group, AXES, levels, request.param)
    return str(path)


@pytest.mark.parametrize(
    ("wanted", "level"),
    [
        ("8 nm", 0),
        (8.0, 0),
        ("10 nm", 0),
        ("16 nm", 1),
        ("31 nm", 1),
        ([40, 32, 32], 2),
        (["40 nm", "63 nm", "63 nm"], 2),
        ("1 um", 3),
        (2, 2),
    ],
)
def test_a_level_is_named_by_its_number_or_by_the_voxel_size_that_is_needed(pyramid_of_three, wanted, level):
    reader = ZarrReader(path=pyramid_of_three, level=wanted)
    assert reader.open().spec.shape == (4, 64 // 2**level, 64)
    assert ZarrReader.model_validate_json(reader.model_dump_json()) == reader
    assert hash(reader) == hash(ZarrReader(path=pyramid_of_three, level=wanted))


def test_a_voxel_size_finer_than_all_levels_is_refused_with_those_there_are(pyramid_of_three):
    with pytest.raises(DataError, match=r"no level is as fine as 4 nm; there are 0: 40 x 7.99 x 7.99 nm, 1: ") as error:
        ZarrReader(path=pyramid_of_three, level="4 nm").open()
    assert len(str(error.value).splitlines()) == 3


def test_levels_without_voxel_size_are_not_chosen_by_one(store):
    group, path = store
    add(group, "0")
    group.update_attributes({"multiscales": [{"version": "0.4", "datasets": [{"path": "0"}]}]})
    with pytest.raises(DataError, match="the levels state no voxel size"):
        ZarrReader(path=path, level="8 nm").open()


def test_shards_hold_many_chunks_in_one_file_on_all_levels(tmp_path):
    spec = VolumeSpec((8, 32, 48), "uint16")
    values = np.random.default_rng(0).integers(0, 999, (1, *spec.shape)).astype("uint16")
    written(tmp_path / "a.zarr", spec, values, chunks=(2, 8, 8), shards=(8, 16, 16), levels=2)
    fine, coarse = (zarr.open_array(str(tmp_path / "a.zarr" / "a" / level), mode="r") for level in "01")
    assert (fine.chunks, fine.shards) == ((2, 8, 8), (8, 16, 16))
    assert (coarse.chunks, coarse.shards) == ((2, 8, 8), (4, 16, 16))
    files = [file for file in (tmp_path / "a.zarr" / "a" / "0").rglob("*") if file.is_file()]
    assert len(files) == 1 + 2 * 3
    np.testing.assert_array_equal(fine[:], values[0])
    plain = tmp_path / "plain.zarr"
    written(plain, spec, values, chunks=(2, 8, 8), levels=2)
    np.testing.assert_array_equal(coarse[:], zarr.open_array(str(plain / "a" / "1"), mode="r")[:])


def test_the_shard_is_what_boxes_written_at_the_same_time_do_not_share(tmp_path):
    writer = ZarrWriter(path=str(tmp_path / "a.zarr"), chunks=(2, 8, 8), shards=(4, 16, 16))
    assert writer.create("a", VolumeSpec((8, 32, 48), "uint8")).spec.chunks == (4, 16, 16)
    small = writer.create("small", VolumeSpec((3, 12, 48), "uint8"))  # no larger than what covers the array
    assert small.spec.chunks == (4, 16, 16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shards": (64, 128, 100)}, "are not whole chunks of"),
        ({"shards": (64, 128, 128), "version": "0.4"}, "shards are of zarr v3"),
        ({"shards": (64, 128, 128), "layout": "catena"}, "shards are of zarr v3"),
    ],
)
def test_shards_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ZarrWriter(path="a.zarr", **options)


def test_a_damaged_or_cut_shard_is_an_error_of_three_lines(tmp_path):
    spec = VolumeSpec((4, 16, 16), "uint8")
    noise = np.random.default_rng(0).integers(0, 255, (1, *spec.shape)).astype("uint8")
    written(tmp_path / "a.zarr", spec, noise, chunks=(2, 8, 8), shards=(4, 16, 16), levels=1)
    (shard,) = [f for f in (tmp_path / "a.zarr" / "a" / "0" / "c").rglob("*") if f.is_file()]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be decoded") as error:
        ZarrReader(path=str(tmp_path / "a.zarr")).open().read(Roi.whole(spec.shape))
    assert len(str(error.value).splitlines()) == 3


def test_the_default_block_of_a_run_is_whole_chunks_of_volumes_of_any_size(tmp_path):
    block = (128, 512, 512)
    for number, shape in enumerate([(300, 700, 900), (100, 130, 90), (1, 70, 600)]):
        volume = ZarrWriter(path=str(tmp_path / "a.zarr")).create(str(number), VolumeSpec(shape, "uint8"))
        assert all(b >= n or b % c == 0 for b, n, c in zip(block, shape, volume.spec.chunks, strict=True))
