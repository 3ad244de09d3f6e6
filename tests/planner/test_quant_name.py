"""What a file's mix of quant types is called."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgeinfer.planner.quant_name import quant_name


@pytest.mark.parametrize(
    ("file_type", "name"),
    [
        (15, "q4_k_m"),
        (7, "q4_k"),  # says q8_0, but has none
        (999, "q4_k"),
        (None, "q4_k"),
        ("15", "q4_k"),
        (np.array([15, 15]), "q4_k"),
    ],
)
def test_a_file_is_called_what_it_says_if_that_can_be(file_type, name):
    metadata = {} if file_type is None else {"general.file_type": file_type}
    tensors = {
        "token_embd.weight": SimpleNamespace(type="q4_k", shape=(8, 256)),
        "output_norm.weight": SimpleNamespace(type="f32", shape=(256,)),
    }

    assert quant_name(metadata, tensors) == name
