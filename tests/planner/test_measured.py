"""Whole plans beside the resident peak that the kernel counts, contexts filled to the end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support import tiny
from support.peft_adapter import write_peft

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc"),
]

# A process of its own, so that the peak is of this model alone.
PROGRAM = """
import json, pathlib, re, sys
import edgeinfer

context = int(sys.argv[2])
k, v = sys.argv[3].split("/")
model = edgeinfer.load(
    sys.argv[1],
    backend=sys.argv[5],
    context=context,
    kv_type_k=k,
    kv_type_v=v,
    batch=int(sys.argv[4]),
    lora=sys.argv[6:],
)
done = model.generate(" fox" * (context - 8), temperature=0, max_tokens=7)
status = pathlib.Path("/proc/self/status").read_text()
print(json.dumps({
    "tokens": done.timings.prompt_tokens,
    "planned": model.plan.total_bytes,
    "measured": int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024,
}))
"""


@pytest.mark.parametrize(
    ("context", "kv_types", "batch"),
    [
        (512, "f16/f16", 512),
        (2048, "f16/f16", 512),
        (8192, "f16/f16", 512),
        (2048, "f32/f32", 64),
        (8192, "q8_0/q4_0", 512),
    ],
)
@pytest.mark.parametrize("backend", ["native", pytest.param("llamacpp", marks=pytest.mark.peer)])
def test_a_plan_is_within_five_percent_of_the_peak(smollm2, context, kv_types, batch, backend):
    found = measured(smollm2, str(context), kv_types, str(batch), backend)
    assert found["tokens"] == context - 8
    assert found["planned"] == pytest.approx(found["measured"], rel=0.05)


@pytest.mark.parametrize("quant", ["f16", "f32"])
@pytest.mark.parametrize("backend", ["native", pytest.param("llamacpp", marks=pytest.mark.peer)])
def test_adapters_are_part_of_the_plan(smollm2, tmp_path, backend, quant):
    from edgeinfer_converters.gguf import convert

    model = tiny.Tiny(name="smollm2", config=SMOLLM2)
    peft = write_peft(model, tmp_path / "peft", r=64)
    convert(smollm2, tmp_path / "adapter.gguf", lora=peft, quant=quant)

    found = measured(smollm2, "512", "f16/f16", "512", backend, str(tmp_path / "adapter.gguf"))

    # 75 MB as float32, a quarter of all.
    assert found["planned"] == pytest.approx(found["measured"], rel=0.05)


SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
}


def measured(model, *arguments):
    """What the program says of a model."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model), *arguments], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)
