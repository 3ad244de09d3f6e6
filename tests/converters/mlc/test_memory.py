"""Exporting takes the same memory however large the checkpoint is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import tiny

# Prints by how many bytes the resident peak grew while exporting.
MEASURE = """
import sys
from pathlib import Path
from edgeinfer_converters.mlc.convert import convert

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

quant, mode = sys.argv[4:]
convert(sys.argv[1], sys.argv[3], quant=quant, mode=mode, threads=2)  # imports what any will
before = peak()
convert(sys.argv[2], sys.argv[3], quant=quant, mode=mode, threads=2)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of 4 MB, and one of 110 MB with a tensor of 61 MB."""
    folder = tmp_path_factory.mktemp("checkpoints")
    small = tiny.BY_NAME["llama-gqa64-tied"]
    shape = {"vocab_size": 60_000, "intermediate_size": 4_096}
    large = tiny.Tiny(name="llama-large", config={**small.config, **shape})
    return tiny.write(small, folder / "small"), tiny.write(large, folder / "large")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("quant", "mode"),
    [
        ("q4f16_1", "mse"),
        ("q3f16_0", "mse"),
        pytest.param("q0f32", "mse", marks=pytest.mark.slow),
        pytest.param("q4f16_1", "mlc", marks=pytest.mark.slow),
    ],
)
def test_the_resident_peak_does_not_grow_with_the_checkpoint(
    quant: str, mode: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert (folders[1] / "model.safetensors").stat().st_size > 70e6

    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *folders, tmp_path / "out", quant, mode],
        check=True,
        capture_output=True,
        text=True,
    )

    # A block of 4 MiB of float32 and what an encoder needs for it, not a tensor of 61 MB.
    assert int(run.stdout) < 40 << 20
