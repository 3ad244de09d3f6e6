"""edgeinfer's native kernels, engine and sampler."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy
import numpy.typing
from numpy.typing import NDArray

def quant_types() -> list[tuple[str, int, int, int, int, bool]]:
    """
    Returns (name, ggml_id, block, block_bytes, packed_bytes, is_float) of every quant type; packed_bytes are those of a row's block in memory.
    """

def encode(
    type_name: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
    ],
    threads: int = 1,
    importance: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ]
    | None = None,
    isa: str | None = None,
) -> NDArray[numpy.uint8]:
    """
    Encodes float32 (rows, cols) to GGUF blocks, uint8 (rows, row_bytes), with the encoders of an instruction set. importance (cols,) weighs the squared error.
    """

def decode(
    type_name: str,
    data: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
) -> NDArray[numpy.float32]:
    """Decodes GGUF blocks to float32 (rows, cols)."""

def pack(
    type_name: str,
    data: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
    isa: str | None = None,
) -> NDArray[numpy.uint8]:
    """
    Packs GGUF blocks (rows, cols) into the layout of native/quant/packed.h, with the kernels of an instruction set, or a row at a time.
    """

def unpack_row(
    type_name: str,
    packed: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
    row: int,
) -> NDArray[numpy.float32]:
    """Decodes one row of a packed matrix, float32 (cols,)."""

def isas() -> list[str]:
    """Names of the instruction sets this machine can run, best first."""

def isa() -> str:
    """The instruction set in use: the best, or the one EDGEINFER_ISA names."""

def matmul(
    isa: str,
    type: str,
    data: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
    ],
    threads: int = 1,
) -> NDArray[numpy.float32]:
    """
    x (tokens, cols) times the transposed GGUF matrix `data` (rows, cols) of a quant type.
    """

def bench_matmul(
    isa: str, type: str, rows: int, cols: int, tokens: int, seconds: float, threads: int = 1
) -> float:
    """Best processor seconds of one product on random activations."""

def quantize(
    isa: str, x: numpy.typing.NDArray[numpy.float32]
) -> tuple[
    numpy.typing.NDArray[numpy.int8],
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.int32],
    numpy.typing.NDArray[numpy.float32],
]:
    """
    Activations as int8: q, and per 16 values the scale, the sum of q and scale * sum.
    """

def rms_norm(
    isa: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    w: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    eps: float,
) -> NDArray[numpy.float32]:
    """x / sqrt(mean(x^2) + eps) * w."""

def layer_norm(
    isa: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    w: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    b: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    eps: float,
) -> NDArray[numpy.float32]:
    """(x - mean(x)) / sqrt(variance(x) + eps) * w + b."""

def rope(
    isa: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
    ],
    cos: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    sin: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    neighbours: bool,
) -> NDArray[numpy.float32]:
    """
    x (heads, head_dim) turned by the angles of cos and sin (rope_dim / 2,).
    """

def silu_mul(
    isa: str,
    gate: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    up: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """silu(gate) * up."""

def gelu_mul(
    isa: str,
    gate: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    up: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """gelu_tanh(gate) * up."""

def clamped_swiglu(
    isa: str,
    gate: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    up: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """
    g * sigmoid(1.702 * g) * (u + 1); g is gate, 7 at most, u is up in [-7, 7].
    """

def gelu(
    isa: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """gelu_tanh(x)."""

def gelu_erf_mul(
    isa: str,
    gate: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    up: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """gelu(gate) * up."""

def gelu_erf(
    isa: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """x * Phi(x)."""

def scale_and_cap(
    isa: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    scale: float,
    cap: float,
) -> NDArray[numpy.float32]:
    """cap * tanh(scale * x / cap); a cap of 0 is none."""

def multiply(
    isa: str,
    y: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """y * x."""

def sigmoid_mul(
    isa: str,
    y: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    gate: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
) -> NDArray[numpy.float32]:
    """y * sigmoid(gate)."""

def convolve(
    isa: str,
    rows: Annotated[
        NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
    ],
    w: Annotated[
        NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
    ],
    silu: bool,
) -> NDArray[numpy.float32]:
    """
    The sum of w * rows over the taps, (taps, channels) both, through silu if asked.
    """

def delta_rule(
    isa: str,
    q: numpy.typing.NDArray[numpy.float32],
    k: numpy.typing.NDArray[numpy.float32],
    v: numpy.typing.NDArray[numpy.float32],
    decay: numpy.typing.NDArray[numpy.float32],
    beta: numpy.typing.NDArray[numpy.float32],
    state: numpy.typing.NDArray[numpy.float32],
) -> tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]:
    """
    The gated delta rule over tokens, for 16 value channels of a head: out and state.
    """

def add_scaled(
    isa: str,
    y: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ],
    scale: float,
) -> NDArray[numpy.float32]:
    """y + scale * x."""

def attend(
    isa: str,
    q: numpy.typing.NDArray[numpy.float32],
    k: numpy.typing.NDArray[numpy.float32],
    v: numpy.typing.NDArray[numpy.float32],
    begin: numpy.typing.NDArray[numpy.int32],
    end: numpy.typing.NDArray[numpy.int32],
    first: int,
    last: int,
    scale: float,
    softcap: float = 0.0,
    k_type: str = "f16",
    v_type: str = "f16",
) -> tuple[
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.float32],
    numpy.typing.NDArray[numpy.float32],
]:
    """
    Attention of q (queries, d) to positions [first, last) of one head's k and v, and of query i to [begin[i], end[i]) of these: out (not yet divided by sum), the largest score times log2(e), sum.
    """

def stream_read(isa: str, bytes: int, threads: int, seconds: float) -> list[float]:
    """
    Reads a region of 2 MB pages, each thread its share: bytes per second of each pass.
    """

def int8_peak(isa: str, threads: int, seconds: float) -> list[float]:
    """
    Integer dot products of operands in registers: multiply-adds per second of each pass.
    """

def cpu_features() -> dict[str, bool]:
    """
    Instruction set extensions that the processor has and the operating system saves.
    """

def cpu_brand() -> str:
    """The processor's own name, or an empty string."""

class ContextFull(RuntimeError):
    pass

class Closed(RuntimeError):
    pass

def kv_types() -> list[str]:
    """Names of the types that a KV cache can have."""

def engine_memory(
    config: dict[str, Any],
    tensors: Sequence[tuple[str, str, str, int, int, int]],
    context: int,
    threads: int,
    batch: int,
    kv_type_k: str,
    kv_type_v: str,
) -> dict[str, int]:
    """
    Resident bytes an engine would take: {'weights', 'kv', 'scratch'}, from shapes alone.
    """

class Engine:
    """A loaded model and the sequences it has opened."""

    def __init__(
        self,
        config: dict[str, Any],
        tensors: Sequence[tuple[str, str, str, int, int, int]],
        context: int,
        threads: int,
        batch: int,
        kv_type_k: str,
        kv_type_v: str,
        batch_threads: int = 0,
    ) -> None:
        """
        Packs the tensors (name, path, type, offset, rows, cols) into memory. Steps of many
        tokens take batch_threads (0: as many as threads).
        """

    def open(self) -> int:
        """Opens an empty sequence."""

    def step(
        self,
        batch: Sequence[
            tuple[
                int,
                Annotated[
                    NDArray[numpy.int32],
                    dict(shape=(None,), order="C", device="cpu", writable=False),
                ],
                int,
            ]
        ],
    ) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
        """
        Appends (sequence, int32 tokens, wanted) slices; logits (sum of wanted, vocab).
        """

    def embed(
        self,
        batch: Sequence[
            tuple[
                int,
                Annotated[
                    NDArray[numpy.int32],
                    dict(shape=(None,), order="C", device="cpu", writable=False),
                ],
                int,
            ]
        ],
    ) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
        """As step, but returns normalised hidden states (wanted, width)."""

    def record(
        self,
        batch: Sequence[
            tuple[
                int,
                Annotated[
                    NDArray[numpy.int32],
                    dict(shape=(None,), order="C", device="cpu", writable=False),
                ],
                int,
            ]
        ],
    ) -> dict[str, Any]:
        """
        Appends slices; what the matrices were multiplied with, float32: {'qkv', 'o', 'ffn',
        'down'} (layers, tokens, columns), and 'output' (tokens, width). With experts, 'down' has
        their rows one after the other and int32 'experts' (layers, tokens, used) says which.
        """

    def replace(
        self,
        tensor: str,
        data: Annotated[
            NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
    ) -> None:
        """
        Packs other rows, in the tensor's own type, over those of a tensor of the graph.
        """

    def trim(self, sequence: int, length: int) -> int:
        """
        Forgets all but the first `length` tokens, and returns how many are left: fewer where
        recurrent layers have no state of that length.
        """

    def close(self, sequence: int) -> None:
        """Closes a sequence and gives its memory back."""

    def length(self, sequence: int) -> int:
        """Tokens stored in a sequence."""

    def state(self, sequence: int) -> Annotated[NDArray[numpy.uint8], dict(shape=(None,))]:
        """The keys and values of a sequence, and its running state."""

    def restore(
        self,
        sequence: int,
        state: Annotated[
            NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
        length: int,
    ) -> None:
        """Makes an empty sequence as if it had read the tokens of a state."""

    def add_adapter(
        self,
        changes: Iterable[
            tuple[str, numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]
        ],
    ) -> int:
        """
        Takes low-rank changes in, (matrix, A (rank, columns), B (rows, rank)) each, one after
        the other, and returns the adapter's number.
        """

    def remove_adapter(self, adapter: int) -> None:
        """Forgets an adapter; sequences that use it still do."""

    def set_adapters(self, sequence: int, adapters: Sequence[tuple[int, float]]) -> None:
        """
        Computes an empty sequence with adapters, (number, scale) each, from now on.
        """

    def shutdown(self) -> None:
        """Gives the weights back."""

    def memory(self) -> dict[str, int]:
        """Resident bytes at the peak: {'weights', 'kv', 'scratch'}."""

def read_strings(
    buffer: object, offset: int, count: int, longest: int
) -> tuple[list[str], int] | None:
    """
    Reads the strings of a GGUF array: (strings, offset behind them). None if one is not whole, longer than allowed, or no UTF-8.
    """

def guard_file(fd: int) -> int:
    """
    Lets missing pages of maps of an open file read as zeros and be counted. Returns its number, or -1 where that is not possible.
    """

def release_file(number: int) -> None:
    """Takes one guard off a file."""

def file_losses(number: int) -> int:
    """How often pages of a file were missing."""

class Sampler:
    """Chooses the next token; see edgeinfer.runtime.sampler."""

    def __init__(
        self,
        *,
        vocab_size: int,
        seed: int,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        typical_p: float,
        repeat_penalty: float,
        presence_penalty: float,
        frequency_penalty: float,
        repeat_last_n: int,
        logit_bias: Sequence[tuple[int, float]],
        logprobs: int,
    ) -> None: ...
    def sample(
        self,
        logits: Annotated[
            NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
    ) -> tuple[int, float, list[tuple[int, float]]]:
        """
        Draws a token: (token, log-probability, best [(token, log-probability)]).
        """

    def probabilities(
        self,
        logits: Annotated[
            NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
        ],
    ) -> list[tuple[int, float]]:
        """The kept tokens with their probabilities."""

    def accept(self, token: int) -> None:
        """Remembers a token for the penalties."""

    def reset(self) -> None:
        """Forgets the text and restarts the random stream."""
