"""The list of loaded models: who is in it, and who is not any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import edgeinfer
from edgeinfer.runtime import running
from edgeinfer.runtime.running import Entry, Listed, listed, process_start
from support.fake_model import fake_plan
from support.whole_model import write_whole_model


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_whole_model(tmp_path_factory.mktemp("running") / "tiny.gguf")


def entry(**changes) -> Entry:
    return replace(Entry.of(fake_plan(), model="m", path="/m.gguf"), **changes)


def test_a_loaded_model_is_in_the_list_until_it_is_closed(tiny):
    with edgeinfer.load(tiny, backend="native", context=32) as model:
        (found,) = listed()
        assert (found.pid, found.path) == (os.getpid(), str(tiny))
        assert (found.backend, found.chosen_because) == ("native", "asked for")
        assert (found.context, found.context_used, found.tokens_per_second) == (32, 0, None)

        done = model.generate("abc", max_tokens=4, temperature=0, speculate="off")
        (found,) = listed()
        assert found.context_used == done.timings.prompt_tokens + done.timings.decode_steps
        assert found.tokens_per_second == done.timings.decode_tokens_per_second

        _ = model.engine
        (found,) = listed()
        assert (found.context_used, found.tokens_per_second) == (None, None)

    assert listed() == []


def test_a_model_that_nobody_keeps_leaves_the_list(tiny):
    model = edgeinfer.load(tiny, backend="native", context=32)
    assert len(listed()) == 1
    del model

    assert listed() == []


LOADER = "import sys, edgeinfer; m = edgeinfer.load(sys.argv[1], context=32); print(1, flush=True)"


def test_another_process_shows_and_leaves_when_it_ends(tiny):
    with subprocess.Popen(
        [sys.executable, "-c", f"{LOADER}; input()", str(tiny)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        child.stdout.readline()
        assert [found.pid for found in listed()] == [child.pid]
        child.communicate("\n")

    assert list(running.folder().glob("*.json")) == []


def test_a_killed_process_is_cleaned_up(tiny):
    with subprocess.Popen(
        [sys.executable, "-c", f"{LOADER}; input()", str(tiny)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        child.stdout.readline()
        child.kill()
    assert len(list(running.folder().glob("*.json"))) == 1

    assert listed() == []
    assert list(running.folder().glob("*.json")) == []


def test_the_number_of_a_dead_process_may_be_anothers():
    Listed(entry(started="1"))

    assert listed() == []


def test_a_forked_child_does_not_take_its_parent_off_the_list(monkeypatch):
    item = Listed(entry())
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 1)
        item.remove()

    assert listed() == [item.entry]
    item.remove()
    assert listed() == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": 1}', json.dumps({"pid": "x"} | dict.fromkeys("ab"))]
)
def test_what_is_no_entry_is_passed_over(content):
    item = Listed(entry())
    (running.folder() / "1-1.json").write_text(content)

    assert listed() == [item.entry]
    item.remove()


def test_a_folder_that_cannot_be_written_to_stops_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "file"))

    item = Listed(entry())
    item.update(context_used=1, tokens_per_second=1.0)
    item.remove()
    assert listed() == []


def test_when_a_process_started():
    assert process_start(os.getpid()) == process_start(os.getpid()) != ""
    time.sleep(0.05)  # the clock's ticks are 10 ms
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process_start(child.pid) not in ("", process_start(os.getpid()))
        child.communicate(b"\n")


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
def test_a_process_that_has_ended_is_gone_before_its_parent_asks_for_it():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(child.pid) == ""
    assert process_start(child.pid) == ""
