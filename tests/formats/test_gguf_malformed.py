"""Thousands of wrong GGUF files: each is read or refused, none crashes, hangs or takes memory."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from edgeinfer.errors import EdgeInferError
from edgeinfer.formats.gguf import parse_header
from support.gguf_parts import ARRAY, BOOL, STRING, U32, Key, Parts, array, assemble, string
from support.malformed import iter_malformed
from support.sandbox import Report, try_all
from support.tiny_gguf import write_tiny_gguf

MIB = 1 << 20


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("valid") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="module")
def report(valid: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return try_all(
        "support.loaders:read_gguf",
        "support.malformed:iter_malformed",
        valid,
        tmp_path_factory.mktemp("malformed"),
    )


def test_the_corpus_is_large_and_the_same_every_time(valid: Path) -> None:
    octets = valid.read_bytes()
    first = list(iter_malformed(octets))

    assert first == list(iter_malformed(octets))
    assert len({file for _, file in first}) >= 5000
    assert len({label for label, _ in first}) == len(first)


def test_every_file_is_read_or_refused_with_a_typed_error(report: Report) -> None:
    assert report.crashed is None
    assert report.leaked == []
    assert report.total >= 5000
    assert report.refused["CorruptFileError"] > report.read


def test_no_file_takes_a_second_or_more_memory_than_it_is_worth(report: Report) -> None:
    assert report.slow == []
    assert report.peak_growth < 32 * MIB


@pytest.fixture(scope="module")
def refused(valid: Path) -> dict[str, str]:
    """The message about each file that is refused, by label."""
    refused = {}
    for label, octets in iter_malformed(valid.read_bytes()):
        try:
            parse_header(octets)
        except EdgeInferError as error:
            refused[label] = error.message
    return refused


def test_what_other_parsers_crashed_on_is_refused(valid: Path, refused: dict[str, str]) -> None:
    """Mutations that can never be read, whatever the rest of the file says."""
    wrong = (
        *("truncated to", "alignment ", "version 4", "big-endian", "web page", "zip", "zeros"),
        *("18446744073709551615 keys", "18446744073709551615 tensors", "two tensors of 2^63"),
        *("key name empty", "key name not UTF-8", "key name 100,000", "tensor name"),
        *("string not UTF-8", "string half", "string in array surrogate", "test.u8 twice"),
        *("array of 18446744073709551615", "array nested 2", "boolean of", "booleans of"),
        *("bytes after the end", "no data", "tensors in reverse", "tensor 0 at", "tensor 0 of"),
    )

    labels = [label for label, _ in iter_malformed(valid.read_bytes())]
    read = {label for label in labels if label.startswith(wrong) and label not in refused}

    for start in wrong:
        assert any(label.startswith(start) for label in labels), start
    assert read == set()


REASONS = {
    "key[3].type = 0xff": "key 'test.u8', byte 153: unknown value type 255",
    "tensor[1].rank = 0x0": "tensor 'blk.0.attn_q.weight', byte 642: 0 dimensions",
    "tensor[1].type = 0x2f": "tensor 'blk.0.attn_q.weight', byte 662: unknown tensor type 47",
    "tensor[1].dims[0] = 0x1": "'blk.0.attn_q.weight', byte 615: rows of 1 elements",
    "general.name twice": "key 'general.name', byte 105: the key is there twice",
    "tensor name 1 twice": "tensor 'blk.0.attn_q.weight', byte 617: the tensor is there twice",
    "tensor 0 of (0,)": "impossible dimensions (0,)",
    "tensor 0 of (4294967296, 4294967296)": "impossible dimensions",
    "18446744073709551615 keys announced": "at most 65536 can be",
    "65536 tensors announced": "do not fit the",
    "key[15].value[2].length = 0x80000000": "string 2 has 2147483648 bytes",
    "big-endian": "a big-endian GGUF file",
    "version 1": "GGUF version 1",
    "version 4": "GGUF version 4",
    "array nested 2 deep": "key 'x.nested' is an array of arrays",
    "truncated to 1707": "'output_norm.weight', byte 1664: the file is truncated",
}


@pytest.mark.parametrize("label", REASONS)
def test_an_error_names_the_place_and_the_reason(refused: dict[str, str], label: str) -> None:
    assert REASONS[label] in refused[label]


MANY = 50_000
COSTLY = {
    # The most expensive ways to spend bytes of a header, each in a file of up to a megabyte.
    "empty strings": ((b"a", ARRAY, array(STRING, MANY, string(b"") * MANY)),),
    "short strings": ((b"a", ARRAY, array(STRING, MANY, string(b"ab") * MANY)),),
    "wide strings": ((b"a", ARRAY, array(STRING, MANY, string("a🙂".encode()) * MANY)),),
    "booleans": ((b"a", ARRAY, array(BOOL, 16 * MANY, bytes(16 * MANY))),),
    "small keys": tuple((b"%05x" % n, BOOL, b"\0") for n in range(16_384)),
    "empty arrays": tuple((b"%05x" % n, ARRAY, array(U32, 0, b"")) for n in range(16_384)),
}


@pytest.mark.parametrize("name", COSTLY)
def test_time_and_memory_are_in_proportion_to_the_file(name: str) -> None:
    octets = assemble(Parts(tuple(Key(*key) for key in COSTLY[name]), (), b"", alignment=1))

    tracemalloc.start()
    header = parse_header(octets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    started = time.process_time()
    parse_header(octets)
    seconds = time.process_time() - started

    assert len(header.metadata) == len(COSTLY[name])
    assert peak < 12 * len(octets) + MIB
    assert seconds < 2 * len(octets) / MIB  # 0.02 s to 0.3 s a megabyte when measured
