"""A stand-in for MLC LLM: the interface of its MLCEngine (at commit 79d603f0), without a model.

Signatures, defaults, checks of arguments and what a stream consists of are the original's. Of a
prompt of tokens it says how many they are, word by word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from . import serve

__version__ = "0.1.dev0"
ENGINES: list[MLCEngine] = []


class BadRequestError(ValueError):
    """What a request that makes no sense is answered with."""


class MLCEngine:
    def __init__(
        self,
        model: str,
        device: str = "auto",
        *,
        model_lib: str | None = None,
        mode: Literal["local", "interactive", "server"] = "local",
        engine_config: serve.EngineConfig | None = None,
        enable_tracing: bool = False,
    ) -> None:
        folder = Path(model)
        self.settings = json.loads((folder / "mlc-chat-config.json").read_text())
        index = json.loads((folder / "tensor-cache.json").read_text())
        for shard in index["records"]:
            if (folder / shard["dataPath"]).stat().st_size != shard["nbytes"]:
                raise RuntimeError(f"{shard['dataPath']}: a shard of another size")
        config = engine_config or serve.EngineConfig()
        assert config.model is None and config.model_lib is None
        self.device, self.mode = device, mode
        self.most = config.max_single_sequence_length or self.settings["context_window_size"]
        self.requests: list[dict[str, Any]] = []
        self.aborted: list[int] = []
        self.terminated = False
        self.completions = Completion(self)
        ENGINES.append(self)

    def terminate(self) -> None:
        self.terminated = True


class Completion:
    def __init__(self, engine: MLCEngine) -> None:
        self._engine = engine

    def create(
        self,
        *,
        prompt: str | list[int],
        model: str | None = None,
        best_of: int = 1,
        echo: bool = False,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        logprobs: int | None = None,
        logit_bias: dict[int, float] | None = None,
        max_tokens: int | None = None,
        n: int = 1,
        seed: int | None = None,
        stop: str | list[str] | None = None,
        stream: bool = False,
        stream_options: dict[str, Any] | None = None,
        suffix: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        user: str | None = None,
        response_format: dict[str, Any] | None = None,
        request_id: str | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> Iterator[Any]:
        request = {name: value for name, value in locals().items() if name != "self"}
        for penalty in (frequency_penalty, presence_penalty):
            if penalty and not -2 <= penalty <= 2:
                raise ValueError("Penalty value should be in range [-2, 2].")
        assert stream and n == best_of == 1 and not echo
        assert isinstance(prompt, list) and all(type(token) is int for token in prompt)
        self._engine.requests.append(request)
        usage = bool((stream_options or {}).get("include_usage"))
        return self._stream(len(self._engine.requests) - 1, prompt, max_tokens, usage)

    def _stream(
        self, number: int, prompt: list[int], max_tokens: int | None, usage: bool
    ) -> Iterator[Any]:
        engine = self._engine
        if engine.terminated:
            raise ValueError("The engine has terminated.")
        if len(prompt) > engine.most:
            raise BadRequestError(f"Request prompt has {len(prompt)} tokens in total")
        words = [f"{len(prompt)}", " tokens", " were", " read", ", déjà", " vu"]
        most = len(words) if max_tokens is None else max_tokens
        finished = False
        try:
            for at, word in enumerate(words[:most]):
                yield _response([_choice(word if at != 3 else "")])  # half a character so far
                if at == 3:
                    yield _response([_choice(word)])
            yield _response([_choice("", "stop" if most > len(words) - 1 else "length")])
            if usage:
                counts = SimpleNamespace(
                    prompt_tokens=len(prompt), completion_tokens=min(most, len(words))
                )
                yield _response([], counts)
            finished = True
        finally:
            if not finished:
                engine.aborted.append(number)


def _choice(text: str, finish_reason: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(index=0, text=text, finish_reason=finish_reason, logprobs=None)


def _response(choices: list[Any], usage: Any = None) -> SimpleNamespace:
    return SimpleNamespace(id="cmpl-1", choices=choices, model=None, usage=usage)
