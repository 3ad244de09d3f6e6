"""The two seams: a Backend is a way to run models, an Engine is a loaded one."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import ModelConfig
from edgeinfer.device.accelerator import Accelerator
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.types import FinishReason, SamplingParams

if TYPE_CHECKING:
    from edgeinfer.formats.gguf import GGUFFile

Logits = NDArray[np.float32]  # (n_wanted, n_vocab)


@dataclass(frozen=True, slots=True)
class Slice:
    """Tokens that one sequence advances by in one step.

    ``wants_logits`` counts how many of the last tokens the logits are wanted of:
    0 none, 1 the last token, len(tokens) all.
    """

    sequence: int
    tokens: Sequence[int]
    wants_logits: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """A backend's answer to "can you run on this device"."""

    usable: bool
    reason: str = ""  # why not, or what it will use
    rank: int = 0  # higher is tried first
    only_by_name: bool = False  # it is never taken, raced or compared unless it is asked for
    accelerators: tuple[Accelerator, ...] = ()  # what it can compute on besides the processor


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on disk: the resolved reference, its format and its main file or folder."""

    path: Path
    format: str  # "gguf", "onnx", "mlc"
    reference: str = ""
    extra: tuple[Path, ...] = field(default_factory=tuple)
    gguf: GGUFFile | None = None  # the main file, if it is one and open already


@runtime_checkable
class Engine(Protocol):
    """A loaded model. All state is in the sequences it has opened."""

    config: ModelConfig

    def open(self) -> int:
        """Opens an empty sequence and returns its number."""

    def step(self, batch: Sequence[Slice]) -> Logits:
        """Appends each slice's tokens to its sequence.

        Returns:
            Logits of the wanted tokens, float32 (sum of wants_logits, n_vocab), in the
            order of the batch.

        Raises:
            ContextFullError: a slice does not fit; no sequence was changed.
            ClosedError: a sequence or the engine is closed.
            ValueError: the batch makes no sense (a token outside the vocabulary, an empty
                slice, a sequence twice); no sequence was changed.
        """

    def trim(self, sequence: int, length: int) -> int:
        """Forgets all but the first ``length`` tokens of a sequence.

        Where layers carry a running state, which every token overwrites, it may be known of fewer
        tokens only: then more is forgotten, and to be read again.

        Returns:
            How many tokens are left, at most ``length``.

        Raises:
            ValueError: the sequence is shorter.
        """

    def close(self, sequence: int) -> None:
        """Closes a sequence and gives its memory back."""

    def shutdown(self) -> None:
        """Gives the weights back; every later call raises ClosedError."""


@runtime_checkable
class Embedder(Protocol):
    """What an engine may offer besides: the hidden states behind the logits."""

    def embed(self, batch: Sequence[Slice]) -> NDArray[np.float32]:
        """As ``Engine.step``, but returns the final normalised hidden states (n_wanted, width)."""


@runtime_checkable
class StateKeeper(Protocol):
    """What an engine may offer besides: the keys and values of a sequence as bytes."""

    state_form: str  # bytes of another form are not to be restored

    def save_state(self, sequence: int) -> bytes | memoryview:
        """Returns what the sequence has read."""

    def restore_state(self, sequence: int, state: bytes | memoryview, length: int) -> None:
        """Makes an empty sequence as if it had read the ``length`` tokens of the state.

        Raises:
            ValueError: the bytes are no such state; the sequence is empty.
        """


# Adapters of a sequence: their numbers, and how strongly each is felt.
AdapterUse = tuple[int, float]


@runtime_checkable
class Adaptable(Protocol):
    """What an engine may offer besides: low-rank adapters, other ones for each sequence."""

    def add_adapter(self, path: Path) -> int:
        """Takes a GGUF adapter in and returns its number.

        Raises:
            UnsupportedError: it is of another architecture, or changes what cannot be changed.
            CorruptFileError: the file is damaged, or of a model of another shape.
        """

    def remove_adapter(self, adapter: int) -> None:
        """Forgets an adapter; sequences that use it still do."""

    def set_adapters(self, sequence: int, adapters: Sequence[AdapterUse]) -> None:
        """Computes an empty sequence with these adapters, added up, from now on.

        Raises:
            ValueError: the sequence is not empty, or there is no such adapter.
        """


@runtime_checkable
class BatchInvariant(Protocol):
    """What an engine may promise besides: a token's logits do not hang on what it is read with.

    They are the same, bit for bit, alone in a step and among others of its sequence or another.
    """

    batch_invariant: Literal[True]


@runtime_checkable
class Calibratable(Protocol):
    """What an engine may offer besides: what its matrices see, and other values for them."""

    def record(self, batch: Sequence[Slice]) -> Mapping[str, NDArray[np.float32]]:
        """Appends slices and returns what each matrix was multiplied with.

        Returns:
            float32 (layers, tokens, columns): "qkv", "o", "ffn" (gate and up), "down"; and
            "output" (tokens, width).

        Raises:
            As ``Engine.step``.
        """

    def replace(self, tensor: str, data: NDArray[np.uint8]) -> None:
        """Gives a tensor of the graph other values, in the type that it was loaded with.

        What sequences hold already was computed with the old ones.

        Raises:
            ValueError: there is no such tensor, or the data has another size.
        """


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of what a ``Writer`` writes, whole characters.

    The last one says why it ended, and how many tokens all of it is.
    """

    text: str
    ended: FinishReason | None = None
    tokens: int = 0


@runtime_checkable
class Writer(Protocol):
    """What an engine may be instead of giving logits: one that writes by itself.

    Its ``step`` raises UnsupportedError. Generated text and conversations are there, nothing that
    is made of logits. Its backend's ``Support`` is ``only_by_name``.
    """

    def write(
        self, prompt: Sequence[int], params: SamplingParams
    ) -> Generator[Passage, None, None]:
        """Continues a prompt; closing the iterator ends it.

        Stop strings are the caller's, who takes them out of the text.

        Args:
            prompt: tokens, which fit the context.
            params: as many as it knows of them; it tells which it does not.
        """


class Backend(Protocol):
    """A way to run models."""

    name: str
    formats: frozenset[str]

    def version(self) -> str:
        """What speeds measured before hold for; another version is measured anew."""

    def probe(self, device: DeviceProfile) -> Support:
        """Says whether this backend runs on the device.

        It is asked in a process of its own, once until a package comes or goes, so it may
        load libraries and start devices. What it raises is told to the user; where nothing
        is wrong but a library not installed, it returns a Support that says so.
        """

    def load(self, files: ModelFiles, plan: MemoryPlan) -> Engine:
        """Loads the model as planned."""
