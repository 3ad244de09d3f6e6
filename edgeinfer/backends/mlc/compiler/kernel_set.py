"""The operations that the decoder is drawn with, whatever they run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.mlc.parameters import Matrix

if TYPE_CHECKING:
    from edgeinfer.backends.mlc.compiler.decoder import Where


class KernelSet(Protocol):
    """Kernels for one kind of target; tensors are those of TVM's module language."""

    config: ModelConfig
    cache_dtype: str

    def parameters(self, matrix: Matrix) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape and type of each tensor that a matrix is."""

    def cache_shape(self, pages: Any) -> tuple[Any, ...]:
        """The shape of all pages of keys and values."""

    def product(self, matrix: Matrix, parts: Mapping[str, Any], x: Any) -> Any:
        """X (n, columns) times a matrix, and its bias added."""

    def embed(self, matrix: Matrix, parts: Mapping[str, Any], ids: Any, scale: float) -> Any:
        """Rows of a matrix, scaled."""

    def norm(self, x: Any, weight: Any) -> Any:
        """The RMS norm of rows."""

    def add(self, x: Any, y: Any, scale: float) -> Any:
        """X + scale * y."""

    def gated(self, x: Any) -> Any:
        """Gate and up side by side -> activation(gate) * up."""

    def scaled_and_capped(self, x: Any, scale: float, cap: float) -> Any:
        """Logits, scaled and softly capped where they are to be."""

    def angles(self, positions: Any, frequencies: Any, magnitude: float) -> Any:
        """Cosines and sines of positions."""

    def rotate(
        self, qkv: Any, norms: Sequence[Any], angles: Any, slots: Any, cache: Any, layer: int
    ) -> tuple[Any, Any]:
        """Queries, normed and turned; and the cache with keys and values in their slots."""

    def attend(self, queries: Any, cache: Any, where: Where, window: int, layer: int) -> Any:
        """Attention over the pages of each token's sequence."""
