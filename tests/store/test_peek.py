"""Plans of models that are only on the hub: an acted hub, redirects to a host of files, ranges.

Each test runs the program, because the hub's library reads its environment when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import make_model
import numpy as np
import pytest

from edgeinfer import quant
from edgeinfer.errors import NotFoundError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.store import http
from support import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHAPE = replace(
    make_model.SHAPES["llama1b"],
    layers=2, width=512, ff_width=2048, heads=8, kv_heads=2, head_dim=64, vocabulary=20000,
    context=16384,
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Quant type -> a GGUF of several megabytes, of which the header is one."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("q4_0", "q8_0"):
        make_model.write(SHAPE, quant.get(name), folder / f"{name}.gguf")
    return {name: folder / f"{name}.gguf" for name in ("q4_0", "q8_0")}


def publish(server, repo, files):
    """Puts files on the hub; their bytes come from another host, as the hub's do."""
    siblings = [{"rfilename": n, "size": len(body), "blobId": "b"} for n, body in files.items()]
    info = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
    server.files[f"/api/models/{repo}"] = json.dumps(info).encode()
    server.headers[f"/api/models/{repo}"] = {"Content-Type": "application/json"}
    for name, body in files.items():
        server.files[f"/cdn/{name}"] = body
        host = server.url.replace("127.0.0.1", "localhost")
        server.redirects[f"/{repo}/resolve/{COMMIT}/{name}"] = f"{host}/cdn/{name}"


@pytest.fixture
def plan(server):
    """Runs ``plan`` against the acted hub; returns (exit code, record, stderr)."""

    def run(*arguments: str, **environment: str):
        done = subprocess.run(
            [sys.executable, "-m", "edgeinfer", "plan", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(sys.path),
                "HF_ENDPOINT": server.url,
                "NO_PROXY": "127.0.0.1,localhost",
            }
            | environment,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    return run


def row_of(record, name, **wanted):
    """The first row of a quant type with these values."""
    return next(
        row
        for row in record["rows"]
        if row["quant"] == name and all(row[key] == value for key, value in wanted.items())
    )


def test_a_remote_gguf_is_planned_from_its_header_as_if_it_were_here(plan, server, models):
    publish(server, "org/one", {"m-Q4_0.gguf": models["q4_0"].read_bytes()})

    _, remote, _ = plan("org/one", "-c", "2048", "--backend", "native")
    local = plan(str(models["q4_0"]), "-c", "2048", "--backend", "native")[1]

    for key in ("weights_bytes", "kv_bytes", "scratch_bytes", "runtime_bytes", "quant"):
        assert remote[key] == local[key]
    assert remote["how"] == "edgeinfer pull org/one:Q4_0"


def test_no_more_than_twice_the_header_is_fetched(plan, server, models):
    body = models["q8_0"].read_bytes()
    publish(server, "org/one", {"m-Q8_0.gguf": body})
    with open_gguf(models["q8_0"]) as file:
        header = min(info.offset for info in file.tensors.values())

    plan("org/one")

    assert 512 << 10 < header < len(body) / 8
    ranges = server.gets("/cdn/m-Q8_0.gguf")
    assert ranges[:2] == ["bytes=0-262143", "bytes=262144-524287"]
    assert server.sent < 2 * header + 10_000


def test_what_was_fetched_is_kept_and_serves_offline(plan, server, models):
    publish(server, "org/one", {"m-Q4_0.gguf": models["q4_0"].read_bytes()})
    _, first, _ = plan("org/one")
    asked = len(server.gets("/cdn/m-Q4_0.gguf"))

    again = plan("org/one")[1]
    offline = plan("org/one", "--offline")[1]
    code, _, stderr = plan("org/other", "--offline")

    assert len(server.gets("/cdn/m-Q4_0.gguf")) == asked
    assert again["total_bytes"] == offline["total_bytes"] == first["total_bytes"]
    assert code == 3
    assert "offline" in stderr


def test_another_commit_is_fetched_anew(plan, server, models):
    publish(server, "org/one", {"m-Q4_0.gguf": models["q4_0"].read_bytes()})
    plan("org/one")
    publish(server, "org/one", {"m-Q4_0.gguf": models["q8_0"].read_bytes()})
    moved = json.loads(server.files["/api/models/org/one"]) | {"sha": COMMIT[::-1]}
    server.files["/api/models/org/one"] = json.dumps(moved).encode()
    old = f"/org/one/resolve/{COMMIT}/m-Q4_0.gguf"
    server.redirects[old.replace(COMMIT, COMMIT[::-1])] = server.redirects.pop(old)

    assert plan("org/one")[1]["quant"] == "q8_0"


def test_the_other_files_are_planned_by_their_sizes(plan, server, models):
    files = {f"m-{name.upper()}.gguf": path.read_bytes() for name, path in models.items()}
    publish(server, "org/two", files)

    _, record, _ = plan("org/two", "-c", "2048", "--backend", "native")
    exact = plan(str(models["q8_0"]), "-c", "2048", "--backend", "native")[1]

    assert not server.gets("/cdn/m-Q8_0.gguf")
    sized = row_of(record, "q8_0")
    assert not sized["is_exact"]
    assert sized["weights_bytes"] == pytest.approx(exact["weights_bytes"], rel=0.01)
    assert row_of(record, "q4_0")["is_exact"]


def test_one_quant_of_several(plan, server, models):
    files = {f"m-{name.upper()}.gguf": path.read_bytes() for name, path in models.items()}
    publish(server, "org/two", files)

    by_name = plan("org/two:Q8_0")[1]
    by_option = plan("org/two", "-q", "q8_0")[1]
    code, _, stderr = plan("org/two:Q2_K")

    assert {row["quant"] for row in by_name["rows"]} == {"q8_0"}
    assert all(row["is_exact"] for row in by_option["rows"])
    assert code == 3
    assert "Q4_0, Q8_0" in stderr


def test_parts_are_one_model(plan, server, models, tmp_path):
    with open_gguf(models["q4_0"]) as whole:
        names = list(whole.tensors)
        for number, held in enumerate((names[:5], names[5:])):
            with GGUFWriter(tmp_path / f"m-Q4_0-0000{number + 1}-of-00002.gguf") as part:
                for key, value in whole.metadata.items() if number == 0 else ():
                    part.add_metadata(key, value, whole.metadata.types[key])
                for key, count in (("no", number), ("count", 2)):
                    part.add_metadata(f"split.{key}", np.uint16(count))
                part.add_metadata("split.tensors.count", np.int32(len(names)))
                for name in held:
                    part.declare_tensor(name, whole.tensors[name].type, whole.tensors[name].shape)
                part.begin()
                for name in held:
                    part.write(name, whole.data(name))
    publish(server, "org/split", {p.name: p.read_bytes() for p in tmp_path.glob("*.gguf")})

    record = plan("org/split", "-c", "2048", "--backend", "native")[1]

    whole = plan(str(models["q4_0"]), "-c", "2048", "--backend", "native")[1]
    assert record["weights_bytes"] == whole["weights_bytes"]
    assert len(server.gets("/cdn/m-Q4_0-00002-of-00002.gguf")) == 1


def test_a_checkpoint_is_planned_in_every_type_it_can_be_converted_to(plan, server, tmp_path):
    folder = tiny.write(tiny.MODELS[0], tmp_path / "checkpoint")
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    publish(server, "org/checkpoint", files)

    code, record, stderr = plan("org/checkpoint", "--backend", "native")

    assert code == 0, stderr
    assert {row["quant"] for row in record["rows"]} >= {"f16", "q8_0", "q4_k_m"}
    assert "edgeinfer convert org/checkpoint" in record["how"]


def test_a_repository_that_is_not_there(plan, server):
    server.headers["/api/models/org/none"] = {"X-Error-Code": "RepoNotFound"}

    assert plan("org/none")[0] == 3


def test_a_file_that_is_no_gguf(plan, server):
    publish(server, "org/wrong", {"m-Q4_0.gguf": b"<html>" * 1000})

    code, _, stderr = plan("org/wrong")

    assert code == 6
    assert "not a GGUF file" in stderr


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_range_is_read_and_no_more(server, ranges):
    server.files["/x"] = bytes(range(256)) * 4096
    server.ranges = ranges
    with http.open_client() as client:
        assert (
            http.read_range(client, f"{server.url}/x", 100, 300, {})
            == (server.files["/x"][100:300])
        )
        whole = http.read_range(client, f"{server.url}/x", 1 << 19, 1 << 30, {})
    assert whole == server.files["/x"][1 << 19 :]


def test_a_range_goes_on_where_the_connection_broke(server):
    server.files["/x"] = bytes(range(256)) * 4096
    server.cuts = [100_000]
    with http.open_client() as client:
        got = http.read_range(client, f"{server.url}/x", 1000, 500_000, {})

    assert got == server.files["/x"][1000:500_000]
    assert len(server.gets("/x")) == 2


def test_a_gated_file_says_what_to_do(server):
    server.files["/x"] = b"x" * 100
    server.statuses = [403]
    with http.open_client() as client, pytest.raises(NotFoundError) as caught:
        http.read_range(client, f"{server.url}/x", 0, 10, {})

    assert "HF_TOKEN" in caught.value.hint


def test_the_token_does_not_leave_the_hub(plan, server, models):
    publish(server, "org/one", {"m-Q4_0.gguf": models["q4_0"].read_bytes()})

    plan("org/one", HF_TOKEN="hf_secret")

    asked = zip(server.requests, server.authorizations, strict=True)
    tokens = {(path.split("/")[1], token) for (_, path, _), token in asked if "m-Q4" in path}
    assert tokens == {("org", "Bearer hf_secret"), ("cdn", None)}
