"""The sampling that suits a model."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.errors import CorruptFileError
from edgeinfer.runtime.recommended import recommended, system_message
from edgeinfer.types import SamplingParams


def test_an_unknown_model_gets_the_defaults():
    assert recommended({"general.name": "Something else"}) == SamplingParams()
    assert recommended({}) == SamplingParams()


def test_a_known_model_gets_what_its_card_says():
    for name in ("smollm2", "SmolLM2 135M Instruct", "Smollm2-1.7B"):
        params = recommended({"general.name": name})
        assert (params.temperature, params.top_p) == (0.2, 0.9)


def test_the_basename_goes_before_the_name():
    metadata = {"general.basename": "Qwen3", "general.name": "smollm2"}

    assert recommended(metadata).top_k == 20


def test_the_file_has_the_last_word():
    metadata = {
        "general.basename": "smollm2",
        "general.sampling.temp": 0.9,
        "general.sampling.penalty_repeat": 1.1,
        "general.sampling.top_k": "no number",
    }

    params = recommended(metadata)

    assert (params.temperature, params.repeat_penalty, params.top_p) == (0.9, 1.1, 0.9)


def test_some_help_is_for_one_size_of_a_model():
    small = {"general.basename": "smollm2", "general.size_label": "135M"}

    assert "English" in system_message(small)
    assert recommended(small).repeat_penalty == 1.1
    assert recommended(small | {"general.size_label": "1.7B"}).repeat_penalty == 1.0
    assert system_message(small | {"general.size_label": "1.7B"}) is None
    assert system_message(small | {"general.basename": "other"}) is None


@pytest.mark.parametrize(("key", "value"), [("temp", -1.0), ("top_p", float("nan"))])
def test_a_senseless_value_in_the_file_is_told(key, value):
    with pytest.raises(CorruptFileError, match=r"general\.sampling"):
        recommended({f"general.sampling.{key}": value})


def test_keys_of_a_wrong_type_are_no_names():
    odd = {"general.basename": np.zeros(3), "general.size_label": np.zeros(3)}

    assert recommended(odd) == SamplingParams()
    assert system_message(odd) is None
