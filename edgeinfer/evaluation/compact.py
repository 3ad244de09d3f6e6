"""A reference's distributions on disk: 16 bits a logit, checked chunk by chunk.

A row's logits are stored as 65535 steps between the largest and the smallest, or 32 nats below the
largest, where a probability is under 1e-13. They are normalised again when they are used, so that
a row remains a distribution and no divergence comes out negative. A step is at most 4.9e-4 nats,
which shifts a mean divergence by about 1e-8, half the variance of the rounding. The likeliest token
and the probability of the one that came are stored as they were.

The file is MAGIC, the length of what comes next (uint32), JSON that says what made it, and a
record a chunk.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.evaluation.scores import Logits, ReferenceRows, Tokens, at, normalised
from edgeinfer.formats.atomic import AtomicFile
from edgeinfer.formats.untrusted_json import parse_json

MAGIC = b"EI-REF1\n"
RANGE = 32.0  # nats
TOP = 65535
MOST_HEADER = 1 << 20  # bytes


def _record(rows: int, vocab: int) -> np.dtype[np.void]:
    """A chunk on disk."""
    return np.dtype(
        [
            ("step", "<f4", (rows,)),  # nats
            ("best", "<i4", (rows,)),  # the likeliest token
            ("nll", "<f4", (rows,)),  # -ln p of the token that came
            ("logits", "<u2", (rows, vocab)),  # TOP is the largest
            ("crc", "<u4"),  # of all before
        ]
    )


def _crc(record: NDArray[np.void]) -> int:
    """The CRC-32 of all but the CRC-32."""
    return zlib.crc32(record.view(np.uint8)[:-4].data)


class ReferenceWriter:
    """Writes a reference; the file appears when it is complete."""

    def __init__(
        self, path: Path, *, chunks: int, rows: int, vocab: int, about: Mapping[str, Any]
    ) -> None:
        self._record = np.zeros(1, _record(rows, vocab))
        head = {"rows": rows, "vocab": vocab, "chunks": chunks, "about": about}
        header = json.dumps(head, sort_keys=True).encode()
        self._file = AtomicFile(path)
        self._file.reserve(chunks * self._record.nbytes)
        self._file.write(MAGIC + struct.pack("<I", len(header)) + header)
        self._filled = 0  # rows of the chunk

    def write(self, logits: Logits, targets: Tokens) -> None:
        """Adds rows of the chunk: logits (rows, vocabulary) and the tokens that came, (rows,)."""
        chunk = self._record[0]
        for i in range(len(logits)):
            row = self._filled + i
            shifted, log_sum, best = normalised(logits[i : i + 1])
            chunk["best"][row] = best[0]
            chunk["nll"][row] = (log_sum - at(shifted, targets[i : i + 1]))[0]
            step = np.float32(min(-shifted.min(), RANGE) / TOP or 1.0)
            chunk["step"][row] = step
            chunk["logits"][row] = np.rint(np.maximum(shifted[0] / step, -TOP)) + TOP
        self._filled += len(logits)
        if self._filled == len(chunk["step"]):
            self._record["crc"] = _crc(self._record)
            self._file.write(self._record.view(np.uint8).data)
            self._filled = 0

    def __enter__(self) -> ReferenceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)


class ReferenceLogits:
    """A reference on disk; a chunk is read when it is asked for.

    Attributes:
        path: the file.
        about: what made it.
        rows: scored rows in a chunk.
        vocab: their length.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the header.

        Raises:
            NotFoundError: there is no such file.
            CorruptFileError: it is something else, or damaged.
        """
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                start = file.read(len(MAGIC) + 4)
                if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
                    raise self._broken("not a file of reference logits")
                (length,) = struct.unpack("<I", start[len(MAGIC) :])
                header = file.read(min(length, MOST_HEADER))
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            raise NotFoundError(f"{self.path}: no such file") from None
        try:
            head = parse_json(header)
            self.rows, self.vocab, self._chunks = (
                int(head[name]) for name in ("rows", "vocab", "chunks")
            )
            self.about: Mapping[str, Any] = dict(head["about"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken("its header cannot be read") from error
        self._start = len(start) + length
        self._size = 12 * self.rows + 2 * self.rows * self.vocab + 4
        if min(self.rows, self.vocab) < 1 or size != self._start + self._chunks * self._size:
            raise self._broken("it is cut off")

    def __len__(self) -> int:
        return self._chunks

    def __iter__(self) -> Iterator[ReferenceRows]:
        return map(self.chunk, range(len(self)))

    def chunk(self, number: int) -> ReferenceRows:
        """Reads a chunk.

        Raises:
            CorruptFileError: it is not what was written.
        """
        chunk = self._read(number)
        logits = chunk["logits"].astype(np.float32)
        logits -= TOP
        logits *= chunk["step"][:, None]
        return ReferenceRows(logits, chunk["best"], chunk["nll"])

    def check(self) -> None:
        """Reads all of it.

        Raises:
            CorruptFileError: it is not what was written.
        """
        for number in range(len(self)):
            self._read(number)

    def _read(self, number: int) -> np.void:
        form = _record(self.rows, self.vocab)
        offset = self._start + number * self._size
        record = np.fromfile(self.path, form, count=1, offset=offset)
        if _crc(record) != record["crc"][0]:
            raise self._broken(f"chunk {number} is not what was written")
        chunk: np.void = record[0]
        return chunk

    def _broken(self, problem: str) -> CorruptFileError:
        return CorruptFileError(
            f"{self.path}: {problem}", hint="delete it; it is made anew when it is needed"
        )
