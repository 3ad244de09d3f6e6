"""Plans: what a header says, what is given up to fit, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgeinfer.errors import (
    CorruptFileError,
    DoesNotFitError,
    UnsupportedError,
    UsageError,
)
from edgeinfer.planner import plan_model

MIB, GIB = 1 << 20, 1 << 30


def test_the_bytes_of_a_known_model(large, device):
    plan = plan_model(large, device=replace(device, memory_budget=64 * GIB), context=4096)

    # 6,738,415,616 parameters are published; all but the norms are two bytes here.
    norms = (2 * 32 + 1) * 4096
    assert plan.weights_bytes == (6_738_415_616 - norms) * 2 + norms * 4
    assert plan.kv_bytes == 2 * GIB  # 2 * 32 layers * 4096 * 4096 * 2 bytes
    assert plan.total_bytes == sum(
        (plan.weights_bytes, plan.kv_bytes, plan.scratch_bytes, plan.runtime_bytes)
    )
    assert plan.fits
    assert plan.quant == "f16"


def test_rows_are_padded_to_groups_of_sixteen(header, device):
    exact = plan_model(header(vocab=1008), device=device)

    assert plan_model(header(vocab=1000), device=device).weights_bytes == exact.weights_bytes
    assert plan_model(header(vocab=1009), device=device).weights_bytes > exact.weights_bytes


def test_an_untied_embedding_is_kept_beside_the_output(header, device):
    tied = plan_model(header(vocab=1024), device=device).weights_bytes
    untied = plan_model(header(vocab=1024, tied=False), device=device).weights_bytes

    assert untied - tied == 1024 * 210  # 256 values of q6_k a row


def test_the_kv_cache_grows_with_context_and_type(header, device):
    def kv(**options):
        return plan_model(header(), device=device, **options).kv_bytes

    assert kv(context=1000) == kv(context=1024) == 2 * 2 * 2 * 1024 * 64 * 2
    assert kv(context=1000, kv_type_k="f32", kv_type_v="f32") == 2 * kv(context=1000)


def test_the_device_s_threads_are_the_default(header, device):
    assert plan_model(header(), device=device).threads == device.threads
    assert plan_model(header(), device=device, threads=1).threads == 1


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (4, 12)),
        ({"threads": 3}, (3, 3)),
        ({"batch_threads": 5}, (4, 5)),
        ({"threads": 3, "batch_threads": 5}, (3, 5)),
    ],
)
def test_prompts_may_be_read_by_more_threads(header, device, asked, expected):
    laptop = replace(device, threads=4, batch_threads=12)
    plan = plan_model(header(), device=laptop, **asked)
    assert (plan.threads, plan.batch_threads) == expected


def test_the_default_context_is_the_trained_one_up_to_a_limit(header, device):
    assert plan_model(header(context=2048), device=device).context == 2048
    plan = plan_model(header(context=131072), device=device)
    assert plan.context == 8192
    assert plan.notes == ("context 8192 of 131072; ask for more with -c",)


def test_a_default_context_is_reduced_to_fit_and_says_so(large, device):
    need = plan_model(large, device=replace(device, memory_budget=64 * GIB)).total_bytes

    plan = plan_model(large, device=device, memory=need - 1200 * MIB)

    assert plan.context == 1024
    assert plan.fits
    assert "reduced from 4096 to 1024" in plan.notes[0]


def test_memory_is_a_limit_on_top_of_the_device_s(header, device):
    assert plan_model(header(), device=device, memory=1 * GIB).budget_bytes == 1 * GIB
    beyond = plan_model(header(), device=device, memory=1 << 50)
    assert beyond.budget_bytes == device.memory_budget


def refusal(model, device, **options):
    with pytest.raises(DoesNotFitError) as caught:
        plan_model(model, device=device, **options)
    return caught.value


def fits_as_suggested(model, device, error, **options):
    """Plans again with the context and KV type of the suggestion."""
    context = re.search(r"-c (\d+)", error.suggest)
    if context:
        options["context"] = int(context[1])
    if types := re.search(r"-ctk (\w+) -ctv (\w+)", error.suggest):
        options["kv_type_k"], options["kv_type_v"] = types.groups()
    return plan_model(model, device=device, **options).fits


def test_a_context_that_was_asked_for_is_not_reduced(large, device):
    options = {"context": 4096, "memory": 13 * GIB + GIB // 2}
    options |= {"kv_type_k": "q8_0", "kv_type_v": "q8_0"}
    device = replace(device, memory_budget=64 * GIB)

    error = refusal(large, device, **options)

    assert error.exit_code == 4
    assert error.have_bytes == options.pop("memory")
    assert error.need_bytes == plan_model(large, device=device, **options).total_bytes
    assert error.suggest.startswith("use -c 2048")
    assert fits_as_suggested(large, device, error, memory=error.have_bytes, **options)


def test_a_half_precision_cache_is_the_first_suggestion(large, device):
    device = replace(device, memory_budget=64 * GIB)
    options = {"context": 4096, "memory": 16 * GIB, "kv_type_k": "f32", "kv_type_v": "f32"}

    error = refusal(large, device, **options)

    assert error.suggest.startswith("use -ctk f16")
    assert fits_as_suggested(large, device, error, **options)


def test_a_smaller_quant_type_is_suggested_where_no_context_fits(large, device):
    error = refusal(large, device, memory=6 * GIB)

    assert "convert MODEL --to gguf -q q4_0" in error.suggest
    assert error.need_bytes > 6 * GIB


def test_the_largest_quant_type_that_fits_is_suggested(large, device):
    assert "-q q8_0" in refusal(large, device, memory=10 * GIB).suggest


def test_where_nothing_fits_that_is_said(large, device):
    error = refusal(large, device, memory=1 * GIB)

    assert error.suggest is None
    assert "take a smaller model" in error.message


def test_a_plan_that_does_not_fit_can_be_looked_at(large, device):
    plan = plan_model(large, device=device, memory=1 * GIB, refuse=False)

    assert not plan.fits


def test_nothing_smaller_than_what_the_file_has_is_suggested(header, device):
    small = header(kind="q2_k", embedding="q2_k")

    assert refusal(small, device, memory=1 * MIB).suggest is None


def test_more_context_than_trained_is_refused(header, device):
    with pytest.raises(UsageError, match="5000") as caught:
        plan_model(header(context=4096), device=device, context=5000)

    assert caught.value.hint == "use -c 4096 or less"


def test_a_file_that_scales_its_rope_may_go_further(header, device):
    scaled = header(
        context=4096,
        keys={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
    )

    assert plan_model(scaled, device=device, context=16384).context == 16384
    with pytest.raises(UsageError, match="16384"):
        plan_model(scaled, device=device, context=16385)


@pytest.mark.parametrize(
    "options",
    [{"context": 0}, {"threads": 0}, {"batch_threads": 0}, {"batch": -1}, {"kv_type_k": "q3_k"}],
)
def test_options_that_make_no_sense(header, device, options):
    with pytest.raises(UsageError):
        plan_model(header(), device=device, **options)


def test_a_missing_tensor_is_named(header, device):
    broken = header()
    del broken.tensors["blk.1.ffn_up.weight"]

    with pytest.raises(CorruptFileError, match=r"blk\.1\.ffn_up\.weight"):
        plan_model(broken, device=device)


def test_an_unknown_architecture(header, device):
    with pytest.raises(UnsupportedError, match="mamba"):
        plan_model(header(keys={"general.architecture": "mamba"}), device=device)


def test_the_file_s_own_name_for_its_mix_is_used_if_it_is_true(header, device):
    def quant(**options):
        return plan_model(header(**options), device=device).quant

    assert quant(kind="q4_k", keys={"general.file_type": 15}) == "q4_k_m"
    assert quant(kind="q4_0", keys={"general.file_type": 15}) == "q4_0"
    assert quant(kind="q5_1") == "q5_1"


def test_decoding_speed_is_bounded_by_bandwidth(header, device):
    plan = plan_model(header(), device=device)
    stream = device.ceilings.at(plan.threads).stream_bytes_per_second

    assert 0 < plan.decode_tokens_per_second < stream / plan.weights_bytes
    assert plan.decode_full_tokens_per_second < plan.decode_tokens_per_second
    unknown = plan_model(header(), device=replace(device, ceilings=None))
    assert unknown.decode_tokens_per_second is None
    assert plan_model(header(), device=device, predictor=None).speed is None
