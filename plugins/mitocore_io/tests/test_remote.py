"""Zarr stores at addresses: what is fetched, what is told when nothing comes. Servers are of this process alone."""

import functools
import http.server
import subprocess
import sys
import threading

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from mitocore import DataError, PluginError, Roi, VoxelSize
from mitocore_io.hdf5_reader import Hdf5Reader
from mitocore_io.slices_reader import SlicesReader
from mitocore_io.tiff_reader import TiffReader
from mitocore_io.tiff_writer import TiffWriter
from mitocore_io.zarr_reader import ZarrReader
from mitocore_io.zarr_writer import ZarrWriter

VALUES = (np.arange(8 * 16 * 24) % 251).reshape(8, 16, 24).astype("uint8")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, listed only if `lists`; names what was asked for, and answers `states` where it is told to."""

    lists, asked, states = False, [], {}

    def do_GET(self):
        self.asked.append(self.path)
        for part, state in self.states.items():
            if part in self.path:
                self.send_error(state)
                return
        super().do_GET()

    def list_directory(self, path):
        if self.lists:
            return super().list_directory(path)
        self.send_error(403)
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """Its address, and the handler that says what was asked for."""
    handler = type("Handler", (Quiet,), {"asked": [], "states": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def store(path, version=3, *, multiscale=True, consolidated=False):
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    raw = group.create_array("volumes/raw", shape=VALUES.shape, dtype="uint8", chunks=(4, 8, 8))
    raw[:] = VALUES
    raw.update_attributes({"resolution": [40, 8, 8], "offset": [0, 0, 16]})
    labels = group.create_array("volumes/labels/mito_ids", shape=VALUES.shape, dtype="uint64", chunks=(8, 16, 24))
    labels[:] = VALUES
    if multiscale:
        em = group.create_group("em")
        levels = []
        for level, step in (("0", 1), ("1", 2)):
            array = em.create_array(level, shape=VALUES[:, ::step, ::step].shape, dtype="uint8", chunks=(4, 8, 8))
            array[:] = VALUES[:, ::step, ::step]
            scale = [40, 8 * step, 8 * step]
            levels.append({"path": level, "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
        image = {"version": "0.4" if version == 2 else "0.5", "axes": axes, "datasets": levels}
        em.update_attributes({"multiscales": [image]} if version == 2 else {"ome": {"multiscales": [image]}})
    if consolidated:
        zarr.consolidate_metadata(str(path))


@pytest.mark.parametrize("version", [2, 3])
def test_a_box_of_an_array_on_a_web_server_is_fetched_and_nothing_else(server, tmp_path, version):
    url, handler = server
    store(tmp_path / "em.zarr", version)
    with ZarrReader(path=f"{url}/em.zarr", key="volumes/raw").open() as volume:
        assert (volume.spec.shape, volume.spec.voxel_size) == ((8, 16, 24), VoxelSize(40, 8, 8))
        assert volume.spec.origin == (0.0, 0.0, 16.0)
        before = len(handler.asked)
        box = Roi((0, 1, 2), (4, 8, 16))
        np.testing.assert_array_equal(volume.read(box)[0], VALUES[box.slices])
    assert len(handler.asked) - before == 2


@pytest.mark.parametrize("version", [2, 3])
def test_levels_are_found_by_number_by_voxel_size_and_by_key(server, tmp_path, version):
    store(tmp_path / "em.zarr", version)
    path = f"{server[0]}/em.zarr"
    for options in ({"key": "em", "level": 1}, {"key": "em", "level": "16 nm"}, {"key": "em/1"}):
        with ZarrReader(path=path, **options).open() as volume:
            assert volume.spec.voxel_size == VoxelSize(40, 16, 16)
            np.testing.assert_array_equal(volume.read(Roi.whole((8, 8, 12)))[0], VALUES[:, ::2, ::2])


def test_an_address_may_name_the_array_itself(server, tmp_path):
    store(tmp_path / "em.zarr")
    assert ZarrReader(path=f"{server[0]}/em.zarr/em/1").open().spec.voxel_size == VoxelSize(40, 16, 16)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")
def test_consolidated_metadata_say_what_a_server_does_not_list(server, tmp_path, version):
    store(tmp_path / "em.zarr", version, multiscale=False, consolidated=True)
    assert ZarrReader(path=f"{server[0]}/em.zarr").open().spec.dtype == "uint8"  # Catena's volumes/raw
    with pytest.raises(DataError, match="has no array 'mito'") as error:
        ZarrReader(path=f"{server[0]}/em.zarr", key="mito").open()
    assert "there are: volumes/labels/mito_ids, volumes/raw" in error.value.hint


def test_a_server_that_lists_its_folders_needs_no_consolidated_metadata(server, tmp_path):
    url, handler = server
    handler.lists = True
    store(tmp_path / "em.zarr", multiscale=False)
    assert ZarrReader(path=f"{url}/em.zarr").open().spec.dtype == "uint8"


def test_the_fingerprint_is_of_the_address_and_its_documents(server, tmp_path):
    store(tmp_path / "em.zarr")
    store(tmp_path / "other.zarr")

    def fingerprint(name, key="volumes/raw"):
        return ZarrReader(path=f"{server[0]}/{name}.zarr", key=key).fingerprint()

    before = fingerprint("em")
    assert before == fingerprint("em")
    assert len({before, fingerprint("other"), fingerprint("em", "em")}) == 3
    zarr.open_array(str(tmp_path / "em.zarr" / "volumes" / "raw"), mode="r+").update_attributes(
        {"resolution": [9, 9, 9]}
    )
    assert fingerprint("em") != before


def refused(path, **options):
    with pytest.raises(DataError) as error, ZarrReader(path=path, **options).open() as volume:
        volume.read(Roi.whole(volume.spec.shape))
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


def test_nothing_at_the_address_is_an_error_that_names_it(server):
    assert f"there is no zarr store at '{server[0]}/none.zarr'" in refused(f"{server[0]}/none.zarr")


def test_a_refused_store_is_told_from_a_missing_one(server, tmp_path):
    server[1].states["zarr"] = 403
    assert "is refused" in refused(f"{server[0]}/em.zarr")


def test_a_server_that_fails_or_is_not_there_is_an_error_of_three_lines(server, tmp_path):
    store(tmp_path / "em.zarr")
    server[1].states["zarr.json"] = 500
    assert "cannot be fetched: 500" in refused(f"{server[0]}/em.zarr")
    assert "cannot be fetched" in refused("http://127.0.0.1:1/em.zarr")


@pytest.mark.parametrize("state", [403, 500])
def test_a_chunk_that_does_not_come_is_not_called_damaged(server, tmp_path, state):
    store(tmp_path / "em.zarr")
    server[1].states["raw/c/0"] = state
    assert f"cannot be fetched: {state}" in refused(f"{server[0]}/em.zarr", key="volumes/raw")


def test_a_damaged_chunk_at_an_address_is_called_damaged(server, tmp_path):
    store(tmp_path / "em.zarr")
    (tmp_path / "em.zarr" / "volumes" / "raw" / "c" / "0" / "0" / "0").write_bytes(b"short")
    assert "cannot be decoded" in refused(f"{server[0]}/em.zarr", key="volumes/raw")


def test_any_file_system_of_fsspec_is_read():
    files = fsspec.filesystem("memory")
    try:
        array = zarr.create_array("memory://lab/em.zarr", shape=VALUES.shape, dtype="uint8", chunks=(4, 8, 8))
        array[:] = VALUES
        with ZarrReader(path="memory://lab/em.zarr").open() as volume:
            np.testing.assert_array_equal(volume.read(Roi.whole(VALUES.shape))[0], VALUES)
    finally:
        files.rm("/lab", recursive=True)


class Bucket(MemoryFileSystem):
    """Stands in for s3fs: refuses whoever brings no leave."""

    protocol, cachable = "s3", False

    def __init__(self, *arguments, anon=False, **options):
        super().__init__(*arguments, **options)
        self.anon = anon

    def cat_file(self, path, *arguments, **options):
        if not self.anon:
            raise PermissionError("Forbidden")
        return super().cat_file(path, *arguments, **options)


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Bucket)
    return "s3://lab/em.zarr"


def test_public_buckets_are_read_without_credentials_when_told(bucket):
    message = refused(bucket)
    assert "is refused" in message
    assert "anonymous = true" in message
    assert "there is no zarr store" in refused(bucket, anonymous=True)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(PluginError) as error:
        ZarrReader(path="s3://lab/em.zarr").open()
    assert error.value.hint == "pip install 'mitocore-io[remote]'"
    assert len(str(error.value).splitlines()) <= 3


def test_an_address_of_no_known_kind_is_refused():
    assert "'nowhere' is no kind of address" in refused("nowhere://lab/em.zarr")


@pytest.mark.parametrize("reader", [Hdf5Reader, TiffReader, SlicesReader])
def test_other_formats_are_not_read_from_addresses(reader):
    with pytest.raises(DataError, match="is an address; of these only zarr stores are read"):
        reader(path="https://example.org/em.h5").open()


@pytest.mark.parametrize("writer", [ZarrWriter, TiffWriter])
def test_nothing_is_written_to_an_address(writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is an address"):
        writer(path="https://example.org/out.zarr").open("a")
    assert not list(tmp_path.iterdir())


def test_stores_on_this_machine_are_read_without_the_packages_for_addresses(tmp_path):
    store(tmp_path / "em.zarr")
    code = (
        "import sys; sys.modules.update(fsspec=None, aiohttp=None)\n"
        "from mitocore_io.zarr_reader import ZarrReader\n"
        "print(ZarrReader(path=sys.argv[1], key='volumes/raw').open().spec.shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "em.zarr")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "(8, 16, 24)"
