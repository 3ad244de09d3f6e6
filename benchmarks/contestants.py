"""The engines of a comparison: ours and llama.cpp in this process, and llama-bench programs."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import edgeinfer
from edgeinfer.backends.base import Engine
from edgeinfer.runtime.benchmark import Bench, Test

SHORT = 32  # a test of fewer tokens is repeated by llama-bench


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all engines of a comparison are told."""

    model: Path
    threads: int
    context: int
    batch: int = 512
    kv_types: tuple[str, str] = ("f16", "f16")


class Contestant(Protocol):
    """An engine in a comparison."""

    name: str

    def prepare(self, depth: int) -> None:
        """Gets ready to run tests at a depth; off the clock."""

    def sample(self, test: Test) -> float | None:
        """Tokens per second of one run; None if the engine has no such test."""

    def close(self) -> None:
        """Gives the memory back."""


class InProcess:
    """An engine that stays loaded, with its context filled, from round to round."""

    def __init__(self, name: str, engine: Engine, batch: int) -> None:
        self.name = name
        self._engine = engine
        self._bench = Bench(engine, batch=batch)

    def prepare(self, depth: int) -> None:
        """Reads the context, and a little more to warm up."""
        self._bench.warm_up(Test(new_tokens=1, depth=depth))

    def sample(self, test: Test) -> float:
        """One run, or several of a short test."""
        return test.tokens / self._bench.seconds(test)

    def close(self) -> None:
        """Gives the memory back."""
        self._engine.shutdown()


def ours(setting: Setting) -> InProcess:
    """Our engine, loaded as a user loads it."""
    keys, values = setting.kv_types
    model = edgeinfer.load(
        setting.model,
        context=setting.context,
        threads=setting.threads,
        batch=setting.batch,
        kv_type_k=keys,
        kv_type_v=values,
        backend="native",
        offline=True,
    )
    return InProcess("edgeinfer", model.engine, setting.batch)


def llama_cpp_python(
    setting: Setting, *, flash_attention: bool | None = None, name: str = "llama.cpp"
) -> InProcess:
    """llama.cpp as llama-cpp-python has built it."""
    from llamacpp_peer import LlamaCpp, LlamaCppEngine

    peer = LlamaCpp(
        setting.model,
        context=setting.context,
        batch=setting.batch,
        threads=setting.threads,
        kv_types=setting.kv_types,
        flash_attention=flash_attention,
    )
    return InProcess(name, LlamaCppEngine(peer), setting.batch)


@dataclass(slots=True, kw_only=True)
class LlamaBench:
    """A llama-bench program, of llama.cpp or ik_llama.cpp; it loads the model for each run."""

    name: str
    command: list[str]  # the program and its flags
    setting: Setting

    def prepare(self, depth: int) -> None:
        """Nothing outlives a run."""

    def sample(self, test: Test) -> float | None:
        """One run of the program."""
        arguments = self._arguments(test)
        if arguments is None:
            return None
        keys, values = self.setting.kv_types
        done = subprocess.run(
            [
                *self.command,
                *("-m", str(self.setting.model), "-t", str(self.setting.threads), "-o", "json"),
                *("-r", "5" if test.tokens < SHORT else "1"),
                *(("-ctk", keys, "-ctv", values) if (keys, values) != ("f16", "f16") else ()),
                *arguments,
            ],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        (record,) = json.loads(done.stdout)
        return float(record["avg_ts"])

    def _arguments(self, test: Test) -> list[str] | None:
        counts = ["-p", str(test.prompt_tokens), "-n", str(test.new_tokens)]
        if not test.depth:
            return counts
        if "--n-depth" in _help(self.command[0]):
            return [*counts, "-d", str(test.depth)]
        if test.new_tokens:  # ik_llama.cpp: generate behind a prompt
            return ["-p", "0", "-n", "0", "-gp", f"{test.depth},{test.new_tokens}"]
        return None

    def close(self) -> None:
        """Nothing is held."""


@cache
def _help(program: str) -> str:
    return subprocess.run([program, "--help"], capture_output=True, text=True).stdout


def llama_bench(text: str, setting: Setting) -> LlamaBench:
    """From ``NAME=PROGRAM [FLAG ...]``; variants of an engine are ``NAME/VARIANT``."""
    name, equals, command = text.partition("=")
    words = shlex.split(command)
    if not equals or not words:
        raise SystemExit(f"--llama-bench {text!r} is not NAME=PROGRAM [FLAG ...]")
    return LlamaBench(name=name, command=words, setting=setting)


def group(name: str) -> str:
    """The engine of a variant: ``ik`` of ``ik/rtr``."""
    return name.partition("/")[0]


def is_installed() -> bool:
    """Whether llama-cpp-python is there."""
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None
