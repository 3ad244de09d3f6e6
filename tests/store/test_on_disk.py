"""Models that are on disk already: paths, Ollama's store, LM Studio's folders."""

from __future__ import annotations

import hashlib
import json

import pytest

from edgeinfer import store
from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError, UsageError

GGUF = b"GGUF" + bytes(100)


def put(path, content=GGUF):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# Paths


def test_a_gguf_file(tmp_path):
    path = put(tmp_path / "model-q4_0.gguf")

    model = store.resolve(str(path))

    assert (model.path, model.format, model.quant, model.bytes) == (path, "gguf", "Q4_0", len(GGUF))
    assert store.resolve(f"file://{path}").path == path


def test_a_gguf_file_of_another_name_is_known_by_its_magic(tmp_path):
    assert store.resolve(str(put(tmp_path / "sha256-abc"))).format == "gguf"


def test_an_existing_path_wins_over_every_other_meaning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "smollm2")
    put(tmp_path / "org" / "repo", GGUF)

    assert store.resolve("smollm2").source == "local"
    assert store.resolve("org/repo").source == "local"


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["config.json", "model.safetensors"], "hf"),
        (["mlc-chat-config.json", "config.json", "model.safetensors"], "mlc"),
        (["genai_config.json", "model.onnx"], "onnx"),
        (["readme.md", "model-Q8_0.gguf"], "gguf"),
    ],
)
def test_a_folder_is_what_its_files_say(tmp_path, files, kind):
    for name in files:
        put(tmp_path / "m" / name)

    assert store.resolve(str(tmp_path / "m")).format == kind


def test_a_safetensors_file_means_its_folder(tmp_path):
    put(tmp_path / "config.json", {})

    model = store.resolve(str(put(tmp_path / "model.safetensors", b"weights")))

    assert (model.path, model.format) == (tmp_path, "hf")


def test_a_model_in_parts_is_whole_or_an_error(tmp_path):
    first = put(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(NotFoundError, match="00002-of-00002"):
        store.resolve(str(first))

    put(tmp_path / "m-00002-of-00002.gguf")

    assert store.resolve(str(first)).bytes == 2 * len(GGUF)


@pytest.mark.parametrize("name", ["notes.txt", "pytorch_model.bin"])
def test_a_file_that_is_no_model(tmp_path, name):
    with pytest.raises(UnsupportedError, match=name):
        store.resolve(str(put(tmp_path / name, b"hello")))


def test_a_folder_of_pickles_is_refused_with_the_reason(tmp_path):
    put(tmp_path / "config.json", {})
    put(tmp_path / "pytorch_model.bin")

    with pytest.raises(UnsupportedError) as caught:
        store.resolve(str(tmp_path))

    assert "can run code" in str(caught.value.hint)


@pytest.mark.parametrize("reference", ["./nothing", "/nothing/here.gguf", "nothing.gguf", "~/no"])
def test_a_path_that_does_not_exist(reference):
    assert store.locate(reference) is None
    with pytest.raises(NotFoundError, match="no file or folder"):
        store.resolve(reference)


def test_a_file_of_the_user_is_not_removed(tmp_path):
    path = put(tmp_path / "m.gguf")

    with pytest.raises(UsageError) as caught:
        store.remove(str(path))

    assert str(caught.value.hint) == f"to delete it: rm {path}"
    assert path.exists()


# Ollama


@pytest.fixture
def ollama(home):
    """Puts a model into Ollama's store the way Ollama lays it out."""
    root = home / ".ollama" / "models"

    def blob(content):
        digest = hashlib.sha256(content).hexdigest()
        put(root / "blobs" / f"sha256-{digest}", content)
        return f"sha256:{digest}"

    def add(name="registry.ollama.ai/library/llama3.2/latest", weights=GGUF, digest=None):
        manifest = {
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": blob(
                    json.dumps({"model_format": "gguf", "file_type": "Q4_K_M"}).encode()
                ),
            },
            "layers": [
                {"mediaType": "application/vnd.ollama.image.license", "digest": blob(b"MIT")},
                {
                    "mediaType": "application/vnd.ollama.image.model",
                    "digest": digest or blob(weights),
                },
            ],
        }
        put(root / "manifests" / name, manifest)
        return root

    return add


@pytest.mark.parametrize(
    ("folder", "reference"),
    [
        ("registry.ollama.ai/library/llama3.2/latest", "ollama://llama3.2"),
        ("registry.ollama.ai/library/llama3.2/1b", "ollama://llama3.2:1b"),
        ("registry.ollama.ai/someone/llama/7b", "ollama://someone/llama:7b"),
        ("hf.co/org/repo-GGUF/Q4_K_M", "ollama://hf.co/org/repo-GGUF:Q4_K_M"),
    ],
)
def test_a_model_of_ollama_is_read_in_place(ollama, folder, reference):
    root = ollama(folder)

    model = store.resolve(reference)

    assert model.path.parent == root / "blobs"
    assert model.path.read_bytes() == GGUF
    assert (model.source, model.quant) == ("ollama", "Q4_K_M")
    assert store.resolve(model.reference) == model
    assert store.list_models() == [model]


def test_ollama_s_folder_may_be_elsewhere(ollama, home, monkeypatch):
    elsewhere = ollama().rename(home / "elsewhere")
    monkeypatch.setenv("OLLAMA_MODELS", str(elsewhere))

    assert store.resolve("ollama://llama3.2").path.is_relative_to(elsewhere)


def test_what_ollama_does_not_have(ollama):
    ollama()

    with pytest.raises(NotFoundError) as caught:
        store.resolve("ollama://llama3.2:70b")

    assert caught.value.hint == "ollama pull llama3.2:70b"


@pytest.mark.parametrize(
    "reference",
    ["ollama://", "ollama://..", "ollama://../../etc/passwd", "ollama://a:..", "ollama://a/../b:c"],
)
def test_a_reference_cannot_leave_ollama_s_store(ollama, reference):
    ollama()

    with pytest.raises(UsageError):
        store.resolve(reference)


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../etc/passwd", "sha256-abc", "../x", 7, "md5:" + "0" * 64]
)
def test_a_digest_cannot_leave_ollama_s_store(ollama, digest):
    ollama(digest=digest)

    with pytest.raises(CorruptFileError, match="no SHA-256 digest"):
        store.resolve("ollama://llama3.2")
    assert store.list_models() == []


def test_ollama_models_that_are_no_gguf_are_not_offered(ollama):
    ollama(weights=b"{safetensors}")

    assert store.list_models() == []
    assert store.locate("ollama://llama3.2") is None


def test_ollama_s_models_are_not_removed(ollama):
    ollama()

    with pytest.raises(UsageError, match="belongs to Ollama") as caught:
        store.remove("ollama://llama3.2")

    assert caught.value.hint == "ollama rm llama3.2"
    assert store.locate("ollama://llama3.2")


# LM Studio


@pytest.mark.parametrize("folder", [".lmstudio/models", ".cache/lm-studio/models"])
def test_a_model_of_lm_studio_is_read_in_place(home, folder):
    path = put(home / folder / "org" / "Model-GGUF" / "Model-Q4_K_M.gguf")
    put(path.with_name("mmproj-Model-F16.gguf"))

    model = store.resolve("lmstudio://org/Model-GGUF")

    assert (model.path, model.quant, model.source) == (path, "Q4_K_M", "lmstudio")
    assert store.list_models() == [model]
    assert store.resolve(model.reference) == model
    # The hub's name finds it too, so nothing is downloaded twice.
    assert store.resolve("org/Model-GGUF", offline=True) == model
    assert store.locate("org/Model-GGUF:Q8_0") is None


def test_lm_studio_s_models_are_not_removed(home):
    path = put(home / ".lmstudio/models/org/m/m-Q4_0.gguf")

    with pytest.raises(UsageError) as caught:
        store.remove("lmstudio://org/m")

    assert caught.value.hint == f"rm {path}"


@pytest.mark.parametrize("reference", ["lmstudio://", "lmstudio://../x", "lmstudio://a/..:b"])
def test_a_reference_cannot_leave_lm_studio_s_folder(reference):
    with pytest.raises(UsageError):
        store.resolve(reference)


# Names


@pytest.mark.parametrize("name", ["smolm2", "smollm", "SmolLM-2"])
def test_a_mistyped_name_is_answered_with_near_ones(name):
    with pytest.raises(NotFoundError) as caught:
        store.resolve(name)

    assert "smollm2" in str(caught.value.hint)


def test_a_name_like_no_other_is_answered_with_the_forms():
    with pytest.raises(NotFoundError) as caught:
        store.resolve("qqq")

    assert "org/repo[:QUANT]" in str(caught.value.hint)


def test_an_empty_name():
    with pytest.raises(UsageError):
        store.resolve("")
