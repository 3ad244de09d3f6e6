"""Adapters in the native engine: W + B A of a float64 reference, for each sequence its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from adapters.conftest import ADAPTED, Adapted
from numpy.typing import NDArray

from edgeinfer.backends.adapters import changes_of
from edgeinfer.backends.base import AdapterUse, Slice
from edgeinfer.errors import CorruptFileError, UnsupportedError
from support import reference, tiny
from support.ours import OurEngine, our_engine, read_tensors

Make = Callable[..., Adapted]
models = pytest.mark.parametrize("model", ADAPTED, ids=str)


def wanted(path: Path, tokens: Sequence[int], *adapters: tuple[Path, float]) -> NDArray[np.float64]:
    """What the reference gives with the adapters' changes in the weights."""
    config, tensors = read_tensors(path)
    for adapter, scale in adapters:
        for name, change in changes_of(adapter, config):
            tensors[name] = tensors[name] + scale * (change.b.astype(np.float64) @ change.a)
    return reference.forward(config, tensors, tokens)


def run(
    ours: OurEngine, tokens: Sequence[int], adapters: Sequence[AdapterUse], step: int = 128
) -> NDArray[np.float32]:
    """The logits of every token, run in pieces with adapters."""
    engine = ours.engine
    sequence = engine.open()
    engine.set_adapters(sequence, adapters)
    pieces = [tokens[at : at + step] for at in range(0, len(tokens), step)]
    logits = [engine.step([Slice(sequence, piece, len(piece))]) for piece in pieces]
    engine.close(sequence)
    return np.concatenate(logits)


def distance(found: NDArray[np.float32], other: NDArray[np.floating]) -> float:
    """The largest difference, as part of the range."""
    return float(np.abs(found - other).max() / (other.max() - other.min()))


@models
@pytest.mark.parametrize("step", [1, 7, 128])
def test_an_adapted_model_is_the_reference_with_changed_weights(
    model: tiny.Tiny, step: int, adapted: Make
) -> None:
    case = adapted(model)
    right = wanted(case.gguf, model.tokens, (case.adapter, 1.0))
    with our_engine(case.gguf) as ours:
        number = ours.engine.add_adapter(case.adapter)

        found = run(ours, model.tokens, [(number, 1.0)], step)

        assert distance(found, right) < 1e-4
        assert distance(ours.logits(model.tokens), right) > 0.02  # the adapter is felt


def test_adapters_add_up_each_with_its_scale(adapted: Make) -> None:
    model = ADAPTED[0]
    one, two = adapted(model), adapted(model, seed=1, rank_pattern={"up_proj": 9})
    right = wanted(one.gguf, model.tokens, (one.adapter, 0.5), (two.adapter, -0.25))
    with our_engine(one.gguf) as ours:
        first, second = (ours.engine.add_adapter(case.adapter) for case in (one, two))

        found = run(ours, model.tokens, [(first, 0.5), (second, -0.25)])

    assert distance(found, right) < 1e-4


def test_sequences_of_one_step_have_adapters_of_their_own(adapted: Make) -> None:
    model = ADAPTED[0]
    case, other = adapted(model), adapted(model, seed=1)
    tokens = model.tokens
    with our_engine(case.gguf) as ours:
        engine = ours.engine
        numbers = [engine.add_adapter(path) for path in (case.adapter, other.adapter)]
        uses: list[list[AdapterUse]] = [[(numbers[0], 1.0)], [], [(numbers[1], 0.5)]]
        alone = [run(ours, tokens, use) for use in uses]

        sequences = [engine.open() for _ in uses]
        for sequence, use in zip(sequences, uses, strict=True):
            engine.set_adapters(sequence, use)
        together = engine.step([Slice(s, tokens, len(tokens)) for s in sequences])

    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
def test_quantised_weights_are_adapted_too(quant: str, adapted: Make, tmp_path: Path) -> None:
    from edgeinfer_converters.gguf import convert

    case = adapted(ADAPTED[0])
    convert(case.gguf, tmp_path / "small.gguf", quant=quant)
    right = wanted(tmp_path / "small.gguf", case.model.tokens, (case.adapter, 1.0))
    with our_engine(tmp_path / "small.gguf") as ours:
        number = ours.engine.add_adapter(case.adapter)

        found = run(ours, case.model.tokens, [(number, 1.0)])

        assert distance(found, right) < 0.04  # activations are rounded to eight bits
        assert distance(ours.logits(case.model.tokens), right) > 0.2


def test_any_number_of_threads_gives_the_same_bits(adapted: Make) -> None:
    case = adapted(ADAPTED[0])
    found = []
    for threads in (1, 3):
        with our_engine(case.gguf, threads=threads) as ours:
            number = ours.engine.add_adapter(case.adapter)
            found.append(run(ours, case.model.tokens, [(number, 1.0)]))
    np.testing.assert_array_equal(*found)


def test_a_removed_adapter_is_gone_but_for_those_who_use_it(adapted: Make) -> None:
    case = adapted(ADAPTED[0])
    with our_engine(case.gguf) as ours:
        engine = ours.engine
        number = engine.add_adapter(case.adapter)
        before = run(ours, case.model.tokens, [(number, 1.0)])
        sequence = engine.open()
        engine.set_adapters(sequence, [(number, 1.0)])
        engine.remove_adapter(number)

        after = engine.step([Slice(sequence, case.model.tokens, len(case.model.tokens))])

        np.testing.assert_array_equal(before, after)
        with pytest.raises(ValueError, match="not there"):
            engine.set_adapters(engine.open(), [(number, 1.0)])


def test_adapters_of_a_text_that_was_read_are_refused(adapted: Make) -> None:
    case = adapted(ADAPTED[0])
    with our_engine(case.gguf) as ours:
        sequence = ours.engine.open()
        ours.engine.step([Slice(sequence, [1, 2], 1)])

        with pytest.raises(ValueError, match="not empty"):
            ours.engine.set_adapters(sequence, [])


def test_an_adapter_of_another_family_or_shape_is_refused(adapted: Make) -> None:
    llama, qwen = adapted(ADAPTED[0]), adapted(ADAPTED[2])
    larger = adapted(tiny.BY_NAME["llama-mha64-biases"])
    with our_engine(llama.gguf) as ours:
        with pytest.raises(UnsupportedError, match="adapter for qwen3, the model is llama"):
            ours.engine.add_adapter(qwen.adapter)
        with pytest.raises(CorruptFileError, match="has shape"):
            ours.engine.add_adapter(larger.adapter)
        with pytest.raises(CorruptFileError, match="not an adapter"):
            ours.engine.add_adapter(llama.gguf)
