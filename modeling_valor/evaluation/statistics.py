# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Statistics of caption files: length and density of audio concepts (section 3.4, Table 1)."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, cast

from ..data.readers.records import KEYS
from ..data.readers.text_files import read_json, read_objects, read_table


_CAPTION_FIELD = re.compile(r"captions?(_\d+)?|desc|sentences?")

PAPER_STATISTICS = {
    "MSVD": {"LenCap": 7.0, "ACD": 6.7},
    "MSR-VTT": {"LenCap": 9.3, "ACD": 4.7},
    "VATEX": {"LenCap": 14.3, "ACD": 4.1},
    "DiDeMo": {"LenCap": 8.0, "ACD": 6.3},
    "ActivityNet Captions": {"LenCap": 13.5, "ACD": 3.4},
    "LSMDC": {"LenCap": 9.1, "ACD": 2.5},
    "Clotho": {"LenCap": 11.3, "ACD": 10.4},
    "AudioCaps": {"LenCap": 8.8, "ACD": 17.3},
    "VALOR-32K": {"LenCap": 19.8, "ACD": 9.1},
}
"""Table 1's values of the benchmarks with captions, by their titles (`data.readers.benchmarks`)."""


def caption_length(captions: Iterable[str]) -> float:
    """Mean number of words of the captions, without punctuation ("LenCap" of Table 1)."""
    lengths = [len(_words(caption)) for caption in captions]
    if not lengths:
        raise ValueError("There are no captions; pass at least one.")
    return sum(lengths) / len(lengths)


def audio_concept_density(captions: Iterable[str], concepts: Iterable[str]) -> float:
    """Audio concepts per hundred words: the number found in the captions over the number of their words ("ACD", eq. 1).

    A concept counts once for each caption that has its words in sequence; a concept that is repeated in `concepts` counts
    as often as it is repeated. Upper case and punctuation are ignored. `audio_concepts` makes the paper's concepts.

    Raises:
        ValueError: If the captions have no words, or there are no concepts.
    """
    multiplicity = Counter(tuple(words) for concept in concepts if (words := _words(concept)))
    if not multiplicity:
        raise ValueError("There are no audio concepts; `audio_concepts` makes them from AudioSet's ontology.")
    longest = max(map(len, multiplicity))
    found = total = 0
    for caption in captions:
        words = _words(caption)
        total += len(words)
        phrases = {
            tuple(words[start:end])
            for start in range(len(words))
            for end in range(start + 1, min(start + longest, len(words)) + 1)
        }
        found += sum(multiplicity[phrase] for phrase in phrases)
    if not total:
        raise ValueError("The captions have no words, so they have no density of audio concepts.")
    return 100 * found / total


def audio_concepts(ontology: str | PathLike[str] | Sequence[Mapping[str, object]]) -> list[str]:
    """Audio concepts of AudioSet's ontology: the path of `ontology.json` or its content, a list of classes with a "name".

    As in section 3.4 a class is split at commas into its concepts, in lower case and without punctuation. Text in
    parentheses is a concept, too: "Ambulance (siren)" becomes "ambulance" and "siren". A concept of several classes is
    listed for each of them. The 632 classes of the published ontology have 758 concepts; the paper counts 759.
    """
    what, entries = "The ontology", ontology
    if isinstance(ontology, (str, PathLike)):
        what, entries = f"The ontology {ontology}", read_json(Path(ontology))
    try:
        names = [str(entry["name"]) for entry in cast(Sequence[Mapping[str, object]], entries)]
    except (TypeError, LookupError) as error:
        raise ValueError(f"{what} must be a list of classes with a `name`, as AudioSet's ontology.json is.") from error
    phrases = (" ".join(_words(part)) for name in names for part in re.split(r"[,()]", name))
    return [phrase for phrase in phrases if phrase]


def caption_statistics(
    captions: Mapping[str, Sequence[str]],
    concepts: Iterable[str] | None,
    paper: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Markdown table with the columns of Table 1 and one row for each named list of captions.

    Without `concepts` ACD is empty. Where `paper` (by default `PAPER_STATISTICS`) has a row of the same name, its values
    are added.
    """
    paper = PAPER_STATISTICS if paper is None else paper
    concepts = None if concepts is None else list(concepts)
    rows = [
        "| dataset | captions | LenCap | LenCap, paper | ACD | ACD, paper |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, texts in captions.items():
        theirs = paper.get(name, {})
        density = "" if concepts is None else f"{audio_concept_density(texts, concepts):.1f}"
        rows.append(
            f"| {name} | {len(texts):,} | {caption_length(texts):.1f} | {theirs.get('LenCap', '')} "
            f"| {density} | {theirs.get('ACD', '')} |"
        )
    return "\n".join(rows) + "\n"


def read_captions(file: str | PathLike[str]) -> list[str]:
    """All captions of an annotation file.

    `.csv` has a header with a column "caption", "desc", "sentence" or several "caption_1", "caption_2", ...; `.json`
    and `.jsonl` have objects with such a field, whose value is a caption or a list of them, or one object that maps
    identifiers to lists of captions. If a row has none of these, the other names of captions in `metadata.jsonl`, such as
    "text", are tried. Other columns and fields are ignored.

    Raises:
        ValueError: If no captions are found, or the file cannot be read; the error names it and the line.
    """
    captions = list(_values_of(Path(file)))
    texts = [caption for caption in captions if isinstance(caption, str)]
    if not texts or len(texts) < len(captions):
        raise ValueError(f"{file} has no captions; they must be text in a column or field caption, desc or sentence.")
    return texts


def _values_of(file: Path) -> Iterator[object]:
    """The values of all columns or fields with captions in an annotation file."""
    content: Any
    if file.suffix == ".csv":
        content = [row for _, row in read_table(file)]
    elif file.suffix == ".jsonl":
        content = [row for _, row in read_objects(file)]
    else:
        content = read_json(file)
    if isinstance(content, Mapping):
        yield from chain.from_iterable(value for value in content.values() if isinstance(value, list))
    elif isinstance(content, list):
        yield from chain.from_iterable(_captions_of(row) for row in content if isinstance(row, Mapping))


def _captions_of(entry: Mapping[str, Any]) -> list[object]:
    """Captions of one row or object."""
    values = [value for field, value in entry.items() if _CAPTION_FIELD.fullmatch(field) and value]
    values = values or [value for field in KEYS["captions"] if (value := entry.get(field))][:1]
    return [caption for value in values for caption in (value if isinstance(value, list) else [value])]


def _words(text: str) -> list[str]:
    """Words in lower case, without punctuation; a hyphen joins its parts into one word."""
    return re.sub(r"[^\w\s]|_", "", text.lower()).split()
