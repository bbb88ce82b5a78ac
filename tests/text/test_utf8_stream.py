"""Utf8Stream against Python's own incremental decoder."""

from __future__ import annotations

import codecs

from hypothesis import given, settings
from hypothesis import strategies as st

from pyllamacpp._core import Utf8Stream

# Pieces that make the interesting cases frequent: leads, continuations, edges of what is valid.
PIECES = st.sampled_from(
    [b"a", "é".encode(), "天".encode(), "👍".encode(), b"\x80", b"\xbf", b"\xc0", b"\xc2", b"\xe0",
     b"\xe0\x9f", b"\xe0\xa0", b"\xed\x9f", b"\xed\xa0", b"\xef", b"\xf0", b"\xf0\x8f", b"\xf0\x90",
     b"\xf4\x8f", b"\xf4\x90", b"\xf5", b"\xff", b"\xf0\x9f\x91"]
)  # fmt: skip
CHUNKS = st.lists(st.one_of(PIECES, st.binary(max_size=6)))


@settings(max_examples=1000, deadline=None)
@given(CHUNKS)
def test_like_the_incremental_decoder(chunks: list[bytes]) -> None:
    stream = Utf8Stream()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    ours = theirs = ""
    for chunk in chunks:
        ours += stream.push(chunk)
        theirs += decoder.decode(chunk)
        # Python keeps a started surrogate back, for 'surrogatepass'; ours knows that it is invalid.
        assert ours.startswith(theirs)
    assert ours + stream.flush() == theirs + decoder.decode(b"", final=True)


@settings(max_examples=500, deadline=None)
@given(CHUNKS)
def test_byte_by_byte(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    stream = Utf8Stream()
    text = "".join(stream.push(bytes([b])) for b in data) + stream.flush()
    assert text == data.decode(errors="replace")


def test_a_flushed_stream_starts_anew() -> None:
    stream = Utf8Stream()
    assert stream.push(b"x\xe5\xa4") == "x"
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.push("天".encode()) == "天"
