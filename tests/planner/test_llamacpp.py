"""What llama.cpp is predicted to take, beside the sizes that llama.cpp itself logs."""

from __future__ import annotations

import re
from dataclasses import replace

import make_model
import pytest

from edgeinfer import quant
from edgeinfer.device import detect
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.planner import llamacpp
from edgeinfer.planner.footprint import Setting
from edgeinfer.planner.outline import Outline, tensor_bytes

MIB = 1 << 20
SHAPE = replace(
    make_model.SHAPES["llama1b"],
    layers=2, width=512, ff_width=2048, heads=8, kv_heads=2, head_dim=64, vocabulary=2000,
    context=16384,
)  # fmt: skip
SHAPES = {
    "wide feed-forward": SHAPE,
    "wide heads": replace(SHAPE, heads=16, kv_heads=16, head_dim=128, ff_width=512),
    "large vocabulary": replace(SHAPE, vocabulary=32000, ff_width=512),
}


def setting(**values) -> Setting:
    usual = {"context": 2048, "batch": 512, "threads": 2, "kv_type_k": "f16", "kv_type_v": "f16"}
    return Setting(**usual | values)


@pytest.fixture(scope="module")
def llama_log():
    """llama_cpp, and the lines that it logs."""
    import llama_cpp

    from edgeinfer.backends import llamacpp as backend

    lines: list[str] = []

    @llama_cpp.llama_log_callback
    def hear(_level, text, _data):
        lines.append(text.decode())

    llama_cpp.llama_log_set(hear, None)
    yield llama_cpp, lines
    backend._library.cache_clear()
    backend._library()


def sizes(lines: list[str], what: str) -> float:
    """The sum of the MiB that were logged for a kind of buffer."""
    return sum(map(float, re.findall(rf"{what} buffer size =\s+([\d.]+) MiB", "".join(lines))))


@pytest.mark.peer
@pytest.mark.parametrize("name", SHAPES)
def test_buffers_are_as_llama_cpp_logs_them(name, llama_log, tmp_path):
    api, lines = llama_log
    path = tmp_path / "model.gguf"
    make_model.write(SHAPES[name], quant.get("q8_0"), path)
    with open_gguf(path) as file:
        config = Outline.of_gguf(file).config
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    for wanted in (
        setting(),
        setting(context=8192),
        setting(batch=64),
        setting(kv_type_k="q8_0", kv_type_v="q8_0"),
        setting(kv_type_k="f32", kv_type_v="f32"),
    ):
        options = api.llama_context_default_params()
        options.n_ctx, options.n_seq_max, options.kv_unified = wanted.context, 1, True
        options.n_batch = options.n_ubatch = wanted.batch
        options.n_outputs_max = llamacpp.MOST_ROWS
        options.pooling_type = api.LLAMA_POOLING_TYPE_NONE
        options.type_k = getattr(api, f"GGML_TYPE_{wanted.kv_type_k.upper()}")
        options.type_v = getattr(api, f"GGML_TYPE_{wanted.kv_type_v.upper()}")
        if wanted.kv_type_k == "f32":
            options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        lines.clear()
        api.llama_free(api.llama_init_from_model(model, options))

        cache = llamacpp.kv_bytes(config, wanted.context, wanted.kv_type_k, wanted.kv_type_v)
        compute = llamacpp.compute_bytes(config, wanted.context, wanted)
        assert cache / MIB == pytest.approx(sizes(lines, "KV"), abs=0.01)
        # The holes between buffers are not followed; 2 MiB is little beside a model.
        logged = sizes(lines, "compute") + sizes(lines, "output")
        assert compute / MIB == pytest.approx(logged, rel=0.1, abs=2.1)
    api.llama_model_free(model)


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["q4_0", "q4_k", "q6_k", "q8_0", "iq4_nl", "q2_k"])
def test_matrices_are_copied_where_llama_cpp_copies_them(kind, llama_log, tmp_path):
    api, lines = llama_log
    path = tmp_path / "model.gguf"
    make_model.write(SHAPE, quant.get(kind), path)
    with open_gguf(path) as file:
        outline = Outline.of_gguf(file)
    lines.clear()

    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())

    api.llama_model_free(model)
    predicted = llamacpp.repacked_bytes(outline, detect().isas)
    assert predicted / MIB == pytest.approx(sizes(lines, "CPU_REPACK model"), abs=0.01)


def test_an_embedding_that_is_only_looked_up_is_not_copied(header):
    tied, untied = (
        Outline.of_gguf(header(embedding="q4_0", tied=tied, vocab=1024)) for tied in (True, False)
    )

    table = tensor_bytes(tied.tensors["token_embd.weight"])
    assert llamacpp.repacked_bytes(tied, ("avx2",)) == llamacpp.repacked_bytes(untied, ("avx2",))
    assert untied.file_bytes == tied.file_bytes + table


def test_copied_pages_are_not_counted_as_needed(header):
    model = Outline.of_gguf(header(kind="q4_0", embedding="q8_0"))

    there = llamacpp.footprint(model, setting(isas=("avx2", "scalar")))
    not_there = llamacpp.footprint(model, setting(isas=("scalar",)))

    assert there.weights_bytes - there.reclaimable_bytes == not_there.weights_bytes
    assert not_there.reclaimable_bytes == 0
