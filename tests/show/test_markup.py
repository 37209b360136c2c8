"""Text on a page."""

import time

from d3pm_jax.show import markup


def test_text_that_is_no_utf_8_is_written():
    assert markup.tag("p", "a\udc80<", title="\udc80b").encode() == b'<p title="?b">a?&lt;</p>'


def test_many_pieces_are_joined_in_the_time_of_their_length():
    pieces = [markup.Html("x" * 1000)] * 20_000
    start = time.process_time()
    joined = markup.join_html(*pieces, None, "<")
    assert time.process_time() - start < 2
    assert isinstance(joined, markup.Html)
    assert joined == "x" * 20_000_000 + "&lt;"
