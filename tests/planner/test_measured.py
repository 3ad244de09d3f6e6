"""Whole plans beside the resident peak that the kernel counts, contexts filled to the end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(smollm2), str(context), kv_types, str(batch), backend],
        stdout=subprocess.PIPE,
        check=True,
    )

    found = json.loads(done.stdout)
    assert found["tokens"] == context - 8
    assert found["planned"] == pytest.approx(found["measured"], rel=0.05)
