"""Zarr stores at an address (https://, s3://, gs:// …), through fsspec, which is imported here and only when asked for.

A store is looked at through its metadata documents. Web servers need not list their folders: what a store holds is then
known from its consolidated metadata, or by the key.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from mitocore import DataError, PluginError

_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_ANONYMOUS: dict[str, dict[str, Any]] = {
    "s3": {"anon": True},
    "s3a": {"anon": True},
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
}
_FAMILIES = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)
_VERSION = ("ETag", "etag", "LastModified", "generation", "updated", "mtime", "created", "size")
"""What file systems call that by which a rewritten document is known."""


@dataclass
class Server:
    """A file system of fsspec, and the documents it has given or does not have (None), by their path."""

    scheme: str
    files: Any
    options: dict[str, Any]
    documents: dict[str, bytes | None] = field(default_factory=dict)
    complete: bool = False  # whether the documents are all there are, as consolidated metadata say
    refused: bool = False

    def document(self, path: str) -> bytes | None:
        """Content of a document; fetched once. What may not be seen is not there: buckets say so of what is missing."""
        if path not in self.documents:
            try:
                self.documents[path] = self.files.cat_file(path)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                self.documents[path] = None
            except _failures() as error:
                if not _is_refusal(error):
                    raise unreachable(self.files.unstrip_protocol(path), error) from error
                self.refused, self.documents[path] = True, None
        return self.documents[path]

    def listed(self, path: str) -> list[str]:
        """Paths of what a folder holds; none where the server does not list them."""
        if self.complete:
            return [known for known, content in self.documents.items() if content and known.startswith(path + "/")]
        try:
            found = self.files.ls(path, detail=False)
        except _failures():
            return []
        return [str(each).rstrip("/") for each in found if str(each).startswith(path + "/")]


@dataclass(frozen=True)
class Remote:
    """A folder or document below an address; what is asked of a `pathlib.Path` here can be asked of it."""

    server: Server
    path: str

    def __str__(self) -> str:
        return str(self.server.files.unstrip_protocol(self.path))

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.path.rpartition("/")[2]

    @property
    def parents(self) -> Iterator["Remote"]:
        """The folders it lies in, the nearest first, up to the server or bucket."""
        above = self.path
        while "/" in above.strip("/") and not above.rpartition("/")[0].endswith(":/"):
            above = above.rpartition("/")[0]
            yield Remote(self.server, above)

    def joinpath(self, *parts: str) -> "Remote":
        """What lies below it."""
        return Remote(self.server, "/".join([self.path, *parts]))

    def __truediv__(self, part: str) -> "Remote":
        return self.joinpath(part)

    def is_file(self) -> bool:
        """Whether it is a document that the server gives."""
        return self.server.document(self.path) is not None

    def is_dir(self) -> bool:
        """Whether it is a group or array, or a folder that the server lists."""
        return any((self / name).is_file() for name in _DOCUMENTS[:3]) or bool(self.server.listed(self.path))

    def exists(self) -> bool:
        """Whether anything is known of it."""
        return self.is_dir()

    def iterdir(self) -> Iterator["Remote"]:
        """The folders below it, as its consolidated metadata or else the server list them."""
        names = {path[len(self.path) + 1 :].partition("/")[0] for path in self.server.listed(self.path)}
        yield from (self / name for name in sorted(names - {*_DOCUMENTS, ".zmetadata", ""}) if "?" not in name)

    def read_bytes(self) -> bytes:
        """Content of a document.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        content = self.server.document(self.path)
        if content is None:
            raise FileNotFoundError(self.path)
        return content

    def absent(self) -> DataError:
        """The error that says that nothing can be opened here."""
        if self.server.refused:
            problem, hint = f"access to {str(self)!r} is refused", "check the address, and your rights to read it"
            if self.server.scheme in _ANONYMOUS:
                hint = "anonymous = true, if the bucket is public; else check the address and your credentials"
            return DataError(problem, hint=hint)
        return DataError(f"there is no zarr store at {str(self)!r}", hint="check the address")

    def fingerprint(self) -> str:
        """Stands for an array: its address, and content and version of the documents that describe it.

        Voxels that are rewritten in place, with the same metadata, are not noticed.
        """
        digest = hashlib.sha256(str(self).encode())
        for name in _DOCUMENTS:
            document = self / name
            if document.is_file():
                digest.update(document.read_bytes())
                digest.update(json.dumps(document.version()).encode())
        return digest.hexdigest()

    def version(self) -> dict[str, str]:
        """By what the server would tell a rewritten document from this one, as far as it says so."""
        try:
            found = self.server.files.info(self.path)
        except _failures():
            return {}
        return {name: str(found[name]) for name in _VERSION if name in found}

    def store(self) -> "FetchedStore":
        """What zarr reads the chunks through."""
        store: FetchedStore = FetchedStore.from_url(str(self), storage_options=self.server.options, read_only=True)
        return store


def address(url: str, *, anonymous: bool = False) -> Remote:
    """The store at an address.

    Raises
    ------
    PluginError
        If what such addresses are read with is not installed.
    DataError
        If there are no such addresses.
    """
    scheme = url.partition("://")[0]
    options = _ANONYMOUS.get(scheme, {}) if anonymous else {}
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        files, path = url_to_fs(url.rstrip("/"), **options)
    except ImportError as error:
        problem = f"{scheme}:// addresses are read with a package that is not installed: {error.name or error}"
        raise PluginError(problem, where=url, hint="pip install 'mitocore-io[remote]'") from error
    except ValueError as error:
        problem = f"{scheme!r} is no kind of address; https, s3 and gs are, among others"
        raise DataError(problem, where=url) from error
    root = Remote(Server(scheme, files, options), path)
    _take_consolidated(root)
    return root


class FetchedStore(FsspecStore):  # type: ignore[misc]
    """A remote store whose failures are ours: a chunk that cannot be fetched is no damaged chunk."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            return await super().get(key, prototype, byte_range)
        except _failures() as error:
            raise unreachable(f"{self.path}/{key}", error) from error


def unreachable(url: str, error: Exception) -> DataError:
    """The error that says why nothing came from an address."""
    said = (str(error) or type(error).__name__).splitlines()[0][:160]
    if "redential" in type(error).__name__:
        hint = "anonymous = true, if the bucket is public; else give your credentials"
    else:
        hint = "check the address and the connection, then run it again: what is finished is kept"
    return DataError(f"{url!r} cannot be fetched: {said}", hint=hint)


def _failures() -> tuple[type[Exception], ...]:
    """What file systems raise: besides OSError, errors of their libraries, of those that are loaded."""
    loaded = [getattr(sys.modules[module], name) for module, name in _FAMILIES if module in sys.modules]
    return (OSError, NotImplementedError, *loaded)


def _is_refusal(error: Exception) -> bool:
    state = error.status if hasattr(error, "status") else getattr(error, "code", "")  # of aiohttp, of gcsfs
    return isinstance(error, PermissionError) or str(state) in ("401", "403")


def _take_consolidated(root: Remote) -> None:
    """Take the documents of all nodes of a store from its consolidated metadata, if it has them."""
    for name in ("zarr.json", ".zmetadata"):
        try:
            found = json.loads((root / name).read_bytes())
            nodes = found["metadata"] if name == ".zmetadata" else found["consolidated_metadata"]["metadata"]
            below = {f"{path}/zarr.json" if name == "zarr.json" else path: node for path, node in nodes.items()}
        except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
            continue
        for path, node in below.items():
            root.server.documents.setdefault(f"{root.path}/{path}", json.dumps(node).encode())
        root.server.complete = True
        return
