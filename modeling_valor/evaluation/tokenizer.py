# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""
Penn Treebank tokens of captions, without Java.

Caption metrics are defined on what one program prints: `PTBTokenizer` of Stanford CoreNLP 3.4.1 with `-preserveLines
-lowerCase`, less the punctuation that pycocoevalcap drops. Its rules are a lexer's: at each position every rule is
tried, the longest match wins, what a rule has to see after its token counts as part of that match, and the first of
equally long rules wins. `_RULES` is such a table, written from what the program does to captions.
"""

import re
from collections.abc import Sequence


_APOSTROPHE = "['\u2019\x92]"
_LETTER = r"(?:[^\W\d_]|[\u00ad\u0300-\u036f])"
_WORD = rf"{_LETTER}(?:{_LETTER}|\d)*(?:[.!?]{_LETTER}(?:{_LETTER}|\d)*)*"
_CLITIC = rf"{_APOSTROPHE}(?:[msd]|re|ve|ll|em)"
_NUMBER = r"[-+]?(?:\d+(?:[.,:]\d+)*|[.,:]\d+(?:[.,:]\d+)*)"
_PART = rf"(?:[dol]{_APOSTROPHE}[a-z0-9])?"
_ACRONYM = r"[a-z](?:\.[a-z])+"

_ABBREVIATION = (
    "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri|"
    "ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|wisc?|wyo|"
    "(?-i:Az|Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash)|"
    "inc|cos?|corp|pp?t[ye]s?|ltd|plc|bancorp|bhd|assn|univ|intl|sys|tel|est|ext|sq|"
    r"jr|sr|bros|(?:ed|ph)\.d|esq|blvd|rd|etc|al|seq|vs|"
    "mr|mrs|ms|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|capt|st[ae]?|ave|pres|"
    "lieut|hon|brig|co?mdr|pfc|spc|supts?|det|mt|ft|adj|adv|asst|assoc|ens|insp|mlle|mme|msgr|sfc|"
    rf"invt|elec|natl|mfg|dept|cf|ph|{_ACRONYM}|[a-z]"
)
_ABBREVIATION_OF_NUMBER = "ca|figs?|prop|nos?|arts?|bldg|pp|op"

# A letter and a full stop are an initial, unless one of these follows
_SENTENCE_START = (
    "A|About|According|Additionally|After|All|Also|Although|An|Another|As|At|Before|Both|But|By|Did|During|Each|Earlier|"
    "Following|For|From|He|Her|Here|His|How|However|If|In|It|Its|Last|Later|Many|More|Most|Mrs?\\.|Ms\\.|Now|On|Once|"
    "One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|Two|Under|Upon|We|When|While|What|"
    "Who|Why|Yet|You"
)

# Each pattern's first group is the token; the rest of the match is what has to follow
_RULES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # one word in writing, two in the treebank
        rf"(can)not|({_APOSTROPHE}t)was",
        rf"(?:({_APOSTROPHE}t)is|(gon|wan)na|(got)ta|(lem|gim)me)[^a-z]",
        # markup
        r"(</?[a-z!?][a-z0-9:._-]*(?:[ ]+[a-z0-9:._-]+(?:[ ]*=[ ]*(?:[a-z0-9]+|\"[^\"\n]*\"|'[^'\n]*'))?)*[ ]*/?>)",
        r"(<!--.*?-->)",
        # words, with or without a clitic
        rf"({_WORD}){_CLITIC}",
        rf"([a-z]*[a-mo-z])n{_APOSTROPHE}t",
        rf"({_WORD})",
        rf"({_APOSTROPHE}n{_APOSTROPHE}?|(?:[ldj]|dunkin|somethin|ol){_APOSTROPHE}|{_APOSTROPHE}(?:em|till?|cause|[2-9]0s))",
        rf"((?-i:[A-HJ-XZn]){_APOSTROPHE}{_LETTER}{{2}}(?:{_LETTER}|\d)*)",
        rf"({_LETTER}+(?<=[aeiouy]){_APOSTROPHE}[aeiou]{_LETTER}*)",
        rf"((?:cap|rock){_APOSTROPHE}n|c{_APOSTROPHE}(?:est|mon)|li{_APOSTROPHE}l|nor{_APOSTROPHE}easter|nat{_APOSTROPHE}l)",
        rf"(y{_APOSTROPHE}){_LETTER}",
        # addresses
        r"((?:https?|ftp)://[^\s<>|(){}]+[^\s<>|.!?(){},;:&\"'*-])",
        r"((?:www\.(?:[^\s`<>|.!?(){},]+\.)+[a-z]{2,4}|(?:[^\s`<>|.!?(){},:/$]+\.)+(?:com|net|org|edu))"
        r"(?:/[^\s<>|(){}]+[^\s<>|.!?(){},;:&\"'*-])?)[^a-z]",
        r"([a-z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.,;:\[\]]+)",
        r"(@[a-z_]\w*|#[a-z]+)",
        # clitics on their own
        rf"({_CLITIC}|n{_APOSTROPHE}t)[^a-z]",
        # numbers
        rf"({_NUMBER})",
        r"((?:\d{1,4}[- ])?\d{1,4}/\d{1,4})",
        r"(\d{1,2}/\d{1,2}/\d{2,4})",
        # compounds: hyphens, underscores, slashes, ampersands
        rf"({_PART}(?:[a-z0-9]+|{_NUMBER})(?:-{_PART}(?:[a-z0-9]+|{_NUMBER}))*)",
        rf"([a-z0-9][a-z0-9.,]*(?:[-_](?:[a-z0-9]+|{_ACRONYM}\.))+)",
        r"([a-z0-9]+(?:-[a-z]+){0,2}(?:/[a-z0-9]+(?:-[a-z]+){0,2}){1,2})",
        r"((?-i:[A-Z]+(?:[+&][A-Z]+)+))",
        r"(c\+\+|c#|c\.d\.s|pro-|anti-)",
        r"((?-i:[A-Z]*)\$)",
        # abbreviations
        rf"([a-z])\.\s+(?-i:{_SENTENCE_START})[\s?!]",
        rf"((?:{_ABBREVIATION_OF_NUMBER})\.)\s?\d",
        rf"((?:{_ABBREVIATION})\.)",
        rf"({_APOSTROPHE}\d\d)\s",
        rf"({_WORD}\.)[,;:]",
        # telephone numbers
        r"((?:\(\d{2,3}\)[ ]?|(?:\+\+?)?(?:\d{2,4}[- ])?\d{2,4}[- ])\d{3,4}[- ]?\d{3,5})",
        # faces
        r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^a-z0-9]",
        r"([\^x=~<>-]_[\^x=~<>-]|\([\^x=~<>-][_.]?[\^x=~<>-]\))",
        # the rest
        r"(\.\.\.+)",
        r"([?!]+|-+|@+|#+|_+|\*+|<<|>>|&(?:amp|lt|gt|quot|apos);)",
        r"([^\s\w])",
    )
)

# A word that no rule would split or lengthen: most of any caption
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=[ \n])")
_SPLIT_WORDS = {"cannot", "gonna", "wanna", "gotta", "lemme", "gimme"}

# What a token becomes, in the order in which the program's rules are tried
_WRITTEN_AS = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
}
_PUNCTUATION = frozenset("'' ' `` ` . ? ! , : - -- ... ;".split())


def tokenize(captions: Sequence[str]) -> list[str]:
    """
    Captions as lower-case Penn Treebank tokens without punctuation, joined by spaces.

    Equal to what pycocoevalcap's `PTBTokenizer` makes of the same list.
    """
    text = "\n".join(" ".join(caption.splitlines()) for caption in captions) + "\n"
    lines, tokens, position = [], [], 0
    while position < len(text):
        if text[position] == "\n":
            lines.append(" ".join(tokens))
            tokens = []
            position += 1
            continue
        plain = _PLAIN_WORD.match(text, position)
        if plain and plain.group().lower() not in _SPLIT_WORDS:
            tokens.append(plain.group().lower())
            position = plain.end()
            continue
        matches = [match for rule in _RULES if (match := rule.match(text, position))]
        if not matches:
            position += 1
            continue
        match = max(matches, key=re.Match.end)
        token = match[match.lastindex]
        position = match.end(match.lastindex)
        token = _WRITTEN_AS.get(token, token).lower()
        if token not in _PUNCTUATION:
            tokens.append(token)
    return lines
