"""SHA-256 of files and models, and the error when it is another."""

from __future__ import annotations

from pathlib import Path

from edgeinfer.errors import CheckFailedError


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_model(path: Path) -> str:
    """Returns a digest of all that a model is made of: a file, its shards, or a folder."""
    import hashlib
    import re

    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif shard := re.fullmatch(r"(.*-)\d{5}(-of-\d{5}\.gguf)", path.name):
        files = sorted(
            file
            for file in path.parent.iterdir()
            if file.name.startswith(shard[1]) and file.name.endswith(shard[2])
        )
    else:
        return sha256_of(path)
    listed = "".join(f"{sha256_of(file)} {file.relative_to(path.parent)}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def check_sha256(path: Path, expected: str, what: str) -> None:
    """Removes the file and raises if its SHA-256 is not the expected one.

    Raises:
        CheckFailedError: it is another.
    """
    actual = sha256_of(path)
    if actual != expected.lower():
        path.unlink()
        raise CheckFailedError(
            f"{what} has SHA-256 {actual}, expected {expected}; it was removed",
            hint="run the same command again; if it fails again, what the server has was changed",
        )
