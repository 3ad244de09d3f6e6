"""Trains a small Llama, so that quantisation can be judged on weights that have learnt something.

Random weights quantise unlike trained ones, and few trained models are small enough to measure
with every night. This one is 256 wide (K-quants need multiples of 256), reads English and Python,
and is made in some minutes from any text and the sources of the Python that runs it. The last
part of the text is held out for the evaluation: it is written beside the model.

    python benchmarks/train_small.py TEXT FOLDER [--steps 600]
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils import clip_grad_norm_
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 2048
WINDOW, WINDOWS = 256, 4  # tokens of a window, windows of a step
HELD_OUT = 0.15  # of the text
MATRIX_RATE, RATE = 0.02, 4e-3  # peaks, of Muon and of AdamW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path, help="where the model and the held-out text go")
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    cut = text.index("\n", int(len(text) * (1 - HELD_OUT)))
    corpora = [text[:cut], sources(int(8e6))]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "train.txt").write_text(text[:cut], encoding="utf-8")
    (arguments.folder / "held_out.txt").write_text(text[cut:], encoding="utf-8")

    tokenizer = train_tokenizer(corpora)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(arguments.folder)
    ids = [torch.tensor(tokenizer.encode(corpus).ids) for corpus in corpora]
    train(ids, arguments.steps).save_pretrained(arguments.folder)


def sources(most: int) -> str:
    """Python's own modules, as far as ``most`` characters."""
    parts: list[str] = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        parts.append(file.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(parts)[:most]


def train_tokenizer(corpora: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpora, trainer)
    return tokenizer


def train(corpora: list[torch.Tensor], steps: int) -> LlamaForCausalLM:
    """Half of each batch is from each corpus."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    matrices = [p for p in model.model.layers.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, 1.25 * (1 - step / steps)))
        for o in optimizers
    ]
    start = time.perf_counter()
    for step in range(steps):
        windows = []
        for corpus in corpora:
            for begin in torch.randint(len(corpus) - WINDOW, (WINDOWS // 2,)).tolist():
                windows.append(corpus[begin : begin + WINDOW])
        batch = torch.stack(windows)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(
                f"step {step}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return model.eval()


if __name__ == "__main__":
    main()
