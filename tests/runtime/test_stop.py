"""Stop strings, in whatever pieces the text comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.runtime.stop import StopStrings

letters = st.text("ab", max_size=30)


def run(stops, pieces):
    filter_ = StopStrings(stops)
    out = ""
    for piece in pieces:
        out += filter_.push(piece)
        if filter_.stopped:
            return out
    return out + filter_.finish()


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), letters, st.data())
def test_the_pieces_make_no_difference(stops, text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert run(stops, pieces) == run(stops, list(text))


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), letters)
def test_the_text_ends_before_the_stop_string_that_is_complete_first(stops, text):
    ends = [i for i in range(len(text) + 1) if any(text[:i].endswith(s) for s in stops)]
    expected = text
    if ends:
        longest = max((s for s in stops if text[: ends[0]].endswith(s)), key=len)
        expected = text[: ends[0] - len(longest)]

    assert run(stops, [text]) == expected


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), letters)
def test_what_is_sent_holds_no_stop_string(stops, text):
    out = run(stops, list(text))

    assert not any(stop in out for stop in stops)
    assert text.startswith(out)
