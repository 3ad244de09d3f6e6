"""Looks at a model on the hub without downloading it: file sizes, and headers by ranges.

Of a GGUF only the header is fetched, in ranges that double until the parser has all of it; of
a checkpoint config.json and the tables of its safetensors. What was fetched is kept by commit,
so that the same question asks the network for no more than the listing, and offline nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.errors import CorruptFileError, EdgeInferError, NotFoundError, UnsupportedError
from edgeinfer.formats.atomic import AtomicFile
from edgeinfer.formats.gguf import Header, ShortPrefixError, merge_headers, parse_header
from edgeinfer.formats.safetensors_header import MAX_HEADER, StoredTensor, parse_safetensors_header
from edgeinfer.formats.untrusted_json import parse_json
from edgeinfer.store.choose import choose, is_model_file, is_plain, parts_of, quants
from edgeinfer.store.home import home, is_offline

FIRST_RANGE = 256 << 10  # bytes
LARGEST_HEADER = 128 << 20
LARGEST_JSON = 16 << 20
KEPT = 64  # files; the oldest go first

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel:
    """A repository of the hub as it is now.

    Attributes:
        repo: org/name.
        commit: what its main branch is at.
        sizes: bytes of each file by name.
        quant: the type that the reference asks for, if it does.
        offline: only what was fetched before may be used.
    """

    repo: str
    commit: str
    sizes: Mapping[str, int]
    quant: str | None
    offline: bool = False

    @property
    def gguf_files(self) -> tuple[str, ...]:
        """The models among the files, the first parts of those in parts."""
        return tuple(sorted(name for name in self.sizes if is_model_file(name)))

    def usual_gguf(self) -> str | None:
        """The file that would be downloaded, or None of a repository without any.

        Raises:
            NotFoundError: the quant type asked for is not there.
        """
        found = choose(list(self.sizes), self.quant)
        if found is None and self.quant is not None:
            offered = ", ".join(quants(self.sizes)) or "no GGUF at all"
            raise NotFoundError(f"{self.repo} has no {self.quant}", hint=f"it has {offered}")
        return found

    def bytes_of(self, name: str) -> int:
        """Bytes of a model, all parts together."""
        return sum(self._size(part) for part in parts_of(name))

    def gguf_header(self, name: str) -> Header:
        """Fetches the header of a GGUF, or of all its parts.

        Raises:
            NotFoundError: the hub does not give it, or offline mode is on.
            CorruptFileError: it is no GGUF, or a part is missing.
        """
        parts = parts_of(name)
        headers = [self._one_header(part) for part in parts]
        if len(headers) == 1:
            return headers[0]
        return merge_headers([Path(part) for part in parts], headers)

    def settings(self) -> dict[str, Any]:
        """Fetches config.json."""
        return self._json(CONFIG)

    def checkpoint_tensors(self) -> dict[str, StoredTensor]:
        """Fetches the tables of all safetensors of the checkpoint."""
        if SINGLE in self.sizes:
            shards = [SINGLE]
        elif INDEX in self.sizes:
            named = self._json(INDEX).get("weight_map")
            if not isinstance(named, dict) or not all(isinstance(v, str) for v in named.values()):
                raise CorruptFileError(f"{self.repo}/{INDEX}: weight_map is missing or no object")
            shards = sorted(set(named.values()))
        else:
            raise NotFoundError(
                f"{self.repo} has neither GGUF nor safetensors files",
                hint="pickled weights (.bin, .pt) can run code and are never loaded",
            )
        tensors: dict[str, StoredTensor] = {}
        for shard in shards:
            tensors |= self._table(shard)
        return tensors

    def _one_header(self, name: str) -> Header:
        size, want = self._size(name), FIRST_RANGE
        octets = b""
        while True:
            octets = self._beginning(name, min(want, size), octets)
            try:
                return parse_header(octets, path=Path(name), file_size=size)
            except ShortPrefixError as error:
                want = max(2 * len(octets), error.need_bytes)
                if want > LARGEST_HEADER or len(octets) >= size:
                    raise CorruptFileError(
                        f"{self.repo}/{name}: a header of more than {len(octets)} bytes"
                    ) from error

    def _table(self, name: str) -> dict[str, StoredTensor]:
        size = self._size(name)
        octets = self._beginning(name, min(FIRST_RANGE, size), b"")
        end = 8 + int.from_bytes(octets[:8], "little")
        if len(octets) < end <= min(size, MAX_HEADER):
            octets = self._beginning(name, end, octets)
        return parse_safetensors_header(octets, path=Path(name), file_size=size)

    def _json(self, name: str) -> dict[str, Any]:
        size = self._size(name)
        if size > LARGEST_JSON:
            raise CorruptFileError(f"{self.repo}/{name}: {size} bytes")
        try:
            return parse_json(self._beginning(name, size, b""))
        except ValueError as error:
            raise CorruptFileError(f"{self.repo}/{name}: not valid: {error}") from None

    def _size(self, name: str) -> int:
        if name not in self.sizes:
            raise NotFoundError(f"{self.repo} has no file {name}")
        return self.sizes[name]

    def _beginning(self, name: str, end: int, known: bytes) -> bytes:
        """The first ``end`` bytes of a file, of which some are known already."""
        kept = _kept(f"{self.repo}@{self.commit}/{name}")
        octets = known or (kept.read_bytes() if kept.is_file() else b"")
        if len(octets) >= end:
            return octets
        if self.offline:
            raise NotFoundError(
                f"the header of {self.repo}/{name} is not on this machine, and offline mode is on"
            )
        from huggingface_hub import get_token, hf_hub_url

        from edgeinfer.store import http

        url = hf_hub_url(self.repo, name, revision=self.commit)
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with http.open_client() as client:
            octets += http.read_range(client, url, len(octets), end, headers)
        if len(octets) < end:
            raise CorruptFileError(f"{self.repo}/{name} ended after {len(octets)} bytes")
        _keep(kept, octets)
        return octets


def peek(reference: str, *, offline: bool = False) -> RemoteModel | None:
    """Looks up a reference on the hub; None if it is of another form.

    Raises:
        NotFoundError: there is no such repository, or it cannot be asked.
        UnsupportedError: it lists unsafe file names.
    """
    from edgeinfer.store.hub import listing, split_repo

    found = split_repo(reference)
    if found is None:
        return None
    repo, quant = found
    kept = _kept(f"{repo} listing")
    offline = offline or is_offline()
    if offline:
        if not kept.is_file():
            raise NotFoundError(f"{repo} is not on this machine, and offline mode is on")
        record = json.loads(kept.read_bytes())
    else:
        commit, sizes = listing(repo)
        record = {"commit": commit, "sizes": sizes}
        _keep(kept, json.dumps(record).encode())
    unsafe = [name for name in record["sizes"] if not is_plain(name)]
    if unsafe:
        raise UnsupportedError(f"{repo} lists the unsafe file name {unsafe[0]!r}")
    return RemoteModel(
        repo=repo, commit=record["commit"], sizes=record["sizes"], quant=quant, offline=offline
    )


def _kept(what: str) -> Path:
    return home() / "headers" / hashlib.sha256(what.encode()).hexdigest()


def _keep(path: Path, octets: bytes) -> None:
    """Keeps what was fetched; where it cannot be, it is fetched again."""
    with suppress(OSError, EdgeInferError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with AtomicFile(path) as file:
            file.write(octets)
        oldest = sorted(path.parent.iterdir(), key=lambda kept: kept.stat().st_mtime)[:-KEPT]
        for old in oldest:
            old.unlink(missing_ok=True)
