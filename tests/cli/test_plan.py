"""``edgeinfer plan`` on the default model."""

from __future__ import annotations

import json

import pytest

KEYS = {
    "total_bytes", "weights_bytes", "kv_bytes", "scratch_bytes", "budget_bytes", "fits",
    "context", "backend", "quant",
}  # fmt: skip


@pytest.fixture
def plan(edgeinfer, smollm2):
    """Runs ``plan`` and returns (outcome, record)."""

    def run(*arguments: str):
        outcome = edgeinfer("plan", str(smollm2), "--json", *arguments)
        return outcome, json.loads(outcome.stdout)

    return run


def test_the_default_model_fits(plan, smollm2):
    outcome, record = plan("-c", "2048")

    assert outcome.exit_code == 0
    assert record.keys() >= KEYS
    assert record["fits"]
    assert record["context"] == 2048
    assert record["quant"] == "q4_1"
    assert record["kv_bytes"] == 30 * 3 * 64 * 2 * 2 * 2048
    assert abs(record["weights_bytes"] / smollm2.stat().st_size - 1) < 0.03


def test_what_does_not_fit_exits_4_and_says_what_does(plan):
    outcome, record = plan("-c", "8192", "-ctk", "f16", "--memory", "250MiB")

    assert outcome.exit_code == 4
    assert not record["fits"]
    assert record["budget_bytes"] == 250 << 20
    context = record["suggest"].split("-c ")[1].split()[0]
    assert plan("-c", context, "--memory", "250MiB")[0].exit_code == 0


def test_keys_and_values_have_types_of_their_own(plan):
    _, record = plan("-c", "2048", "-ctk", "q8_0", "-ctv", "q4_0")

    assert (record["kv_type_k"], record["kv_type_v"]) == ("q8_0", "q4_0")
    assert record["kv_bytes"] == 30 * 3 * 64 // 32 * (34 + 18) * 2048


def test_a_smaller_cache_is_suggested_before_a_shorter_context(plan):
    _, record = plan("-c", "8192", "--memory", "340MiB", "-ctk", "f16", "--backend", "native")

    assert record["suggest"].startswith("use -ctk q8_0 -ctv q8_0")


def test_a_smaller_cache_is_picked_before_a_shorter_context(plan):
    outcome, record = plan("--memory", "340MiB", "--backend", "native")

    assert outcome.exit_code == 0
    assert (record["context"], record["kv_types"]) == (8192, "q8_0")
    unquantised = [row for row in record["rows"] if row["kv_types"] == "f16"]
    assert [row["context"] for row in unquantised if row["fits"]] == [2048]


def test_every_combination_is_in_the_record(plan):
    _, record = plan()

    combinations = {(r["backend"], r["kv_types"], r["context"]) for r in record["rows"]}
    assert combinations >= {
        ("native", cache, context) for cache in ("f16", "q8_0", "q4_0") for context in (2048, 8192)
    }
    for row in record["rows"]:
        parts = ("weights_bytes", "kv_bytes", "scratch_bytes", "runtime_bytes")
        assert row["total_bytes"] == sum(row[part] for part in parts)
        assert row["prefill_tokens_per_second"] > row["decode_tokens_per_second"] > 0


@pytest.mark.peer
def test_llama_cpp_is_planned_for_by_its_own_sums(plan):
    _, record = plan("-c", "2048", "-ctk", "f16")

    totals = {row["backend"]: row["total_bytes"] for row in record["rows"]}
    assert set(totals) >= {"native", "llamacpp"}
    assert totals["native"] != totals["llamacpp"]


def test_a_board_is_planned_for(plan):
    _, record = plan("--device", "rpi4-4gb")

    assert record["threads"] == 4
    assert record["budget_bytes"] < 4 << 30
    assert record["decode_tokens_per_second"] > 1


def test_people_read_a_table(edgeinfer, smollm2):
    outcome = edgeinfer("plan", str(smollm2), "--device", "rpi5-8gb")

    lines = outcome.stdout.splitlines()
    assert "134.5 M weights, 30 layers" in lines[0]
    assert lines[1].startswith("Raspberry Pi 5, 8 GB: 4 threads")
    assert "with 8192 tokens of f16 cache" in lines
    assert lines[-1] == "fits"
    assert any(line.startswith("> native") for line in lines)
    tables = [line for line in lines if "q4_1" in line and "/" not in line]
    assert max(map(len, tables)) <= 100


def test_people_can_have_every_combination(edgeinfer, smollm2):
    outcome = edgeinfer("plan", str(smollm2), "--all", "--backend", "native")

    rows = [line for line in outcome.stdout.splitlines() if " native " in line and "q4_1 " in line]
    assert len(rows) == 3 * 2


def test_people_are_told_what_to_change(edgeinfer, smollm2):
    outcome = edgeinfer("plan", str(smollm2), "-c", "8192", "-ctk", "f16", "--memory", "250MiB")

    assert outcome.exit_code == 4
    assert outcome.stdout.splitlines()[-1] == "does not fit"
    assert "hint: use -c" in outcome.stderr


def test_another_quant_than_the_file_s(edgeinfer, smollm2):
    outcome = edgeinfer("plan", str(smollm2), "-q", "q8_0")

    assert outcome.exit_code == 2
    assert "is q4_1" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--memory", "much"], 2),
        (["--device", "toaster"], 3),
        (["-c", "100000"], 2),
        (["-ctk", "q2"], 2),
        (["-ctv", "q6_k"], 2),
        (["--backend", "magic"], 3),
        (["--nonsense"], 2),
    ],
)
def test_wrong_options(edgeinfer, smollm2, arguments, code):
    assert edgeinfer("plan", str(smollm2), *arguments).exit_code == code


def test_what_is_no_model(edgeinfer, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")

    assert edgeinfer("plan", str(tmp_path / "nothing.gguf")).exit_code == 3
    assert edgeinfer("plan", str(tmp_path / "x.gguf")).exit_code == 6
