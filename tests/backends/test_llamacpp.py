"""What is llama.cpp's own: its library, its words, its options."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends import llamacpp
from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.device.detect import detect
from edgeinfer.errors import UnsupportedError
from support import tiny
from support.contract import TEXT
from support.fake_model import fake_plan
from support.whole_model import write_whole_model


def load(path: Path, *, kv_type: str = "f16", **changes):
    changes |= {"kv_type_k": kv_type, "kv_type_v": kv_type}
    plan = replace(fake_plan(context=64), backend="llamacpp", **changes)
    return llamacpp.LlamaCppBackend().load(ModelFiles(path=path, format="gguf"), plan)


def test_the_library_is_not_imported_before_it_is_used():
    code = (
        "import sys; from edgeinfer.backends import llamacpp; llamacpp.LlamaCppBackend().version();"
        "assert 'llama_cpp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_library_that_is_not_there_is_named_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(llamacpp, "PACKAGE", "llama-cpp-python-of-nobody")
    monkeypatch.setattr(llamacpp, "MODULE", "llama_cpp_of_nobody")
    llamacpp._library.cache_clear()

    support = llamacpp.LlamaCppBackend().probe(detect())
    assert not support.usable
    assert "edgeinfer[llamacpp]" in support.reason
    with pytest.raises(UnsupportedError, match="llama_cpp_of_nobody") as caught:
        load(tmp_path / "any.gguf")
    assert "edgeinfer[llamacpp]" in caught.value.hint


@pytest.mark.peer
class TestWithTheLibrary:
    def test_it_says_which_version_it_is_and_what_it_uses(self):
        support = llamacpp.LlamaCppBackend().probe(detect())
        assert support.usable
        assert llamacpp.LlamaCppBackend().version() in support.reason

    def test_what_it_refuses_is_told_in_its_words(self, tmp_path):
        path = write_whole_model(tmp_path / "model.gguf")
        data = path.read_bytes()
        kind = data.index(b"tokenizer.ggml.pre") + 18 + 4 + 8  # key, type, length
        path.write_bytes(data[:kind] + b"zzz" + data[kind + 3 :])

        with pytest.raises(UnsupportedError, match="zzz"):
            load(path)

    def test_a_processor_only_build_refuses_layers_for_a_gpu(self, tmp_path):
        path = write_whole_model(tmp_path / "model.gguf")
        load(path, gpu_layers=0).shutdown()

        import llama_cpp

        if not llama_cpp.llama_supports_gpu_offload():
            with pytest.raises(UnsupportedError, match="processor only"):
                load(path, gpu_layers=-1)

    @pytest.mark.parametrize(
        ("kv_type", "low", "high"), [("f32", 0, 0), ("f16", 1e-6, 1e-2), ("q8_0", 1e-3, 0.1)]
    )
    def test_the_cache_is_of_the_planned_type(self, tmp_path, kv_type, low, high):
        path = tiny.write_gguf("llama-gqa64-tied", tmp_path)
        exact, other = (
            engine.step([Slice(engine.open(), TEXT, wants_logits=len(TEXT))])
            for engine in (load(path, kv_type="f32"), load(path, kv_type=kv_type))
        )

        assert low <= np.abs(exact - other).max() / np.ptp(exact) <= high

    def test_an_unknown_cache_type_is_refused(self, tmp_path):
        with pytest.raises(UnsupportedError, match="'q9_9'"):
            load(write_whole_model(tmp_path / "model.gguf"), kv_type="q9_9")

    def test_more_rows_than_a_call_computes_come_in_pieces(self, tmp_path, monkeypatch):
        path = write_whole_model(tmp_path / "model.gguf")
        text = [(7 * i) % 90 for i in range(40)]
        engine = load(path, kv_type="f32")
        whole = engine.step([Slice(engine.open(), text, wants_logits=40)])
        monkeypatch.setattr(llamacpp, "MOST_ROWS", 3)
        pieces = engine.step([Slice(engine.open(), text, wants_logits=40)])
        engine.shutdown()

        np.testing.assert_allclose(pieces, whole, atol=1e-3 * np.ptp(whole))
