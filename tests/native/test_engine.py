"""The engine's binding: errors, memory, several engines, and the GIL."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer import _native

WIDTH, HEADS, KV_HEADS, HEAD_DIM, FF, VOCAB, LAYERS = 128, 4, 2, 32, 256, 300, 3
CONFIG: dict[str, Any] = {
    "vocab_size": VOCAB,
    "positions": 0,
    "token_types": 0,
    "causal": True,
    "layers": LAYERS,
    "width": WIDTH,
    "heads": HEADS,
    "kv_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "ff_width": FF,
    "experts": 0,
    "experts_used": 0,
    "expert_weights_norm": True,
    "expert_weights_scale": 1.0,
    "router": "softmax",
    "dense_layers": 0,
    "norm_eps": 1e-5,
    "norm": "rms",
    "gated": True,
    "activation": "silu",
    "qk_norm": "none",
    "rope_style": "halves",
    "rope_tables": [((10000.0 ** -(np.arange(16) / 16)).astype(np.float32), 1.0)],
    "layer_rope": [0] * LAYERS,
    "layer_window": [0] * LAYERS,
    "layer_mixer": [],
    "conv_taps": 0,
    "delta_heads": 0,
    "delta_key_heads": 0,
    "delta_dim": 0,
    "delta_tiled": False,
    "attention_gate": False,
    "shared_expert": False,
    "dense_ff_width": 0,
    **{key: [] for key in ("layer_head_dim", "layer_kv_heads", "layer_ff_width", "layer_kv")},
    "layer_key_is_value": [],
    "value_norm": False,
    "per_layer_width": 0,
    "streams": 1,
    "laurel_rank": 0,
    "layer_cutoff": [],
    "attention_scale": HEAD_DIM**-0.5,
    "attention_softcap": 0.0,
    "output_softcap": 0.0,
    "embedding_scale": 1.0,
    "residual_scale": 1.0,
    "output_scale": 1.0,
    "tied_output": True,
}


@dataclass(frozen=True)
class Tiny:
    """A random f32 model: tensors as the engine wants them."""

    tensors: list[tuple[str, str, str, int, int, int]]

    def engine(self, **changes: Any) -> Any:
        options = {"context": 64, "threads": 2, "batch": 16, "kv_type_k": "f16", "kv_type_v": "f16"}
        return _native.Engine(CONFIG, self.tensors, **(options | changes))

    def weights(self) -> dict[str, np.ndarray]:
        return {
            name: np.fromfile(path, np.float32, rows * cols, offset=offset).reshape(rows, cols)
            for name, path, _, offset, rows, cols in self.tensors
        }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    path = tmp_path_factory.mktemp("engine") / "weights.bin"
    shapes = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (1, WIDTH)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (1, WIDTH),
            f"blk.{i}.attn_q.weight": (HEADS * HEAD_DIM, WIDTH),
            f"blk.{i}.attn_k.weight": (KV_HEADS * HEAD_DIM, WIDTH),
            f"blk.{i}.attn_v.weight": (KV_HEADS * HEAD_DIM, WIDTH),
            f"blk.{i}.attn_output.weight": (WIDTH, HEADS * HEAD_DIM),
            f"blk.{i}.ffn_norm.weight": (1, WIDTH),
            f"blk.{i}.ffn_gate.weight": (FF, WIDTH),
            f"blk.{i}.ffn_up.weight": (FF, WIDTH),
            f"blk.{i}.ffn_down.weight": (WIDTH, FF),
        }
    random = np.random.default_rng(3)
    tensors = []
    with path.open("wb") as file:
        for name, (rows, cols) in shapes.items():
            tensors.append((name, str(path), "f32", file.tell(), rows, cols))
            weights = random.standard_normal((rows, cols), np.float32)
            file.write((weights * 0.1 + (rows == 1)).astype(np.float32).tobytes())
    return Tiny(tensors)


def tokens(*ids: int) -> np.ndarray:
    return np.array(ids, np.int32)


def test_step_returns_the_wanted_rows_in_order(tiny: Tiny) -> None:
    engine = tiny.engine()
    a, b, c = engine.open(), engine.open(), engine.open()
    whole = engine.step([(a, tokens(1, 2, 3, 4), 4)])

    both = engine.step([(b, tokens(1, 2, 3, 4), 2), (c, tokens(1, 2), 1)])

    assert whole.shape == (4, VOCAB)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(both, whole[[2, 3, 1]], atol=1e-4)
    assert [engine.length(s) for s in (a, b, c)] == [4, 4, 2]


def test_embed_gives_normalised_hidden_states(tiny: Tiny) -> None:
    engine = tiny.engine()
    hidden = engine.embed([(engine.open(), tokens(1, 2, 3), 3)])
    assert hidden.shape == (3, WIDTH)
    assert np.isfinite(hidden).all()


def test_a_full_context_changes_nothing(tiny: Tiny) -> None:
    engine = tiny.engine(context=8)
    a = engine.open()
    engine.step([(a, tokens(1, 2, 3), 1)])
    with pytest.raises(_native.ContextFull, match="do not fit a context of 8"):
        engine.step([(a, tokens(1, 2, 3, 4, 5, 6), 1)])
    assert engine.length(a) == 3


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([(0, [VOCAB], 1)], "outside the vocabulary"),
        ([(0, [-1], 1)], "outside the vocabulary"),
        ([(0, [], 0)], "no tokens"),
        ([(0, [1], 2)], "wanted"),
        ([(0, [1], -1)], "wanted"),
        ([(0, [1], 1), (0, [2], 1)], "twice"),
    ],
)
def test_a_bad_slice_is_named(tiny: Tiny, batch: list[Any], message: str) -> None:
    engine = tiny.engine()
    engine.open()
    with pytest.raises(ValueError, match=message):
        engine.step([(s, np.array(t, np.int32), w) for s, t, w in batch])
    assert engine.length(0) == 0


def test_nothing_works_after_close_and_shutdown(tiny: Tiny) -> None:
    engine = tiny.engine()
    a = engine.open()
    engine.close(a)
    with pytest.raises(_native.Closed, match="sequence 0 is not open"):
        engine.step([(a, tokens(1), 1)])
    engine.shutdown()
    with pytest.raises(_native.Closed, match="engine is closed"):
        engine.open()


def test_memory_is_known_before_loading(tiny: Tiny) -> None:
    options = {"context": 64, "threads": 2, "batch": 16, "kv_type_k": "f32", "kv_type_v": "f16"}
    planned = _native.engine_memory(CONFIG, tiny.tensors, **options)
    assert planned == tiny.engine(**options).memory()
    assert planned["kv"] == LAYERS * KV_HEADS * 256 * HEAD_DIM * (4 + 2)


@pytest.mark.parametrize("kind", _native.kv_types())
def test_logits_have_the_same_bits_for_any_threads_and_any_steps(tiny: Tiny, kind: str) -> None:
    prompt = np.resize(np.arange(7, VOCAB, 3, dtype=np.int32), 530)
    types = {"kv_type_k": kind, "kv_type_v": kind, "context": 600}

    def logits(threads: int, batch: int) -> np.ndarray:
        engine = tiny.engine(threads=threads, batch=batch, **types)
        return engine.step([(engine.open(), prompt, 20)])

    expected = logits(1, 530)
    for threads, batch in ((2, 530), (3, 530), (4, 530), (1, 64), (3, 7)):
        np.testing.assert_array_equal(logits(threads, batch), expected)


def test_the_planner_knows_the_types_of_a_cache() -> None:
    from edgeinfer.planner.planner import KV_TYPES

    assert set(KV_TYPES) == set(_native.kv_types())


def test_a_type_that_no_cache_has_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="cannot be of type q6_k"):
        tiny.engine(kv_type_v="q6_k")


def test_a_truncated_file_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(Path(tiny.tensors[0][1]).read_bytes()[:-8])
    moved = [(name, str(short), *rest) for name, _, *rest in tiny.tensors]
    with pytest.raises(ValueError, match="leaves the file"):
        Tiny(moved).engine()
    absent = [(name, str(tmp_path / "absent"), *rest) for name, _, *rest in tiny.tensors]
    with pytest.raises(OSError, match="absent"):
        Tiny(absent).engine()


def test_the_gil_is_free_during_a_step(tiny: Tiny) -> None:
    engine = tiny.engine(context=4096, batch=512)
    prompt = np.resize(np.arange(VOCAB, dtype=np.int32), 4000)
    ticks = 0
    done = threading.Event()

    def work() -> None:
        engine.step([(engine.open(), prompt, 1)])
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        time.sleep(0.0005)
        ticks += 1
    thread.join()
    assert ticks > 20


def test_engines_in_threads_do_not_disturb_each_other(tiny: Tiny) -> None:
    engines = [tiny.engine(threads=2) for _ in range(2)]
    expected = engines[0].step([(engines[0].open(), tokens(*range(40)), 1)])
    results: list[np.ndarray] = []

    def work(engine: Any) -> None:
        for _ in range(10):
            sequence = engine.open()
            results.append(engine.step([(sequence, tokens(*range(40)), 1)]))
            engine.close(sequence)

    threads = [threading.Thread(target=work, args=(e,)) for e in (*engines, engines[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 30
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_a_forked_child_is_told_to_load_its_own(tiny: Tiny) -> None:
    engine = tiny.engine()
    a = engine.open()
    child = os.fork()
    if child == 0:
        try:
            engine.step([(a, tokens(1), 1)])
        except _native.Closed as error:
            os._exit(0 if "fork" in str(error) else 2)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert engine.step([(a, tokens(1), 1)]).shape == (1, VOCAB)


def test_threads_do_not_change_a_bit(tiny: Tiny) -> None:
    """Prompt in chunks, single tokens behind several blocks of cache, two sequences together."""

    def run(threads: int, batch_threads: int = 0) -> np.ndarray:
        engine = tiny.engine(threads=threads, batch_threads=batch_threads, context=700)
        a, b = engine.open(), engine.open()
        rows = [engine.step([(a, np.arange(600, dtype=np.int32) % VOCAB, 5)])]
        rows += [engine.step([(a, tokens(i), 1)]) for i in range(20)]
        rows.append(engine.step([(a, tokens(1, 2), 1), (b, tokens(3), 1)]))
        return np.concatenate(rows)

    alone = run(1)
    for threads in (2, 3, 4):
        np.testing.assert_array_equal(run(threads), alone)
    np.testing.assert_array_equal(run(1, 3), alone)


def test_an_idle_engine_takes_no_time(tiny: Tiny) -> None:
    """Workers wait a moment for the next step, then sleep."""
    engine = tiny.engine(threads=4)
    engine.step([(engine.open(), tokens(1), 1)])
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.01


def test_what_matrices_are_multiplied_with_is_recorded(tiny: Tiny) -> None:
    engine = tiny.engine(batch=4)  # three runs
    text = tokens(*range(10))
    a, b = engine.open(), engine.open()

    found = engine.record([(a, text, 0)])

    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == {
        "qkv": (LAYERS, 10, WIDTH),
        "o": (LAYERS, 10, HEADS * HEAD_DIM),
        "ffn": (LAYERS, 10, WIDTH),
        "down": (LAYERS, 10, FF),
        "output": (10, WIDTH),
    }
    np.testing.assert_array_equal(found["output"], engine.embed([(b, text, 10)]))
    weights = tiny.weights()
    gate, up = (found["ffn"][1] @ weights[f"blk.1.ffn_{part}.weight"].T for part in ("gate", "up"))
    np.testing.assert_allclose(found["down"][1], gate / (1 + np.exp(-gate)) * up, atol=1e-4)
    embedded = weights["token_embd.weight"][text]
    norm = embedded / np.sqrt(np.square(embedded).mean(axis=1, keepdims=True) + 1e-5)
    scaled = norm * weights["blk.0.attn_norm.weight"]
    np.testing.assert_allclose(found["qkv"][0], scaled, rtol=1e-5)


def test_a_replaced_tensor_is_as_if_it_had_been_loaded(tiny: Tiny) -> None:
    name, text = "blk.1.ffn_up.weight", tokens(1, 2, 3)
    engine, original = tiny.engine(), tiny.weights()[name]

    def logits() -> np.ndarray:
        sequence = engine.open()
        return np.array(engine.step([(sequence, text, 3)]))

    before = logits()
    engine.replace(name, np.zeros_like(original).view(np.uint8).ravel())
    without = logits()
    engine.replace(
        "blk.1.ffn_down.weight", np.zeros((WIDTH, FF), np.float32).view(np.uint8).ravel()
    )
    np.testing.assert_array_equal(without, logits())  # nothing times anything
    engine.replace(name, original.view(np.uint8).ravel())
    np.testing.assert_array_equal(without, logits())
    down = tiny.weights()["blk.1.ffn_down.weight"]
    engine.replace("blk.1.ffn_down.weight", down.view(np.uint8).ravel())

    assert np.abs(without - before).max() > 0.01
    np.testing.assert_array_equal(before, logits())


@pytest.mark.parametrize("name, size", [("blk.9.ffn_up.weight", 4), ("blk.0.ffn_up.weight", 4)])
def test_a_replacement_that_does_not_fit_is_refused(tiny: Tiny, name: str, size: int) -> None:
    with pytest.raises(ValueError, match=name):
        tiny.engine().replace(name, np.zeros(size, np.uint8))
