"""The table of tensor types against the ``gguf`` package's."""

from __future__ import annotations

import gguf
import pytest

from edgeinfer.formats import ggml_types


@pytest.mark.parametrize("kind", gguf.GGML_QUANT_SIZES, ids=lambda kind: kind.name)
def test_a_type_has_the_name_and_size_of_the_gguf_package(
    kind: gguf.GGMLQuantizationType,
) -> None:
    type_ = ggml_types.BY_ID[kind.value]

    assert type_.name == kind.name.lower()
    assert (type_.block, type_.nbytes) == gguf.GGML_QUANT_SIZES[kind]
    assert ggml_types.BY_NAME[type_.name] is type_


def test_removed_types_are_not_in_the_table() -> None:
    known = {kind.value for kind in gguf.GGMLQuantizationType}

    assert not ggml_types.REMOVED.keys() & (ggml_types.BY_ID.keys() | known)
