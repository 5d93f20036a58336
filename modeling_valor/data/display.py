# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Texts of others, such as names of files, as pages and reports show them."""

import re


# Control characters, and invisible ones that reverse the direction of text or break lines. The joiners of emoji stay.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Text with escapes such as \u202e for characters that would change how the surrounding text is displayed."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
