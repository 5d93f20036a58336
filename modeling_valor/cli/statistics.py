# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor statistics`: measure how long captions are and how often they name sounds (Table 1 of the paper)."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .arguments import Json, new_app


ONTOLOGIES = ("ontology.json", "audioset_ontology.json")
"""Names under which AudioSet's ontology is looked for in the folder of the annotations."""


app = new_app()


@app.command()
def statistics(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|DATASET",
            help="A file of captions (.csv, .json, .jsonl), a benchmark's name, or any other dataset that `valor evaluate` "
            "takes; NAME=FILE names the row, which several files can share, and a benchmark's name as NAME adds the "
            "paper's values.",
        ),
    ],
    annotations: Annotated[
        str | None,
        typer.Option(help="Folder of the benchmarks' annotations, or of subfolders with the benchmarks' names."),
    ] = None,
    ontology: Annotated[
        str | None, typer.Option(help="AudioSet's ontology.", show_default="in the folder of the annotations")
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure how long captions are and how often they name sounds (Table 1 of the paper).

    The row of a benchmark has the captions of all splits whose annotations are present; the captions of a video that is
    in several splits count in one of them only. LenCap is the mean number of words of a caption. ACD is the number of
    audio concepts per hundred words; audio concepts are the classes of AudioSet's ontology (ontology.json of
    github.com/audioset/ontology). If a source has no captions, a message names it, the others are measured, and the exit
    status is 1.
    """
    from ..evaluation.statistics import (
        PAPER_STATISTICS,
        audio_concept_density,
        audio_concepts,
        caption_length,
        caption_statistics,
    )

    found = ontology or _ontology_in(annotations)
    concepts = None if found is None else audio_concepts(found)
    captions: dict[str, list[str]] = {}
    paper: dict[str, dict[str, float]] = {}
    missing = 0
    for source in sources:
        try:
            title, splits, texts = _captions_of(source, annotations)
            if caption_length(texts) == 0:
                raise ValueError(f"The captions of {source} have no words.")
        except (ValueError, OSError) as error:
            print(f"valor statistics: {' '.join(str(error).split())}", file=sys.stderr)
            missing += 1
            continue
        name = f"{title} ({', '.join(splits)})" if splits else title
        captions.setdefault(name, []).extend(texts)
        paper[name] = PAPER_STATISTICS.get(title, {})
    if as_json:
        rows = {
            name: {
                "captions": len(texts),
                "LenCap": caption_length(texts),
                "ACD": None if concepts is None else audio_concept_density(texts, concepts),
                "paper": paper[name],
            }
            for name, texts in captions.items()
        }
        print(json.dumps(rows))
    elif captions:
        print(caption_statistics(captions, concepts, paper), end="")
    if concepts is None:
        print(
            "ACD is left out, because it needs AudioSet's ontology: give --ontology ontology.json.",
            file=sys.stderr,
        )
    return 1 if missing else 0


def _captions_of(source: str, annotations: str | None) -> tuple[str, list[str], list[str]]:
    """Title, splits (of benchmarks) and captions of a source."""
    from ..data.readers import load_samples
    from ..data.readers.benchmarks import BENCHMARKS
    from ..data.samples import each_sample
    from ..evaluation.statistics import read_captions

    name, _, file = source.partition("=")
    if file and not Path(source).exists():
        return (BENCHMARKS[name].title if name in BENCHMARKS else name), [], read_captions(file)
    if source in BENCHMARKS:
        splits, captions = _captions_of_benchmark(source, annotations)
        return BENCHMARKS[source].title, splits, captions
    if Path(source).is_file() and Path(source).suffix in (".csv", ".json", ".jsonl"):
        return source, [], read_captions(source)
    captions = [caption for sample in each_sample(load_samples(source)) for caption in sample.captions]
    if not captions:
        raise ValueError(f"{source} has no captions; give a file or a dataset that has some.")
    return source, [], captions


def _captions_of_benchmark(name: str, annotations: str | None) -> tuple[list[str], list[str]]:
    """The splits whose annotations are present, and their captions."""
    from ..data.readers.benchmarks import BENCHMARKS, load_benchmark

    benchmark = BENCHMARKS[name]
    if annotations is None:
        raise ValueError(f"{benchmark.title} needs --annotations, the folder of the files from {benchmark.source}.")
    folder = Path(annotations, name)
    folder = folder if folder.is_dir() else Path(annotations)
    splits: list[str] = []
    by_id: dict[str, list[str]] = {}
    for split in benchmark.splits:
        try:
            samples = load_benchmark(name, split, annotations=folder, paragraph=False)
        except FileNotFoundError:
            continue
        new = [sample for sample in samples if sample.captions and sample.id not in by_id]
        by_id.update((sample.id, list(sample.captions)) for sample in new)
        splits += [split] if new else []
    if not by_id:
        wanted = next(iter(benchmark.splits.values())).files["annotations"]
        raise ValueError(
            f"{folder} has no captions of {benchmark.title}: neither {wanted} nor the files of another split. They come from "
            f"{benchmark.source}; a caption file of another name can be given as {name}=FILE."
        )
    return splits, [caption for captions in by_id.values() for caption in captions]


def _ontology_in(annotations: str | None) -> Path | None:
    if annotations is None:
        return None
    return next((file for name in ONTOLOGIES if (file := Path(annotations, name)).is_file()), None)
