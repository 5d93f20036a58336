# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor search`: find moments in an index of media, or files without one, by a text, best match first."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import (
    BatchSize,
    CheckpointCommand,
    Device,
    Dtype,
    IndexModel,
    Json,
    Modalities,
    NumAudioClips,
    NumFrames,
    Workers,
    has_text,
    list_samples,
    load,
    new_app,
    on_one_line,
)


if TYPE_CHECKING:
    from ..evaluation.options import MediaOptions
    from ..search import Hit, ValorIndex

_INDEX_PANEL = "Search of an index"

app = new_app()


@app.command(cls=CheckpointCommand)
def search(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT [FILE]",
            callback=has_text,
            help="With --index: one text to search for, or several. Without: a text, and the video, audio or image files, "
            "folders of these, or URLs that are compared with it.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_INDEX_PANEL, help="Index that `valor index` made: a folder, or postgresql://...."
        ),
    ] = None,
    model: IndexModel = None,
    like: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_INDEX_PANEL,
            help="A video to search for what sounds like it, or a sound to search for what looks like it, instead of a text.",
        ),
    ] = None,
    captions: Annotated[
        bool,
        typer.Option(
            "--captions",
            rich_help_panel=_INDEX_PANEL,
            help="Search the words of the captions that the index holds, which `valor index --captions` writes.",
        ),
    ] = False,
    modalities: Modalities = "av",
    num_frames: NumFrames = None,
    num_audio_clips: NumAudioClips = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Number of hits to print.", show_default="10 of an index, otherwise all files"),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_INDEX_PANEL,
            help="SQL condition on source, start, end (seconds) and metadata, such as "
            "\"source LIKE '%holiday%' AND start < 60\" or \"json_get_string(metadata, 'camera') = 'front'\".",
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", rich_help_panel=_INDEX_PANEL, help="Compare all rows of a large index, which takes longer."
        ),
    ] = False,
    html: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_INDEX_PANEL,
            help="HTML page to write: the hits, playing from their second, with the words that they answer.",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    as_json: Json = False,
) -> int:
    """Find moments in an index of media by a text, or files without an index, best match first.

    `valor search TEXT... --index PATH` prints for each hit its score, its file, from when to when it is, and for each word
    the second and the modality that answered it. The exit status is 1 if nothing was found. With `--captions` it looks for
    segments with some of the words in their caption, and prints this.

    `valor search TEXT FILE... --model CHECKPOINT` compares whole files. A file of any length is represented by a few
    evenly spaced frames and a few audio clips. What lies between them is not used: index a long file.
    `--model CHECKPOINT --help` shows a checkpoint's numbers. The exit status is 1 if any file cannot be read.
    """
    if index is not None:
        if bool(texts) == bool(like):
            raise typer.BadParameter("give one text or several, or --like FILE.", param_hint="'TEXT'")
        options: dict[str, Any] = {"top": top or 10, "where": where}
        if captions:
            _refuse(
                "--captions searches words only.",
                **{"--like": like, "--exact": exact, "--modalities": modalities != "av"},
            )
        else:
            options |= {"modalities": modalities, "exact": exact}

        from ..search.page import check_page, write_page
        from .indexes import open_index

        if html is not None:
            check_page(html)
        opened = open_index(index, model, device, dtype, needs_model=not captions)
        results = find_in_index(opened, texts or [], like, captions, options)
        print_hits(results, where, captions, as_json)
        if html is not None:
            write_page(dict(results), html)
        return int(not any(hits for _, hits in results))
    _refuse(
        "it searches an index: give --index.",
        **{"--like": like, "--captions": captions, "--where": where, "--exact": exact, "--html": html},
    )
    if model is None:
        raise typer.BadParameter("give --index PATH, or --model CHECKPOINT and files.", param_hint="'--model'")
    if not texts or len(texts) == 1:
        raise typer.BadParameter("give files after the text, or --index.", param_hint="'FILE'")

    from ..evaluation.options import MediaOptions

    media = MediaOptions(modalities, num_frames, num_audio_clips, workers)
    scores, num_failed = score_files(texts[0], texts[1:], model, device, dtype, media, batch_size)
    for file, score in sorted(scores.items(), key=lambda pair: -pair[1])[:top]:
        print(json.dumps({"file": file, "score": score}) if as_json else f"{score:.3f}  {on_one_line(file)}")
    return int(num_failed > 0)


def _refuse(why: str, **options: Any) -> None:
    """Refuses the first of these options that is given."""
    for option, value in options.items():
        if value:
            raise typer.BadParameter(why, param_hint=repr(option))


def find_in_index(
    index: "ValorIndex", texts: Sequence[str], like: str | None, captions: bool, options: Mapping[str, Any]
) -> list[tuple[str, list["Hit"]]]:
    """The hits of each text, or of the file `like`; `options` are those of the search."""
    from ..search.ranking import caption_hit

    if captions:
        return [(text, [caption_hit(*one) for one in index.search_captions(text, **options)]) for text in texts]
    if like is not None:
        return [(like, index.search(media=like, **options))]
    return list(zip(texts, index.search(list(texts), **options), strict=True))


def print_hits(
    results: Sequence[tuple[str, Sequence["Hit"]]], where: str | None, captions: bool, as_json: bool
) -> None:
    """Prints the hits of each text, and what a user should know of them."""
    for text, hits in results:
        if len(results) > 1 and not as_json:
            print(f"{on_one_line(text)}:")
        for hit in hits:
            print(json.dumps({"query": text, **hit.as_dict()}) if as_json else hit_line(hit))
        for message in doubts(text, hits, where, captions):
            print(f"valor search: {message}", file=sys.stderr)


def doubts(text: str, hits: Sequence["Hit"], where: str | None, captions: bool = False) -> list[str]:
    """What a user should know of the hits of a text: that there is none, or that some are not proven."""
    if not hits:
        limits = " that --where lets through" if where else ""
        what = "caption with any of these words" if captions else "segment with these modalities"
        return [f"{text!r}: the index has no {what}{limits}."]
    unproven = sum(not hit.proven for hit in hits)
    if unproven:
        return [f"{text!r}: of {len(hits)} hits {unproven} are not proven; a better segment may have been missed."]
    return []


def hit_line(hit: "Hit") -> str:
    """Score, file and time of a hit, and what answered each word; the captions where no word asks."""
    from ..search.page import MODALITIES, clock, make_marks

    reasons = ", ".join(f"{mark.words} {clock(mark.seconds)} {MODALITIES[mark.modality]}" for mark in make_marks(hit))
    captions = dict.fromkeys(on_one_line(segment.caption) for segment in hit.segments if segment.caption)
    reasons = reasons or " / ".join(captions)
    return f"{hit.score:.3f}  {on_one_line(_short_name(hit.source))}  {clock(hit.start)}-{clock(hit.end)}  {reasons}".rstrip()


def _short_name(source: str) -> str:
    """The name of a file of the current folder, or below it, as it is from there."""
    is_below = os.path.isabs(source) and Path(source).is_relative_to(Path.cwd())
    return os.path.relpath(source) if is_below else source


def score_files(
    text: str,
    files: Sequence[str],
    model: str,
    device: str | None,
    dtype: str,
    options: "MediaOptions",
    batch_size: int,
) -> tuple[dict[str, float], int]:
    """The score of each file with a text, and the number of files and folders that could not be used."""
    import torch
    from tqdm import tqdm

    from .. import ValorForRetrieval
    from ..configuration_valor import GROUP_OF_LETTERS
    from ..data.samples import Sample
    from ..evaluation.loader import media_batches
    from ..modeling_valor_base import to_device

    names, num_failed = list_samples("valor search", files)
    if not names:
        return {}, num_failed
    loaded, processor = load(ValorForRetrieval, model, device, dtype)
    samples = [Sample(id=name, video=name, audio=name) for name in names]
    rows = range(len(samples))
    batches = [rows[start : start + batch_size] for start in rows[::batch_size]]

    scores: dict[str, float] = {}
    query = loaded.embed_texts(processor(text=text, return_tensors="pt").to(loaded.device))
    with tqdm(total=len(samples), unit="file", disable=None) as progress:
        for batch in media_batches(samples, processor, batches, options):
            for failure in batch.failures.values():
                progress.write(f"valor search: {failure.reason.removeprefix(failure.id + ': ')}", file=sys.stderr)
            if batch.indices:
                with torch.no_grad():
                    media = loaded.embed_media(to_device(batch.inputs, loaded.device, loaded.dtype))
                    row = loaded.compute_similarity(**query, **media, group=GROUP_OF_LETTERS[options.modalities])[0]
                scores.update(zip((names[index] for index in batch.indices), row.tolist(), strict=True))
            progress.update(len(batch.indices) + len(batch.failures))
    return scores, num_failed + len(samples) - len(scores)
