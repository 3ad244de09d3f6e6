"""The Hugging Face hub, acted by a server on the loopback, through the real hub library.

Each test runs the program, because the library reads its environment when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BODIES = {quant: b"GGUF" + random.Random(quant).randbytes(100_000) for quant in ("Q4_K_M", "Q8_0")}
GGUFS = {f"m-{quant}.gguf": body for quant, body in BODIES.items()} | {"README.md": b"hello"}
CHECKPOINT = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": json.dumps(
        {
            "weight_map": {
                "a": "model-00001-of-00002.safetensors",
                "b": "model-00002-of-00002.safetensors",
            }
        }
    ).encode(),
    "model-00001-of-00002.safetensors": b"1" * 2000,
    "model-00002-of-00002.safetensors": b"2" * 2000,
    "consolidated.safetensors": b"3" * 2000,
    "pytorch_model.bin": b"pickle",
    "original/params.json": b"{}",
}


@pytest.fixture
def publish(server):
    """Puts a repository on the hub."""

    def add(repo: str, files: dict[str, bytes], *, lie: str = "") -> None:
        siblings = []
        for name, body in files.items():
            digest = hashlib.sha256(lie.encode() or body).hexdigest()
            is_large = name.endswith((".gguf", ".safetensors"))
            lfs = {"sha256": digest, "size": len(body), "pointerSize": 130}
            siblings.append(
                {"rfilename": name, "size": len(body), "blobId": "b" * 40}
                | ({"lfs": lfs} if is_large else {})
            )
            path = f"/{repo}/resolve/main/{name}"
            server.files[path] = body
            server.headers[path] = {
                "X-Repo-Commit": COMMIT,
                "ETag": f'"{digest if is_large else hashlib.sha1(body).hexdigest()}"',
            }
        info = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
        server.files[f"/api/models/{repo}"] = json.dumps(info).encode()
        server.headers[f"/api/models/{repo}"] = {"Content-Type": "application/json"}

    return add


@pytest.fixture
def edgeinfer(server):
    """Runs the program against the acted hub; returns (exit code, JSON, stderr)."""

    def run(*arguments: str, **environment: str):
        done = subprocess.run(
            [sys.executable, "-m", "edgeinfer", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_ENDPOINT": server.url}
            | environment,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    return run


def test_the_usual_gguf_is_pulled_into_the_hub_s_cache(publish, edgeinfer, server, home):
    publish("org/repo-GGUF", GGUFS)

    code, model, _ = edgeinfer("pull", "org/repo-GGUF")

    assert code == 0
    assert model["reference"] == "org/repo-GGUF:Q4_K_M"
    assert (model["format"], model["bytes"]) == ("gguf", len(BODIES["Q4_K_M"]))
    cached = home / "huggingface/hub/models--org--repo-GGUF/snapshots" / COMMIT / "m-Q4_K_M.gguf"
    assert model["path"] == str(cached)
    assert cached.read_bytes() == BODIES["Q4_K_M"]
    assert not (cached.parent / "m-Q8_0.gguf").exists()
    # The second time nothing is asked.
    requests = len(server.requests)
    assert edgeinfer("pull", "hf://org/repo-GGUF:q4_k_m")[:2] == (0, model)
    assert edgeinfer("pull", "org/repo-GGUF", HF_HUB_OFFLINE="1")[:2] == (0, model)
    assert len(server.requests) == requests


def test_listing_and_removing_what_was_pulled(publish, edgeinfer, home):
    publish("org/repo-GGUF", GGUFS)
    for quant in BODIES:
        edgeinfer("pull", f"org/repo-GGUF:{quant}")

    _, models, _ = edgeinfer("list")
    code, removed, _ = edgeinfer("rm", "org/repo-GGUF:Q8_0")

    assert [model["reference"] for model in models] == [
        "org/repo-GGUF:Q4_K_M",
        "org/repo-GGUF:Q8_0",
    ]
    assert (code, removed["bytes"]) == (0, len(BODIES["Q8_0"]))
    assert [m["reference"] for m in edgeinfer("list")[1]] == ["org/repo-GGUF:Q4_K_M"]
    assert edgeinfer("rm", "org/repo-GGUF")[0] == 0
    assert edgeinfer("list")[1] == []
    assert not any(path.is_file() for path in home.rglob("models--org--repo-GGUF/blobs/*"))


def test_a_repository_without_gguf_gives_its_safetensors_and_no_pickles(publish, edgeinfer):
    publish("org/checkpoint", CHECKPOINT)

    code, model, _ = edgeinfer("pull", "org/checkpoint")

    assert (code, model["format"], model["reference"]) == (0, "hf", "org/checkpoint")
    assert sorted(os.listdir(model["path"])) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ]
    assert edgeinfer("list")[1][0]["reference"] == "org/checkpoint"


def test_a_checkpoint_with_a_missing_shard_is_not_taken_for_whole(publish, edgeinfer, server):
    publish("org/checkpoint", CHECKPOINT)
    path = edgeinfer("pull", "org/checkpoint")[1]["path"]
    os.unlink(f"{path}/model-00002-of-00002.safetensors")

    code, _, stderr = edgeinfer("pull", "org/checkpoint", HF_HUB_OFFLINE="1")

    assert code == 3
    assert "offline mode is on" in stderr
    assert edgeinfer("pull", "org/checkpoint")[0] == 0
    assert os.path.exists(f"{path}/model-00002-of-00002.safetensors")


def test_a_quant_type_that_is_not_there(publish, edgeinfer):
    publish("org/repo-GGUF", GGUFS)

    code, error, _ = edgeinfer("pull", "org/repo-GGUF:Q2_K")

    assert code == 3
    assert error["error"]["hint"] == "it has Q4_K_M, Q8_0"


def test_a_repository_that_is_not_there(edgeinfer, server):
    server.headers["/api/models/org/none"] = {"X-Error-Code": "RepoNotFound"}

    code, error, _ = edgeinfer("pull", "org/none")

    assert code == 3
    assert "org/none" in error["error"]["message"]
    assert "HF_TOKEN" in error["error"]["hint"]


def test_a_gated_repository_says_what_to_do(publish, edgeinfer, server):
    publish("org/gated", GGUFS)
    server.headers["/api/models/org/gated"] = {"X-Error-Code": "GatedRepo"}
    server.statuses = [403]

    code, error, _ = edgeinfer("pull", "org/gated")

    assert code == 3
    assert "accept its terms" in error["error"]["hint"]


def test_only_pickles_are_refused(publish, edgeinfer):
    publish("org/old", {"config.json": b"{}", "pytorch_model.bin": b"x"})

    code, error, _ = edgeinfer("pull", "org/old")

    assert code == 3
    assert "can run code" in error["error"]["hint"]


def test_a_file_with_another_hash_is_removed(publish, edgeinfer, home):
    publish("org/repo-GGUF", GGUFS, lie="something else")

    code, error, _ = edgeinfer("pull", "org/repo-GGUF")

    assert code == 7
    assert error["error"]["code"] == "check_failed"
    assert not [path for path in home.rglob("*") if path.is_file() and path.stat().st_size > 50_000]


def test_an_unsafe_file_name_is_refused(publish, edgeinfer):
    publish("org/evil", {"../../evil.gguf": b"GGUF"})

    assert edgeinfer("pull", "org/evil")[0] == 5


def test_the_token_goes_to_the_hub(publish, edgeinfer, server):
    publish("org/repo-GGUF", GGUFS)

    edgeinfer("pull", "org/repo-GGUF", HF_TOKEN="hf_secret")

    asked = zip(server.requests, server.authorizations, strict=True)
    assert {token for (_, path, _), token in asked if "org/repo-GGUF" in path} == {
        "Bearer hf_secret"
    }


def test_no_hub_at_all(edgeinfer):
    code, error, _ = edgeinfer("pull", "org/repo", HF_ENDPOINT="http://127.0.0.1:9")

    assert code == 3
    assert "cannot fetch org/repo" in error["error"]["message"]


def test_a_model_in_parts(publish, edgeinfer):
    parts = {f"m-Q8_0-0000{n}-of-00002.gguf": b"GGUF" + bytes(2000) for n in (1, 2)}
    publish("org/large", parts)

    _, model, _ = edgeinfer("pull", "org/large")

    assert model["path"].endswith("m-Q8_0-00001-of-00002.gguf")
    assert model["bytes"] == 2 * 2004
