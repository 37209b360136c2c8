"""Text on a page."""

from d3pm_jax.show import markup


def test_text_that_is_no_utf_8_is_written():
    assert markup.tag("p", "a\udc80<", title="\udc80b").encode() == b'<p title="?b">a?&lt;</p>'
