"""How fast does a checkpoint of a billion weights become a quantised GGUF, and in how much memory?

A Llama-3.2-1B of random half-precision weights is written as a Hugging Face folder and converted to
an f16 GGUF. From that file `edgeinfer convert` and llama-quantize make the same type in turn: wall
time of the whole process, the best of the rounds, and the peak of its resident bytes, which counts
pages of mapped files.

    python benchmarks/convert_speed.py --llama-quantize PATH --work FOLDER [--types q4_k_m q8_0]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from make_model import SHAPES, TEMPLATE, Shape, vocabulary
from numpy.typing import NDArray

COLUMNS = {
    "type": "s",
    "seconds": ".2f",
    "peer_seconds": ".2f",
    "speedup": ".2f",
    "peak_mib": ".0f",
    "peer_peak_mib": ".0f",
    "mbytes": ".1f",
    "peer_mbytes": ".1f",
}
POOL = 1_299_709  # a prime number of random weights, so that no two rows begin alike


def checkpoint_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers has them."""
    names = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    found = {}
    for name, size in shape.tensors().items():
        match name.split("."):
            case ["blk", layer, part, "weight"]:
                found[f"model.layers.{layer}.{names[part]}.weight"] = size
            case ["token_embd", _]:
                found["model.embed_tokens.weight"] = size
            case _:
                found["model.norm.weight"] = size
    return found


def write_checkpoint(folder: Path, shape: Shape) -> None:
    """Writes config.json, model.safetensors and tokenizer.json."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.ff_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "rope_theta": shape.rope_base,
        "rms_norm_eps": shape.norm_eps,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder, shape.vocabulary)
    header: dict[str, Any] = {}
    end = 0
    for name, size in checkpoint_shapes(shape).items():
        start, end = end, end + 2 * int(np.prod(size))
        header[name] = {"dtype": "F16", "shape": size, "data_offsets": [start, end]}
    octets = json.dumps(header).encode()
    pool = np.random.default_rng(0).standard_normal(POOL, np.float32) * 0.02
    pool = pool.astype(np.float16)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(octets).to_bytes(8, "little") + octets)
        for size in checkpoint_shapes(shape).values():
            left = int(np.prod(size))
            if len(size) == 1:
                file.write(np.ones(left, np.float16).tobytes())
                continue
            while left:
                part: NDArray[np.float16] = pool[:left]
                file.write(part.tobytes())
                left -= len(part)


def _write_tokenizer(folder: Path, size: int) -> None:
    words = vocabulary(size)
    tokens, merges = words["tokenizer.ggml.tokens"], words["tokenizer.ggml.merges"]
    assert isinstance(tokens, list) and isinstance(merges, list)
    flags = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    byte_level = {"type": "ByteLevel", **flags}
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(tokens[:-1])},
        "merges": merges,
    }
    end = {"id": size - 1, "content": tokens[-1], "special": True}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [end | plain],
                "pre_tokenizer": byte_level,
                "decoder": byte_level,
                "model": model,
            }
        )
    )
    settings = {"bos_token": tokens[-1], "eos_token": tokens[-1], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said.decode()
    assert isinstance(usage, resource.struct_rusage)
    return seconds, usage.ru_maxrss / 1024


def ours(source: Path, quant: str, output: Path) -> list[str]:
    arguments = ["convert", str(source), "-q", quant, "-o", str(output)]
    return [sys.executable, "-m", "edgeinfer", *arguments]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-quantize", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where 6 GB are written")
    parser.add_argument("--types", nargs="*", default=["q4_k_m"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prepare", action="store_true", help="only write the f16 models")
    options = parser.parse_args()

    folder, f16 = options.work / "llama1b", options.work / "llama1b-f16.gguf"
    if not folder.exists():
        write_checkpoint(folder, SHAPES["llama1b"])
    if not f16.exists():
        seconds, peak = run(ours(folder, "f16", f16))
        print(f"folder to f16: {seconds:.1f} s, {peak:.0f} MiB")
    if options.prepare:
        return
    rows = []
    for quant in options.types:
        mine, theirs = options.work / "ours.gguf", options.work / "theirs.gguf"
        peer = [str(options.llama_quantize), str(f16), str(theirs), quant, str(os.cpu_count())]
        times, peer_times = [], []
        for _ in range(options.rounds):
            times.append(run(ours(f16, quant, mine)))
            peer_times.append(run(peer))
        best, peer_best = min(times), min(peer_times)
        rows.append(
            {
                "type": quant,
                "seconds": best[0],
                "peer_seconds": peer_best[0],
                "speedup": peer_best[0] / best[0],
                "peak_mib": best[1],
                "peer_peak_mib": peer_best[1],
                "mbytes": mine.stat().st_size / 1e6,
                "peer_mbytes": theirs.stat().st_size / 1e6,
            }
        )
        mine.unlink()
        theirs.unlink()
    print(record.table(rows, COLUMNS))
    print(record.save("convert_speed", record.context(["llama-cpp-python"]), rows))


if __name__ == "__main__":
    main()
