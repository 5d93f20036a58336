# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Token embeddings of media as a file, for those who bring their own search engine: Parquet or safetensors."""

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from ..data.files import WriteError, atomic_write, check_not_input
from ..media_limits import reason
from .adding import AddReport, add_items, count_of, find_vanished, plan_additions
from .embedding import EmbeddingModel
from .reading import Segmentation
from .sources import Source, list_items
from .token_files import WRITERS, TokenFileNote
from .token_store import TokenStore


logger = logging.get_logger(__name__)

SEGMENTS_AT_ONCE = 1024
"""Segments that are written to the output together."""


def check_output(path: str | os.PathLike[str]) -> None:
    """Checks that token embeddings can be written to a file.

    Raises:
        ValueError: its name has an ending that stands for no format, or it is a folder.
        OSError: its folder is not there or cannot be written.
    """
    path = Path(path)
    if path.suffix not in WRITERS or path.is_dir():
        raise ValueError(f"{path} is given as output; a file that ends in {' or '.join(WRITERS)} is accepted.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(f"{path} cannot be written: there is no folder {path.parent} that can be written to.")


def embed_files(
    sources: Iterable[Source],
    output: str | os.PathLike[str],
    model: EmbeddingModel,
    segmentation: Segmentation,
    *,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = True,
) -> AddReport:
    """Writes the token embeddings of media to a file, `.parquet` or `.safetensors`, as `ValorIndex.add` stores them.

    The file is written, or replaced, when all is embedded. Until then what is done is in a file beside it,
    `output` + ".unfinished", so that the same call goes on after a crash. Files that the output has already are passed over
    if they are unchanged by size and time; what it has of files that are not among the sources is left out.

    Args:
        sources, batch_size, workers, progress: as in [`ValorIndex.add`].

    Returns:
        What was embedded, replaced, unchanged, vanished, and could not be read.

    Raises:
        ValueError: as in [`check_output`], the output is one of the sources, there is nothing to embed, another run writes
            to it, or an interrupted run used another model.
        OSError: as in [`check_output`], or the disk is full; what is embedded is kept.
    """
    check_output(output)
    sources = list(sources)
    items, failures = list_items(sources)
    check_not_input(output, [item.source for item in items])
    for message in failures.values():
        logger.warning(message)
    report = AddReport(failures=failures)
    note = TokenFileNote(model.name, model.revision, model.config.projection_dim)
    with closing(TokenStore(Path(output), note)) as store:
        _say_what_is_there(store)
        plan = plan_additions(store, items, segmentation, report)
        add_items(
            store,
            model,
            plan,
            segmentation,
            report,
            batch_size=batch_size,
            workers=workers,
            caption=False,
            progress=progress,
        )
        report.vanished = find_vanished(store, sources)
        _write_output(store, [item.source for item in items])
    return report


def _say_what_is_there(store: TokenStore) -> None:
    if store.is_replaced:
        logger.warning(f"{store.output} is there, with other contents than embeddings of this model; it is replaced.")
    files, segments = store.count()
    if segments:
        logger.warning(
            f"An interrupted run goes on: {count_of(files, 'file')} complete, {count_of(segments, 'segment')} embedded already."
        )


def _write_output(store: TokenStore, sources: list[str]) -> None:
    """Writes the output unless it is as it should be, and removes what was kept beside it.

    Raises:
        ValueError: there is nothing to write.
        WriteError: it cannot be written; what is embedded is kept.
    """
    wanted = set(sources)
    files = [file for file in store.files() if file.source in wanted]
    stays = not store.is_replaced and not any(store.count()) and store.output.exists()
    if not stays or {file.source for file in files} != store.sources_of_output:
        segments = itertools.chain(store.kept(sources), store.embedded(sources))
        first = next(segments, None)
        if first is None:
            raise ValueError(f"There is nothing to embed in what was given; {store.output} is not written.")
        note = TokenFileNote(store.note.model, store.note.revision, store.note.width, files)
        with _kept_beside(store), atomic_write(store.output) as partial:
            writer = WRITERS[store.output.suffix](partial, note)
            segments = itertools.chain([first], segments)
            while chunk := list(itertools.islice(segments, SEGMENTS_AT_ONCE)):
                writer.write(chunk)
            writer.close()
        if left_out := len(store.sources_of_output - wanted):
            logger.warning(f"What {store.output} had of {count_of(left_out, 'other file')} is not in it any more.")
    store.finish()


@contextmanager
def _kept_beside(store: TokenStore) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WriteError(
            f"{store.output} cannot be written ({reason(error)}). What is embedded is kept in {store.path}, and the same "
            "command goes on from there."
        ) from error
