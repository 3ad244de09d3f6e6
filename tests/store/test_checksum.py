"""What a model's digest is of."""

from __future__ import annotations

import hashlib

from edgeinfer.store.checksum import sha256_of_model


def test_a_file_has_its_own(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"weights")

    assert sha256_of_model(tmp_path / "model.gguf") == hashlib.sha256(b"weights").hexdigest()


def test_a_change_in_any_shard_or_file_of_a_folder_changes_it(tmp_path):
    first, second = (tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2))
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    (tmp_path / "other.gguf").write_bytes(b"no part of it")
    shards, folder = sha256_of_model(first), sha256_of_model(tmp_path)

    (tmp_path / "other.gguf").write_bytes(b"changed")
    assert sha256_of_model(first) == shards
    assert sha256_of_model(tmp_path) != folder
    second.write_bytes(b"c")
    assert sha256_of_model(first) != shards
