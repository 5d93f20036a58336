# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Penn Treebank tokens of captions, without Java.

Caption metrics are defined on what one program prints: `PTBTokenizer` of Stanford CoreNLP 3.4.1 with `-preserveLines
-lowerCase`, less the punctuation that pycocoevalcap drops. Its rules are a lexer's: at each position every rule is
tried, the longest match wins, what has to follow a token counts as part of the match, and of equally long matches the
first rule's wins. `_RULES` is such a table, written from what the program does to captions in English.
"""

import re
from collections.abc import Sequence
from typing import cast


_APOSTROPHE = "['\u2019\x92]"
_LETTER = r"(?:[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u20bf\u2150-\u2bff]|[\u00ad\u0300-\u036f])"
_WORD = rf"{_LETTER}(?:{_LETTER}|\d)*(?:[.!?]{_LETTER}(?:{_LETTER}|\d)*)*"
_CLITIC = rf"{_APOSTROPHE}(?:[msd]|re|ve|ll|em)"
_PART = rf"(?:[dol]{_APOSTROPHE}[a-z0-9])?[a-z0-9]+"
_COMPOUND = rf"{_PART}(?:-{_PART})*"
_INITIALS = r"(?-i:[A-Z]+(?:[+&][A-Z]+)+)"
_ACRONYM = r"[a-z](?:\.[a-z])+"
_SYMBOL = (
    r"[!-/:-@\[-^`{-~\u00a1-\u00a9\u00ab\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u2013-\u2026"
    r"\u2030-\u2038\u2039-\u203c\u203e-\u2042\u2044\u20a0\u20a4\u20ac\u2100-\u2129\u2153-\u215e\u2190-\u2bff"
    r"\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)

# Found by giving the program every word of 185,000 captions and every string of up to three letters
_ABBREVIATION = (
    "al|ala|apr|ariz|assn|aug|bancorp|bhd|bldg|blvd|bros|calif|colo|conn|corp|cos?|ct|dak|dec|esq|est|etc|ext|feb|fla|"
    "fri|ga|inc|ind|intl|jan|jr|jul|jun|kans?|ky|ltd|mar|md|mich|minn|mo|mon|mont|neb|nev|nov|oct|okla|penn|plc|"
    "pp?t(?-i:[ey])s?|rd|rt|seq|sept?|sq|sr|sys|tel|tenn|thu|thurs|tues?|univ|va|vt|wed|wisc?|wyo|"
    r"(?:ed|ph)\.d|(?-i:A)(?:rk|z)|(?-i:D)el|(?-i:I)ll|(?-i:L)a|(?-i:M)(?:ass|iss)|(?-i:O)re|(?-i:P)a|(?-i:T)ex|"
    "(?-i:W)ash"
)
_ABBREVIATION_BEFORE_NAME = (
    "adj|adm|adv|assoc|asst|attys?|ave|brig|capt|cf|cie|cmdr|col|comdr|cpl|dept|det|drs?|elec|ens|ft|gen|govs?|hon|"
    "insp|invt|jos|lieut|lt|m(?-i:[ft])g|maj|messrs|mlle|mme|mr|mrs|ms|msgr|mt|natl|pfc|ph|pres|profs?|pvt|reps?|rev|"
    rf"sens?|sfc|sgt|spc|ste?|supts?|vs|wm|{_ACRONYM}|[a-z]"
)
_ABBREVIATION_BEFORE_NUMBER = "art|ca|figs?|nos?|op|pp|prop"

# A letter and a full stop are an initial, unless one of these follows (found in the same way)
_SENTENCE_START = (
    "A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|"
    "One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)

# The group that matches is the token; the rest of the match is what has to follow
_RULES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # one word in writing, two in the treebank
        rf"(can)not|({_APOSTROPHE}t)was",
        rf"(?:({_APOSTROPHE}t)is|(gon|wan)na|(got)ta|(lem|gim)me)[^a-z]",
        # markup
        r"(</?[a-z!?][a-z0-9:._-]*(?: +[a-z0-9:._-]+(?: *= *(?:[a-z0-9]+|\"[^\"\n]*\"|'[^'\n]*'))?)* */?>|<!--.*?-->)",
        # words, and clitics behind them
        rf"({_WORD}){_CLITIC}",
        rf"([a-z]*[a-mo-z])n{_APOSTROPHE}t",
        rf"({_WORD})",
        rf"({_APOSTROPHE}n{_APOSTROPHE})|({_APOSTROPHE}n)[^a-z]",
        rf"((?:[ldj]|dunkin|somethin|ol){_APOSTROPHE}|{_APOSTROPHE}(?:em|till?|cause|[2-9]0s))",
        rf"((?-i:[A-HJ-XZn]){_APOSTROPHE}{_LETTER}{{2}}(?:{_LETTER}|\d)*)",
        rf"({_LETTER}+[aeiouy]{_APOSTROPHE}(?:[aeiou]|(?-i:[A-Z])){_LETTER}*)",
        rf"((?:cap(?={_APOSTROPHE}n)|c(?={_APOSTROPHE}(?:est|mon))|e(?={_APOSTROPHE}er)|li(?={_APOSTROPHE}l)|"
        rf"nat(?={_APOSTROPHE}l)|nor(?={_APOSTROPHE}easter)){_APOSTROPHE}[a-z]+)",
        rf"(y{_APOSTROPHE}){_LETTER}",
        rf"({_CLITIC}|n{_APOSTROPHE}t)[^a-z]",
        # addresses
        r"((?:https?|ftp)://[^\s<>|(){}]+[^\s<>|.!?(){},;:&\"'*-])",
        r"((?:www\.(?:[^\s`<>|.!?(){},]+\.)+[a-z]{2,4}|(?:[^\W_]+\.)+(?:com|net|org|edu))"
        r"(?:/[^\s<>|(){}]+[^\s<>|.!?(){},;:&\"'*-])?)[^a-z]",
        r"([a-z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.,;:\[\]]+)",
        r"(@[a-z_][a-z0-9_]*|#[a-z]+)",
        # numbers
        r"([-+]?(?:\d+(?:[.,:]\d+)*|(?:[.,:]\d+)+))",
        r"((?:\d{1,4}[- ])?\d{1,4}/\d{1,4}|\d{1,2}/\d{1,2}/\d{2,4})",
        r"((?:\(\d{2,3}\) ?|(?:\d{2,4}[- ])?\d{2,4}[- ])\d{3,4}[- ]?\d{3,5})",
        # abbreviations, which keep their full stop
        rf"([a-z])\.\s+(?-i:{_SENTENCE_START})[\s?!]",
        rf"((?:{_ABBREVIATION_BEFORE_NUMBER})\.)\s?\d",
        rf"((?:{_ABBREVIATION})\.)(?s:.{{2}})?",
        rf"((?:{_ABBREVIATION_BEFORE_NAME})\.)",
        rf"((?:{_WORD}|{_COMPOUND}|{_INITIALS})\.)[,;:]",
        rf"({_APOSTROPHE}\d\d)\s",
        # compounds
        rf"({_COMPOUND})",
        rf"([a-z0-9][a-z0-9.,]*(?:[-_](?:[a-z0-9]+|{_ACRONYM}\.))+)",
        r"([a-z0-9]+(?:-[a-z]+){0,2}(?:/[a-z0-9]+(?:-[a-z]+){0,2}){1,2})",
        rf"({_INITIALS})",
        r"(c\+\+|c#|c\.d\.s|pro-|anti-|(?-i:[A-Z]*)\$)",
        # faces
        r"([<>]?[:;=][-o*']?(?-i:[()DPdpO\\{@|\[\]]))[^a-z0-9]",
        r"([\^x=~<>'-]_[\^x=~<>'-]|\([\^x=~<>-][_.]?[\^x=~<>-]\))",
        # signs
        r"(\.{3,}|[?!]+|-+|@+|#+|_+|\*+|<<|>>|&(?:amp|lt|gt|quot|apos|nbsp|mdash);)",
        rf"({_SYMBOL})",
    )
)

_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=[ \n])")
_SPLIT_WORDS = {"cannot", "gonna", "wanna", "gotta", "lemme", "gimme"}

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN_AS = {
    **_BRACKETS,
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">"},
    **{"\u00a2": "cents", "\u00a3": "#", "\u00a4": "$", "\u20a0": "$", "\u20ac": "$"},
    **{"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
}
# pycocoevalcap means to drop brackets too, but looks for them in upper case
_DROPPED = re.compile(
    r"-{1,4}|[.?!,:;]|\.{3,}|['`\u2018\u2019\u201b\u2039\u203a\x92]{1,2}|"
    r"[\"\u00ab\u00bb\u201c\u201d\u2013-\u2015\u2026]|&(?:quot|apos|nbsp|mdash);"
)


def tokenize(captions: Sequence[str]) -> list[str]:
    """Captions as lower-case Penn Treebank tokens without punctuation, joined by spaces.

    Equal to pycocoevalcap's `PTBTokenizer` on the same list, which reads the captions as the lines of one text: the
    last token of "in the key of C." depends on the first word of the next caption.
    A line break within a caption is a space. A space within a token (`1 1/2`) is a no-break space.
    """
    text = "".join(" ".join(caption.splitlines()) + "\n" for caption in captions)
    lines: list[str] = []
    tokens: list[str] = []
    position = 0
    while position < len(text):
        if text[position] == "\n":
            lines.append(" ".join(tokens))
            tokens = []
        plain = _PLAIN_WORD.match(text, position)
        if plain and (word := plain.group().lower()) not in _SPLIT_WORDS:
            tokens.append(word)
            position = plain.end()
            continue
        matches = [match for rule in _RULES if (match := rule.match(text, position))]
        if not matches:  # space, or a character that the program does not know
            position += 1
            continue
        longest = max(matches, key=re.Match.end)
        group = cast(int, longest.lastindex)  # each rule has a group
        position = longest.end(group)
        token = longest[group]
        if not _DROPPED.fullmatch(token):
            tokens.append(_written(token))
    return lines


def _written(token: str) -> str:
    """The program's spelling of a token, in lower case."""
    if token in _WRITTEN_AS:
        return _WRITTEN_AS[token]
    if not token.startswith("<"):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    return re.sub("[\u2019\x92]", "'", token).replace("\u00ad", "").replace(" ", "\u00a0").lower()
