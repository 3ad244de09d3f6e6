"""``edgeinfer chat``: through a pipe, by its commands, with keys, and on a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from edgeinfer.cli import _input
from edgeinfer.cli._repl import Repl
from support.fake_model import fake_model

# ---- a pipe ----------------------------------------------------------------------------------


def test_a_piped_line_is_answered_and_the_exit_code_is_0(edgeinfer, use_model, piped):
    use_model(fake_model("Paris."))
    piped("What is the capital of France?\n")

    outcome = edgeinfer("chat")

    assert (outcome.exit_code, outcome.stdout) == (0, "Paris.\n")
    assert re.fullmatch(
        r"\[prompt: \d+ tokens [\d.]+ tok/s \| answer: 6 tokens [\d.]+ tok/s\]\n", outcome.stderr
    )


def test_each_line_is_a_turn_and_the_second_reads_only_what_is_new(edgeinfer, use_model, piped):
    use_model(fake_model("ok"))
    piped("one\ntwo\n/stats\n")

    outcome = edgeinfer("chat")

    assert outcome.stdout.startswith("ok\nok\nturns 2, tokens answered 4\n")
    # "<start>[user]one<answer>ok" is cached; "<end>[user]two<answer>" is new.
    assert "last prompt 24 tokens: 13 cached, 11 new" in outcome.stdout
    assert "(13 cached)" in outcome.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"""a\nb"""\n', "a\nb"),
        ('"""\na\n\nb\n"""\n', "a\n\nb"),
        ('"""one line"""\n', "one line"),
        ('"""open to the end\n', "open to the end"),
        ("a\\\nb\\\nc\n", "a\nb\nc"),
        ("no newline", "no newline"),
    ],
)
def test_messages_of_several_lines(edgeinfer, use_model, piped, text, message):
    use_model(fake_model(lambda asked: asked))
    piped(text)

    assert edgeinfer("chat").stdout == f"[user]{message}\n"


def test_the_system_message_and_sampling_options_arrive(edgeinfer, use_model, piped):
    use_model(fake_model(lambda asked: asked))
    piped("hi\n")

    assert edgeinfer("chat", "-s", "Be brief.", "-n", "13").stdout == "[system]Be br\n"


@pytest.mark.parametrize(
    ("option", "shown"),
    [([], "The model's own."), (["-s", "Mine."], "Mine."), (["-s", ""], "No system message.")],
)
def test_the_models_own_system_message_gives_way(edgeinfer, use_model, piped, option, shown):
    use_model(fake_model(system="The model's own."))
    piped("/system\n")

    assert edgeinfer("chat", *option).stdout == shown + "\n"


def test_a_full_context_is_said_and_ends_a_pipe_with_1(edgeinfer, use_model, piped):
    use_model(fake_model(context=30))
    piped("x" * 50 + "\nhi\n")

    outcome = edgeinfer("chat")

    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "the context is full" in outcome.stderr
    assert "hint: /clear" in outcome.stderr


def test_an_answer_that_meets_the_end_of_the_context_says_so(edgeinfer, use_model, piped):
    use_model(fake_model("y" * 100, context=20))
    piped("hi\n")

    outcome = edgeinfer("chat")

    assert outcome.exit_code == 0
    assert set(outcome.stdout) == {"y", "\n"}
    assert "warning: the context is full" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [["a", "-m", "b"], ["--logit-bias", "x"], ["-c", "many"], ["--temp", "hot"]],
)
def test_senseless_options_are_usage_errors(edgeinfer, use_model, piped, arguments):
    use_model(fake_model())
    piped("hi\n")

    assert edgeinfer("chat", *arguments).exit_code == 2


def test_a_value_out_of_range_is_a_usage_error(edgeinfer, use_model, piped):
    use_model(fake_model())
    piped("hi\n")

    outcome = edgeinfer("chat", "--temp", "-1")

    assert outcome.exit_code == 2
    assert "temperature" in outcome.stderr


# ---- the commands ----------------------------------------------------------------------------


@pytest.fixture
def repl():
    return Repl(fake_model("ok"), system=None, sampling={})


def test_help_lists_every_command(repl, capsys):
    repl.handle("/?")

    told = capsys.readouterr().out
    assert all(name in told for name in repl.commands)


@pytest.mark.parametrize("name", ["/bye", "/exit", "/quit"])
def test_leaving(repl, name):
    with pytest.raises(EOFError):
        repl.handle(name)


def test_an_unknown_command_is_told_and_the_talk_goes_on(repl, capsys):
    lines = iter(["/nonsense", "hi"])

    class Lines:
        def read(self):
            try:
                return next(lines)
            except StopIteration:
                raise EOFError from None

    repl.converse(Lines())

    captured = capsys.readouterr()
    assert "no command /nonsense" in captured.err
    assert captured.out == "ok\n"


def test_clear_and_system(repl, capsys):
    repl.handle("hi")
    repl.handle("/system Be brief.")
    repl.handle("/clear")
    repl.handle("/system")

    assert repl.session.messages == [{"role": "system", "content": "Be brief."}]
    assert capsys.readouterr().out == "ok\nBe brief.\n"


def test_set_changes_how_tokens_are_chosen(repl, capsys):
    repl.handle("/set n 1")
    repl.handle("/set top-p 0.5")
    repl.handle("hi")
    repl.handle("/set")

    told = capsys.readouterr().out
    assert told.startswith("o\n")
    assert "top_p 0.5\n" in told
    assert "max_tokens 1\n" in told


@pytest.mark.parametrize("wrong", ["/set temp hot", "/set nothing 1", "/set temp -1", "/set top_k"])
def test_a_senseless_setting_is_refused_at_once(repl, wrong):
    from edgeinfer.errors import UsageError

    with pytest.raises(UsageError):
        repl.handle(wrong)
    assert repl.sampling == {}


def test_save_and_load(repl, tmp_path):
    repl.handle("hi")
    repl.handle(f"/save {tmp_path}/talk.json")
    other = Repl(fake_model("ok"), system="gone", sampling={})

    other.handle(f"/load {tmp_path}/talk.json")

    assert other.session.messages == repl.session.messages != []
    assert json.loads((tmp_path / "talk.json").read_text())["messages"] == repl.session.messages


def test_a_session_is_saved_with_what_was_read(repl, tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    other = Repl(fake_model("ok"), system="gone", sampling={})
    repl.model.path = other.model.path = str(weights)
    repl.handle("hi")
    repl.handle(f"/save {tmp_path}/talk.session")

    other.handle(f"/load {tmp_path}/talk.session")

    assert other.session.messages == repl.session.messages != []
    assert other.session.stats.used == repl.session.stats.used > 0


def test_settings_stand_beside_ways_to_generate(capsys):
    repl = Repl(fake_model("ok"), system=None, sampling={"speculate": "lookup"})

    repl.handle("/set temp 0")
    repl.handle("/set")

    assert repl.sampling == {"speculate": "lookup", "temperature": 0}
    assert "temperature 0" in capsys.readouterr().out


# ---- keys ------------------------------------------------------------------------------------


@pytest.fixture
def keys(monkeypatch, tmp_path):
    """``keys("text\\n")`` is a TerminalInput on which this was typed."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "home"))
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):

        def type_(text: str) -> _input.TerminalInput:
            pipe.send_text(text)
            return _input.TerminalInput(["/help", "/stats"])

        yield type_


def test_lines_are_edited(keys):
    assert keys("hellp\x7fo\r").read() == "hello"


def test_lines_join_in_the_terminal_too(keys):
    assert keys('"""a\rb"""\r').read() == "a\nb"


def test_pasted_lines_are_not_sent(keys):
    assert keys("\x1b[200~first\nsecond\x1b[201~ third\r").read() == "first\nsecond third"


def test_control_d_and_control_c(keys):
    with pytest.raises(EOFError):
        keys("\x04").read()
    with pytest.raises(KeyboardInterrupt):
        keys("some\x03").read()


def test_history_is_remembered_for_the_owner_only(keys, tmp_path):
    assert keys("a question\r").read() == "a question"
    assert keys("\x1b[A\r").read() == "a question"

    path = tmp_path / "home" / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "a question" in path.read_text()


def test_history_can_be_switched_off(keys, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEINFER_NOHISTORY", "1")

    keys("a secret\r").read()

    assert not (tmp_path / "home").exists()


# ---- a terminal ------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, time
from contextlib import contextmanager
from types import SimpleNamespace
from support.fake_model import fake_model
from edgeinfer.backends import fake
from edgeinfer.cli import _answer, _fetch, _program
from edgeinfer.runtime import loading

class Heard(_answer.Interrupts):  # says that a first Ctrl-C came
    @contextmanager
    def watched(self):
        with super().watched():
            handler = signal.getsignal(signal.SIGINT)
            def told(number, frame):
                handler(number, frame)
                os.write(1, b"[heard]")
            signal.signal(signal.SIGINT, told)
            yield

_answer.Interrupts = Heard
chunks = iter([0, 600])  # seconds: the second chunk of a long prompt takes for ever
fake.time = SimpleNamespace(
    sleep=lambda seconds: time.sleep(next(chunks) if seconds > 3 else seconds))
stored = SimpleNamespace(reference="fake", path="fake")
_fetch.fetch = lambda reference, **options: stored
loading.load = lambda reference, **options: fake_model(
    lambda text: b"slow " * 50 if b"slow" in text else b"Hello.", seconds_per_token=0.05,
    context=2048, batch=64)
sys.exit(_program.run(["chat"]))
"""


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, home: Path) -> None:
        tests = Path(__file__).parents[1]
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={
                **os.environ,
                # What this process imports from, which may be an installed wheel.
                "PYTHONPATH": os.pathsep.join([str(tests), *filter(None, sys.path)]),
                "EDGEINFER_HOME": str(home),
                "TERM": "xterm",
                "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody answers where the cursor is
            },
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """Reads until the text appears; returns what came before and forgets both."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    data = os.read(self.master, 4096)
                except OSError:
                    data = b""
                assert data or text in self.seen, f"ended without {text!r}: {self.seen!r}"
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def exit_code(self) -> int:
        end = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    os.read(self.master, 4096)
                except OSError:
                    break
        return self.process.wait(timeout=20)


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal(tmp_path)
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
    os.close(terminal.master)


def test_a_talk_on_a_terminal(terminal):
    terminal.wait_for(">>>")
    terminal.type("hi\r")
    terminal.wait_for("Hello.")
    terminal.wait_for("tok/s]")
    terminal.wait_for(">>>")
    terminal.type("/st\t")
    terminal.wait_for("ats")  # completed
    terminal.type("\r")
    terminal.wait_for("turns 1")
    terminal.wait_for(">>>")
    terminal.type("\x04")

    assert terminal.exit_code() == 0


def test_the_first_interrupt_stops_the_answer_and_keeps_it(terminal):
    terminal.wait_for(">>>")
    terminal.type("be slow\r")
    terminal.wait_for("slow slow")
    terminal.type("\x03")
    terminal.wait_for("stopped")
    terminal.wait_for(">>>")
    terminal.type("/stats\r")
    terminal.wait_for("turns 1")
    terminal.wait_for(">>>")
    time.sleep(0.3)  # the prompt reads keys once it is drawn
    terminal.type("\x03")
    terminal.wait_for("Ctrl-D or /bye leaves.")
    terminal.wait_for(">>>")
    terminal.type("/bye\r")

    assert terminal.exit_code() == 0


def test_the_second_interrupt_leaves_with_130(terminal):
    terminal.wait_for(">>>")
    terminal.type("be slow " + "x" * 600 + "\r")
    terminal.wait_for("reading the prompt")
    terminal.type("\x03")
    terminal.wait_for("[heard]")  # two that are pending at once count as one
    assert terminal.process.poll() is None
    terminal.type("\x03")

    assert terminal.exit_code() == 130
