"""apache-tvm opens our folders: its loader in Python, and the one in C++ that engines use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.formats.mlc.quants import QUANTS
from edgeinfer_converters.mlc.convert import convert
from edgeinfer_converters.mlc.shards import INDEX, Record, ShardWriter
from support import mlc_folder, tiny

pytestmark = [
    pytest.mark.peer,
    # TVM leaves the files it read to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

MODEL = tiny.BY_NAME["llama-gqa64-tied"]
LARGE = tiny.Tiny(name="mlc-large", config={**MODEL.config, "vocab_size": 70_000})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(MODEL, tmp_path_factory.mktemp("model"))


def as_float32(array: object) -> np.ndarray:
    """A tensor of TVM; numpy reads its bfloat16 as the type of ml_dtypes."""
    values = array.numpy()  # type: ignore[attr-defined]
    return values if values.dtype == np.uint32 else values.astype(np.float32)


@pytest.mark.parametrize("mode", ["mse", "mlc"])
@pytest.mark.parametrize("quant", QUANTS)
def test_both_loaders_read_what_we_read(
    quant: str, mode: str, source: Path, tmp_path: Path
) -> None:
    import tvm
    from tvm.contrib import tvmjs

    convert(source, tmp_path / "out", quant=quant, mode=mode)

    expected = mlc_folder.read(tmp_path / "out").arrays
    by_python, metadata = tvmjs.load_tensor_cache(str(tmp_path / "out"), tvm.cpu())
    assert metadata["ParamSize"] == len(expected)
    tvm.get_global_func("vm.builtin.tensor_cache.load")(str(tmp_path / "out"), 1, 0)
    names = list(expected)
    by_engine = tvm.get_global_func("vm.builtin.param_array_from_cache_by_name")(names)
    tvm.get_global_func("vm.builtin.tensor_cache.clear")()
    assert by_python.keys() == expected.keys()
    for name, loaded in zip(names, by_engine, strict=True):
        np.testing.assert_array_equal(as_float32(loaded), expected[name], err_msg=name)
        np.testing.assert_array_equal(as_float32(by_python[name]), expected[name], err_msg=name)


def test_shards_are_those_of_tvm(tmp_path: Path) -> None:
    """TVM's own writer, given the same tensors in the same order, writes the same files."""
    from tvm.contrib import tvmjs

    folder = tiny.write(LARGE, tmp_path / "model")
    convert(folder, tmp_path / "ours", quant="q0f32", mode="mlc")

    ours = mlc_folder.read(tmp_path / "ours")
    tensors = [
        ("model.embed_tokens.weight", ours.arrays["model.embed_tokens.weight"]),
        *((name, values) for name, values in ours.arrays.items() if "embed" not in name),
    ]
    tvmjs.dump_tensor_cache(
        iter(tensors),
        str(tmp_path / "theirs"),
        meta_data=ours.index["metadata"],
        show_progress=False,
    )
    assert len(ours.index["records"]) == 2
    for shard in ours.index["records"]:
        name = shard["dataPath"]
        theirs = (tmp_path / "theirs" / name).read_bytes()
        assert (tmp_path / "ours" / name).read_bytes() == theirs
    index = "tensor-cache.json"
    assert (tmp_path / "ours" / index).read_text() == (tmp_path / "theirs" / index).read_text()


def test_large_tensors_get_shards_of_their_own_as_in_tvm(tmp_path: Path) -> None:
    """One of 16 MiB that does not fit goes alone, and what waits goes on waiting."""
    from tvm.contrib import tvmjs

    sizes = (5, 20, 12, 14, 3, 17, 16, 10, 33, 2)
    tensors = {f"t{i}": np.full((size << 10, 512), i, np.float16) for i, size in enumerate(sizes)}
    records = [Record(name=n, shape=a.shape, dtype="float16") for n, a in tensors.items()]
    (tmp_path / "ours").mkdir()

    writer = ShardWriter(tmp_path / "ours", records)
    for name, values in reversed(tensors.items()):
        writer.write(name, values[512:], 512)
        writer.write(name, values[:512])
    writer.finish(parameters=1000)

    index = json.loads((tmp_path / "ours" / INDEX).read_text())
    tvmjs.dump_tensor_cache(
        iter(tensors.items()),
        str(tmp_path / "theirs"),
        meta_data=index["metadata"],
        show_progress=False,
    )
    assert index == json.loads((tmp_path / "theirs" / INDEX).read_text())
