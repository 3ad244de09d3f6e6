"""What computes is what was asked for: a provider that starts, or an error."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgeinfer.backends import onnx_providers as providers
from edgeinfer.errors import UnsupportedError

PROCESSOR = providers.PROCESSOR


@dataclass
class FakeLibrary:
    """An onnxruntime with providers: each works, fails, or quietly leaves the work to another."""

    behaviour: dict[str, str]
    __version__: str = "1.32.0"
    entries: list[dict[str, str]] = field(default_factory=list)

    def get_available_providers(self) -> list[str]:
        return list(self.behaviour)

    def SessionOptions(self) -> Any:
        library = self

        class Options:
            log_severity_level = 2

            def __init__(self) -> None:
                library.entries.append({})

            def add_session_config_entry(self, key: str, value: str) -> None:
                library.entries[-1][key] = value

        return Options()

    def InferenceSession(self, graph: object, options: object, providers: list[str]) -> Any:
        (asked,) = providers
        if self.behaviour[asked] == "fails":
            raise RuntimeError("no device\nand a stack of details")
        ran = [PROCESSOR] if self.behaviour[asked] == "falls back" else [asked, PROCESSOR]

        class Session:
            get_providers = staticmethod(lambda: ran)

        return Session()


def test_the_processor_is_the_default_and_others_go_by_their_short_names(monkeypatch):
    library = FakeLibrary({"CUDAExecutionProvider": "works", PROCESSOR: "works"})
    assert providers.wanted(library) == PROCESSOR
    for name in ("cuda", "CUDA", "CUDAExecutionProvider"):
        monkeypatch.setenv(providers.PROVIDER, name)
        assert providers.wanted(library) == "CUDAExecutionProvider"
    monkeypatch.setenv(providers.PROVIDER, "xnnpack")
    with pytest.raises(UnsupportedError, match="no provider 'xnnpack'") as caught:
        providers.wanted(library)
    assert "CUDA, CPU" in str(caught.value.hint)


def test_nothing_is_left_to_the_processor_in_silence():
    library = FakeLibrary({"OpenVINOExecutionProvider": "falls back", PROCESSOR: "works"})
    with pytest.raises(UnsupportedError, match=f"took {PROCESSOR}, not OpenVINO"):
        providers.session(library, b"", library.SessionOptions(), "OpenVINOExecutionProvider")
    assert library.entries == [{"session.disable_cpu_ep_fallback": "1"}]

    providers.session(library, b"", library.SessionOptions(), PROCESSOR)
    assert library.entries[1] == {}


def test_each_provider_is_started_and_what_fails_is_said():
    behaviour = {"CUDAExecutionProvider": "fails", "XnnpackExecutionProvider": "works"}
    library = FakeLibrary({**behaviour, "AzureExecutionProvider": "works", PROCESSOR: "works"})

    found = providers.started(library, providers.available(library))

    assert found == {
        "CUDAExecutionProvider": "no device",
        "XnnpackExecutionProvider": "",
        PROCESSOR: "",
    }


@pytest.mark.peer
def test_the_smallest_graph_runs_in_onnxruntime():
    from edgeinfer.formats.onnx_library import onnxruntime

    assert providers.started(onnxruntime(), [PROCESSOR]) == {PROCESSOR: ""}


@pytest.mark.peer
def test_importing_it_leaves_nothing_in_the_home_folder(tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    } | {"HOME": str(tmp_path)}
    code = "from edgeinfer.formats.onnx_library import onnxruntime; onnxruntime()"

    subprocess.run([sys.executable, "-c", code], env=environment, check=True)

    assert list(tmp_path.rglob("*")) == []
