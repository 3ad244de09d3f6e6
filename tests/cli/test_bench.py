"""``edgeinfer bench`` on a fake model and on a small real one."""

from __future__ import annotations

import json

import pytest

from support.fake_model import fake_model
from support.whole_model import write_whole_model

RECORD = {
    "model", "file_bytes", "parameters", "quant", "backend", "threads", "batch", "context",
    "kv_type_k", "kv_type_v", "lora", "machine", "load_seconds", "first_token_prompt",
    "first_token_seconds", "peak_resident_bytes", "tests", "sustained",
}  # fmt: skip
TEST = {
    "test", "prompt_tokens", "new_tokens", "depth", "tokens_per_second", "deviation", "samples",
    "bytes_per_second", "macs_per_second", "stream_bytes_per_second", "int8_macs_per_second",
    "of_stream", "of_peak",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(write_whole_model(tmp_path_factory.mktemp("bench") / "tiny.gguf"))


@pytest.fixture
def bench(edgeinfer, tiny):
    """Runs ``bench`` on the small model and returns its records."""

    def run(*arguments: str):
        outcome = edgeinfer("bench", tiny, "-r", "2", "-p", "8", "-n", "2", "--json", *arguments)
        assert outcome.exit_code == 0, outcome.stderr
        return json.loads(outcome.stdout)

    return run


def test_a_record_has_everything_a_comparison_needs(bench):
    (record,) = bench()

    assert record.keys() == RECORD
    assert record["parameters"] == (262 + 5) * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32)
    assert 0 < record["load_seconds"] < record["first_token_seconds"]
    assert record["first_token_prompt"] == 8
    assert record["peak_resident_bytes"] > 20 << 20
    assert record["machine"].keys() >= {"cpu", "isa", "physical_cores", "edgeinfer"}
    for test in record["tests"]:
        assert test.keys() == TEST
        assert len(test["samples"]) == 2
        assert min(test["samples"]) <= test["tokens_per_second"] <= max(test["samples"])
        assert test["bytes_per_second"] > 0 and test["macs_per_second"] > 0
        assert test["of_stream"] is None and test["of_peak"] is None


def test_numbers_with_commas_are_several_tests(bench):
    (record,) = bench("-p", "1,8", "-n", "2", "-d", "0,4")

    names = [test["test"] for test in record["tests"]]
    assert names == ["pp1", "pp8", "pp1 @ d4", "pp8 @ d4", "tg2", "tg2 @ d4"]
    assert record["context"] == 12


def test_several_thread_counts_are_several_records(bench):
    assert [record["threads"] for record in bench("-t", "1,2")] == [1, 2]


def test_ceilings_are_measured_beside(bench):
    (record,) = bench("--ceilings", "-t", "1")

    assert record["peak_resident_bytes"] is None
    for test in record["tests"]:
        assert 1e6 < test["stream_bytes_per_second"] < 2e12
        assert 1e6 < test["int8_macs_per_second"] < 2e12
        assert test["of_stream"] > 0 and 0 < test["of_peak"] < 1


def test_people_read_a_table(edgeinfer, tiny):
    outcome = edgeinfer("bench", tiny, "-r", "1", "-p", "8", "-n", "2", "-t", "1", "--ceilings")

    lines = outcome.stdout.splitlines()
    assert lines[0].startswith(tiny)
    assert "1 threads" in lines[1]
    assert lines[3].split("  ")[0] == "TEST"
    assert "OF STREAM" in lines[3] and "OF PEAK" in lines[3]
    assert lines[4].startswith("pp8 ") and " ± " in lines[4]
    assert lines[5].startswith("tg2 ")
    assert lines[-1].startswith("ready after ")


def test_a_model_that_is_no_file_has_no_bytes(edgeinfer, use_model):
    use_model(fake_model("abc"))

    outcome = edgeinfer("bench", "m", "-r", "1", "-p", "8", "-n", "2", "--json")

    (record,) = json.loads(outcome.stdout)
    assert record["parameters"] is None
    assert [test["bytes_per_second"] for test in record["tests"]] == [None, None]
    assert record["tests"][0]["tokens_per_second"] > 0
    assert "GB/S" not in edgeinfer("bench", "m", "-r", "1", "-n", "2").stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-p", "0", "-n", "0"], "nothing to time"),
        (["-p", "many"], "'many' is not like 512"),
        (["-d", "-1"], "-1 is less than 0"),
        (["-t", "0"], "0 is less than 1"),
        (["-r", "0"], "-r"),
        (["--sustained", "0.5"], "--sustained"),
    ],
)
def test_wrong_options(edgeinfer, tiny, arguments, complaint):
    outcome = edgeinfer("bench", tiny, *arguments)

    assert outcome.exit_code == 2
    assert complaint in outcome.stderr


def test_what_does_not_fit_the_context(edgeinfer, tiny):
    assert edgeinfer("bench", tiny, "-d", "1000").exit_code == 2


SUSTAINED = {
    "seconds", "burst", "last", "least", "last_over_burst", "celsius", "throttled",
    "throttle_reasons", "windows",
}  # fmt: skip


def test_how_the_speed_holds_is_measured_when_asked(bench):
    (record,) = bench("--sustained", "2")

    sustained = record["sustained"]
    assert sustained.keys() == SUSTAINED
    assert len(sustained["windows"]) == 2
    assert 2 <= sustained["seconds"] < 4
    assert min(sustained["windows"]) == sustained["least"] <= sustained["last"]
    assert bench()[0]["sustained"] is None


def test_people_read_how_the_speed_holds_and_what_slowed_it(edgeinfer, tiny, monkeypatch):
    from edgeinfer.device import thermal

    hot = thermal.ThermalState(celsius=84.6, throttled=True, reasons=("soft temperature limit",))
    monkeypatch.setattr(thermal, "read", lambda: hot)

    said = edgeinfer("bench", tiny, "-r", "1", "-p", "8", "-n", "2", "--sustained", "1").stdout
    (line,) = [line for line in said.splitlines() if line.startswith("sustained for 1 s: ")]
    assert line.endswith("throttling: soft temperature limit, 85 degrees C")


def test_all_backends_are_compared_each_in_its_own_process(bench):
    from edgeinfer.backends import registry
    from edgeinfer.device.detect import detect

    records = bench("--backend", "all", "-t", "1", "--sustained", "1")

    able = [c.name for c in registry.candidates(detect()) if registry.unfit(c, "gguf") is None]
    assert [record["backend"] for record in records] == able
    for record in records:
        assert record.keys() == RECORD | {"divergence", "divergence_from"}
        assert [test["test"] for test in record["tests"]] == ["pp8", "tg2"]
        assert record["threads"] == 1
        assert record["divergence_from"] == able[0]
        assert len(record["sustained"]["windows"]) == 1
    assert records[0]["divergence"] < 1e-7


def test_the_divergence_may_be_from_a_more_exact_file(edgeinfer, tiny, tmp_path):
    from edgeinfer_converters.gguf import convert

    small = str(tmp_path / "small.gguf")
    convert(tiny, small, quant="q4_0")
    arguments = ("--backend", "all", "-p", "8", "-n", "0", "-r", "1", "--json")
    outcome = edgeinfer("bench", small, *arguments, "--reference", tiny)

    first = json.loads(outcome.stdout)[0]
    assert first["divergence_from"] == tiny
    assert first["divergence"] > 1e-3


def test_a_comparison_has_one_number_of_threads(edgeinfer, tiny):
    assert edgeinfer("bench", tiny, "--backend", "all", "-t", "1,2").exit_code == 2
