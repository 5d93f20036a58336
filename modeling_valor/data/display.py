# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Texts of others, such as names of files, as pages and reports show them."""

import re


# Control characters, and those that have no width, reverse the direction of text or break lines. The joiners of emoji and of
# Persian (200c, 200d) stay.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Text with escapes such as \u202e for characters that would change how the surrounding text is displayed."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
