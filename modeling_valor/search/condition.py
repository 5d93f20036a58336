# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A user's `where`, read token by token, so that it is one condition by itself wherever it is put.

Only tokens that every database reads alike are known. Comments, `;`, `$$` and strings with a prefix, such as `E'...'`, are
not: behind them parentheses could close what the user did not open.
"""

import re


_TOKEN = re.compile(
    r"""(?P<comment>--|/\*)
    |(?P<string>'(?:[^'\0]|'')*')
    |(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)
    |"(?P<quoted>[^"]*)"
    |(?P<word>[^\W\d]\w*)
    |(?P<sign><=|>=|<>|!=|->>|->|::|@>|\|\||[-+*/%=<>(),])
    |(?P<space>\s+)""",
    re.VERBOSE,
)


def read_condition(where: str) -> list[re.Match[str]]:
    """The tokens of a condition without the space between them.

    Each match has one of the groups `string`, `number`, `quoted` (a name in quotation marks), `word` and `sign`.

    Raises:
        ValueError: why it is no condition.
    """
    tokens: list[re.Match[str]] = []
    depth = place = 0
    while place < len(where):
        found = _TOKEN.match(where, place)
        if found is None or found["comment"] is not None:
            raise ValueError(f"{where[place:][:20]!r} is not understood")
        is_prefixed = tokens and tokens[-1]["word"] is not None and tokens[-1].end() == place
        if is_prefixed and found["string"] is not None:
            raise ValueError(f"a string follows {tokens[-1][0]!r} without a space")
        place = found.end()
        if found["space"] is None:
            tokens.append(found)
            depth += (found[0] == "(") - (found[0] == ")")
        if depth < 0:
            raise ValueError("a parenthesis closes before it opens")
    if depth:
        raise ValueError("a parenthesis does not close")
    if not tokens:
        raise ValueError("it is empty")
    return tokens
