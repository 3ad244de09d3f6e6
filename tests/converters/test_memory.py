"""Converting takes the same memory however large the checkpoint is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import tiny

# Prints by how many bytes the resident peak grew while converting.
# It is read from /proc: getrusage's counts the parent's memory before exec, too.
MEASURE = """
import sys
from pathlib import Path
from edgeinfer_converters.gguf import convert

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

convert(sys.argv[1], sys.argv[3], quant=sys.argv[4])  # imports and allocates what any will
before = peak()
convert(sys.argv[2], sys.argv[3], quant=sys.argv[4])
print(peak() - before)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of 4 MB, and one of 170 MB with a tensor of 98 MB."""
    folder = tmp_path_factory.mktemp("checkpoints")
    small = tiny.BY_NAME["llama-gqa64-tied"]
    shape = {"vocab_size": 96_000, "intermediate_size": 8_192}
    large = tiny.Tiny(name="llama-large", config={**small.config, **shape})
    return tiny.write(small, folder / "small"), tiny.write(large, folder / "large")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("quant", ["f16", "q4_0"])
def test_the_resident_peak_does_not_grow_with_the_checkpoint(
    quant: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert (folders[1] / "model.safetensors").stat().st_size > 170e6

    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *folders, tmp_path / "out.gguf", quant],
        check=True,
        capture_output=True,
        text=True,
    )

    # A block of 4 MiB of float32, its source and its encoding, not a tensor of 98 MB.
    assert int(run.stdout) < 40 << 20
