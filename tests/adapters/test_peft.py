"""PEFT adapters: converted, merged, and refused where they do what is not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.conftest import ADAPTED, Adapted

from edgeinfer.arch.lora import LowRank
from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError, UsageError
from edgeinfer.formats.adapter import open_adapter
from edgeinfer_converters.gguf import convert
from support.ours import our_engine, reference_logits

Make = Callable[..., Adapted]
PATTERNS = {
    "use_rslora": True,
    "rank_pattern": {"(o|c|out)_proj": 2},
    "alpha_pattern": {"k_proj|qkv_proj|c_attn": 5},
}
models = pytest.mark.parametrize("model", ADAPTED, ids=str)


@models
def test_a_merged_adapter_gives_what_it_gives_at_run_time(
    model: Any, adapted: Make, tmp_path: Path
) -> None:
    case = adapted(model)
    convert(case.folder, tmp_path / "merged.gguf", quant="f32", merge_lora=case.peft)
    right = reference_logits(tmp_path / "merged.gguf", model.tokens)
    with our_engine(case.gguf) as ours:
        engine = ours.engine
        sequence = engine.open()
        engine.set_adapters(sequence, [(engine.add_adapter(case.adapter), 1.0)])
        from edgeinfer.backends.base import Slice

        found = engine.step([Slice(sequence, model.tokens, len(model.tokens))])

    assert np.abs(found - right).max() < 1e-4 * (right.max() - right.min())


def test_an_adapter_is_merged_into_a_gguf_as_well(adapted: Make, tmp_path: Path) -> None:
    case = adapted(ADAPTED[0])
    convert(case.folder, tmp_path / "folder.gguf", quant="q8_0", merge_lora=case.peft)
    convert(case.gguf, tmp_path / "gguf.gguf", quant="q8_0", merge_lora=case.peft)

    tokens = case.model.tokens
    np.testing.assert_array_equal(
        reference_logits(tmp_path / "folder.gguf", tokens),
        reference_logits(tmp_path / "gguf.gguf", tokens),
    )


def read_changes(path: Path) -> dict[str, LowRank]:
    with open_adapter(path) as adapter:
        return dict(adapter.changes())


def test_scales_of_peft(adapted: Make) -> None:
    plain = read_changes(adapted(ADAPTED[0]).adapter)
    rank_stabilised = read_changes(adapted(ADAPTED[0], use_rslora=True).adapter)
    patterned = read_changes(adapted(ADAPTED[0], alpha_pattern={"q_proj": 3}).adapter)

    for name, change in plain.items():
        # alpha / sqrt(4) is twice alpha / 4; 3 is half of 6.
        np.testing.assert_allclose(rank_stabilised[name].b, 2 * change.b, rtol=1e-6)
        share = 0.5 if "attn_q" in name else 1.0
        np.testing.assert_allclose(patterned[name].b, share * change.b, rtol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa_niter_4"),
        ("arrow_config", {"top_k": 2}),
    ],
)
def test_other_mathematics_is_refused(key: str, value: object, adapted: Make) -> None:
    with pytest.raises(UnsupportedError, match=key) as caught:
        adapted(ADAPTED[0], **{key: value})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"), [("init_lora_weights", "gaussian"), ("fan_in_fan_out", True)]
)
def test_what_changes_nothing_is_taken(key: str, value: object, adapted: Make) -> None:
    plain, other = (read_changes(adapted(ADAPTED[0], **c).adapter) for c in ({}, {key: value}))
    for name, change in plain.items():
        np.testing.assert_array_equal(change.b, other[name].b)


def rewrite(folder: Path, adapted: Adapted, **tensors: Any) -> Path:
    """A copy of an adapter with other tensors; None takes one away."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    found = load_file(adapted.peft / "adapter_model.safetensors") | tensors
    save_file(
        {n: v for n, v in found.items() if v is not None}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_bytes(
        (adapted.peft / "adapter_config.json").read_bytes()
    )
    return folder


BEGIN = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({BEGIN + "A.weight": None}, CorruptFileError, "do not match"),
        ({BEGIN + "A.weight": np.zeros((5, 256), np.float32)}, CorruptFileError, "do not match"),
        ({BEGIN + "A.weight": np.zeros((4, 64), np.float32)}, CorruptFileError, "has shape"),
        ({BEGIN + "B.weight": np.zeros((100, 4), np.float32)}, CorruptFileError, "has shape"),
        (
            {BEGIN + "A.weight": np.zeros((8, 256), np.float32)}
            | {BEGIN + "B.weight": np.zeros((256, 8), np.float32)},
            CorruptFileError,
            "rank 8",
        ),
        ({BEGIN + "A.weight": np.zeros((4, 256, 1), np.float32)}, UnsupportedError, "shape"),
        ({BEGIN + "A.weight": np.full((4, 256), np.nan, np.float32)}, CorruptFileError, "numbers"),
        ({"base_model.model.lm_head.weight": np.zeros(3, np.float32)}, UnsupportedError, "lm_head"),
        (
            {
                "base_model.model.lm_head.lora_A.weight": np.zeros((4, 256), np.float32),
                "base_model.model.lm_head.lora_B.weight": np.zeros((331, 4), np.float32),
            },
            UnsupportedError,
            "lm_head",
        ),
    ],
)
def test_tensors_that_make_no_sense_are_named(
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
    adapted: Make,
    tmp_path: Path,
) -> None:
    case = adapted(ADAPTED[0])
    broken = rewrite(tmp_path / "peft", case, **changes)

    with pytest.raises(error, match=words):
        convert(case.folder, tmp_path / "out.gguf", lora=broken)
    assert not (tmp_path / "out.gguf").exists()


def test_options_that_make_no_sense(adapted: Make, tmp_path: Path) -> None:
    case = adapted(ADAPTED[0])
    with pytest.raises(UsageError, match="q4_0"):
        convert(case.folder, tmp_path / "out.gguf", lora=case.peft, quant="q4_0")
    with pytest.raises(UsageError, match="as it is"):
        convert(case.folder, tmp_path / "out.gguf", lora=case.peft, merge_lora=case.peft)
    with pytest.raises(NotFoundError, match="adapter_config") as caught:
        convert(case.folder, tmp_path / "out.gguf", lora=tmp_path)
    assert "PEFT" in (caught.value.hint or "")
    with pytest.raises(NotFoundError, match="no folder"):
        convert(case.folder, tmp_path / "out.gguf", lora=case.peft / "adapter_model.safetensors")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_bytes((case.peft / "adapter_config.json").read_bytes())
    (pickled / "adapter_model.bin").write_bytes(b"PK")
    with pytest.raises(UnsupportedError, match="runs code"):
        convert(case.folder, tmp_path / "out.gguf", lora=pickled)


def test_a_bad_pattern_is_a_corrupt_file(adapted: Make, tmp_path: Path) -> None:
    case = adapted(ADAPTED[0])
    broken = rewrite(tmp_path / "peft", case)
    settings = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps(settings | {"alpha_pattern": {"(": 1}}))

    with pytest.raises(CorruptFileError, match="pattern"):
        convert(case.folder, tmp_path / "out.gguf", lora=broken)


def test_command_line_and_api(adapted: Make, tmp_path: Path) -> None:
    import edgeinfer
    from edgeinfer.cli._program import run

    case = adapted(ADAPTED[0])
    output = tmp_path / "adapter.gguf"
    arguments = ["convert", str(case.folder), "--lora", str(case.peft), "-o", str(output)]
    assert run([*arguments, "-q", "f32"]) == 0
    text = [*case.model.tokens[:8]]
    greedy: dict[str, Any] = {"temperature": 0, "max_tokens": 12}

    with edgeinfer.load(case.gguf, context=128, offline=True) as model:
        plain = model.generate(text, **greedy).tokens
        number = model.add_adapter(output)
        adapted_tokens = model.generate(text, adapters=[(number, 1.0)], **greedy).tokens
        again = model.generate(text, **greedy).tokens
    with edgeinfer.load(case.gguf, context=128, lora=[output], offline=True) as model:
        loaded = model.generate(text, **greedy).tokens

    assert adapted_tokens == loaded != plain == again


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # GPT-2's
@models
@pytest.mark.parametrize(
    "config",
    [{}, PATTERNS],
    ids=["plain", "patterns"],
)
def test_logits_are_those_of_peft(model: Any, config: dict[str, Any], adapted: Make) -> None:
    import torch
    from peft import PeftModel

    from edgeinfer.backends.base import Slice
    from support.peers import Transformers

    case = adapted(model, **config)
    peer = Transformers(case.folder, model.config["architectures"][0])
    peer.model = PeftModel.from_pretrained(peer.model, str(case.peft)).eval()
    assert any("lora_A" in name for name, _ in peer.model.named_parameters())
    with torch.no_grad():
        right = peer.logits(model.tokens)
    with our_engine(case.gguf) as ours:
        sequence = ours.engine.open()
        ours.engine.set_adapters(sequence, [(ours.engine.add_adapter(case.adapter), 1.0)])
        found = ours.engine.step([Slice(sequence, model.tokens, len(model.tokens))])

    assert np.abs(found - right).max() < 1e-4 * (right.max() - right.min())


@pytest.mark.peer
@pytest.mark.parametrize("model", [m for m in ADAPTED if m.in_llama_cpp], ids=str)
def test_llama_cpp_reads_the_adapter(model: Any, adapted: Make) -> None:
    import llama_cpp

    from edgeinfer.backends.base import Slice

    case = adapted(model)
    peer = llama_cpp.Llama(
        str(case.gguf),
        lora_path=str(case.adapter),
        n_ctx=128,
        logits_all=True,
        type_k=0,
        type_v=0,
        verbose=False,
    )
    peer.eval(model.tokens)
    right = peer.scores[: len(model.tokens)]
    with our_engine(case.gguf) as ours:
        sequence = ours.engine.open()
        ours.engine.set_adapters(sequence, [(ours.engine.add_adapter(case.adapter), 1.0)])
        found = ours.engine.step([Slice(sequence, model.tokens, len(model.tokens))])

    # llama.cpp rounds the activations that its adapters multiply.
    assert np.abs(found - right).max() < 5e-3 * (right.max() - right.min())
