"""A hostile template is an error: it reaches nothing, ends soon, and takes little memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgeinfer.errors import CorruptFileError, EdgeInferError, UsageError
from edgeinfer.tokenizer import ChatTemplate
from support.hostile_templates import BOMBS, ESCAPES

MESSAGES = [{"role": "user", "content": "Hi"}]
LONGEST_SECONDS = 2  # of processor time; a rendering may take 0.25, a bomb takes for ever
MOST_MEBIBYTES = 64


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_leads_out_of_the_sandbox(source: str) -> None:
    with pytest.raises(EdgeInferError) as error:
        ChatTemplate(source).render(MESSAGES)
    assert isinstance(error.value, CorruptFileError | UsageError)


@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:50])
def test_no_bomb_goes_off(source: str) -> None:
    start = time.process_time()

    with pytest.raises(CorruptFileError):
        ChatTemplate(source).render(MESSAGES)

    assert time.process_time() - start < LONGEST_SECONDS


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_all_bombs_together_take_little_memory() -> None:
    program = """
        import resource, sys
        from support.hostile_templates import BOMBS
        from edgeinfer.errors import CorruptFileError
        from edgeinfer.tokenizer import ChatTemplate

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        ChatTemplate("{{ messages }}").render([])
        before = peak()
        for source in BOMBS:
            try:
                ChatTemplate(source).render([{"role": "user", "content": "Hi"}])
                sys.exit("went off: " + source[:80])
            except CorruptFileError:
                pass
        print((peak() - before) // (1024 if sys.platform == "linux" else 1024**2))
    """

    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join([str(Path(__file__).parent.parent), *sys.path])},
    )

    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= MOST_MEBIBYTES


def test_a_long_conversation_is_no_bomb() -> None:
    template = ChatTemplate(
        "{% set ns = namespace(text='', seen=[]) %}"
        "{% for m in messages %}{% set ns.seen = ns.seen + [m.role] %}"
        "{% if m.content is string and m.role in ['user', 'assistant'] %}"
        "{{ '<|' + m.role + '|>' + m.content|trim + '\n' }}{% endif %}{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 200}] * 2000

    text = template.render(messages)

    assert text == ("<|user|>" + ("word " * 200).strip() + "\n") * 2000
