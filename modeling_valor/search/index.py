# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Find the moment: an index of hours of video, searched by what is seen and heard.

A query's tokens each look for the token rows most similar to them; the segments of these rows are the candidates, which
are scored exactly (eq. 3). See `ranking.score_bound` for the proof that no better segment was missed.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import torch
from transformers.utils import logging

from ..configuration_valor import MASKS
from ..data.samples import Sample
from ..modeling_valor import ValorModel
from ..modeling_valor_decoder import ValorDecoderModel
from ..processing_valor import ValorProcessor
from .adding import AddReport, add_items, find_vanished, plan_additions, segmentation_of, update_metadata
from .backend import Backend, UnusableIndexError, open_backend
from .captioning import caption_segments, store_captions
from .embedding import EmbeddingModel
from .query import STOP_WORDS, Query, media_query, text_queries
from .ranking import Hit, scoring_of
from .reading import Segmentation
from .searching import SearchOptions, find_hits
from .segments import FORMAT_VERSION, EmbeddedSegment, IndexedFile, Segment
from .sources import Metadata, Source, absolute, list_items


logger = logging.get_logger(__name__)


class ValorIndex:
    """An index of segments of media, with the model that embeds them.

    Args:
        path: a folder or an object store (LanceDB), or `postgresql://...` (pgvector). It is made when something is added.
        model: folder or Hub name of a checkpoint, or a VALOR model. By default the one that the index was made with.
        processor: by default that of the checkpoint.
        device: by default an accelerator, if there is one.
        dtype: type in which the model computes; by default that of the checkpoint.

    Raises:
        ValueError: there is no index and no model to make one with, the index was made by a newer version of this package,
            or, once the model is needed, it is not the one that the index was made with.

    ```python
    >>> index = ValorIndex("my-videos.lance", model="hub_configs/valor-tiny")
    >>> index.add("videos/", segment_seconds=10.0)
    >>> index.search("a dog barks", top=3)[0]
    ```
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: str | ValorModel | ValorDecoderModel | None = None,
        processor: ValorProcessor | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.backend: Backend = open_backend(path)
        self.path = self.backend.path
        about = self.backend.about()
        self._check_version(about)
        if about is None and model is None:
            raise ValueError(f"There is no index at {self.path}: name the model to make one with.")
        self._unchecked = EmbeddingModel(about["model"] if model is None else model, processor, device, dtype)  # type: ignore[index]

    @cached_property
    def model(self) -> EmbeddingModel:
        """The model, loaded and known to be the one of the index.

        Raises:
            ValueError: it is another one.
        """
        self._check_model(self.backend.about())
        return self._unchecked

    def _check_version(self, about: Mapping[str, Any] | None) -> None:
        if about is not None and about["version"] > FORMAT_VERSION:
            raise UnusableIndexError(
                f"The index {self.path} was made by a newer version of modeling-valor (format {about['version']}, this one "
                f"reads {FORMAT_VERSION}): upgrade with `pip install -U modeling-valor`."
            )

    def _check_model(self, about: Mapping[str, Any] | None) -> None:
        model = self._unchecked
        if about is not None and about["revision"] != model.revision:
            raise UnusableIndexError(
                f"The index {self.path} was made with the model {about['model']} (weights {about['revision']}), not with "
                f"{model.name} (weights {model.revision}): use that one, or make another index."
            )

    # --- Search -------------------------------------------------------------------------------------------------------

    @overload
    def search(self, texts: str | None = None, *args: Any, **kwargs: Any) -> list[Hit]: ...
    @overload
    def search(self, texts: Sequence[str], *args: Any, **kwargs: Any) -> list[list[Hit]]: ...
    def search(
        self,
        texts: Any = None,
        top: int = 10,
        modalities: str = "av",
        where: str | None = None,
        *,
        media: Any = None,
        exact: bool = False,
        nearest_rows: int | None = None,
        join: bool = True,
    ) -> Any:
        """The parts of files that answer a text, or each of several texts, best first.

        Args:
            texts: a text, or a list of them, which are searched for at once.
            top: number of hits.
            modalities: compare with what is seen ("v"), heard ("a") or both ("av"). A segment that lacks one of both is
                scored by the other; one that has nothing of them is not found.
            where: an SQL condition on `source`, `start`, `end`, `metadata`, and `modality` and `time` of tokens, such as
                "source LIKE '%holiday%' AND start < 60".
            media: instead of texts, a file or anything else that the processor takes as one video or sound, where the
                checkpoint has the alignment groups: its frames find segments by their sound (v-a), or by their sound and
                caption (v-ta), its sound finds them by their frames (v-a), or by their frames and caption (a-tv). Of a film,
                `modalities` says which: "a" or "av" the former, "v" the latter. What the processor returned for one file
                is accepted, too.
            exact: compare all token rows, also of an index that is too large for memory and has an approximate one. Hits of
                an approximate index are never `proven`.
            nearest_rows: token rows that each token of a query looks for first where an index is too large to compare all,
                by default what is best for the backend.
            join: segments that touch each other and that the model finds equally likely, by a factor of 2, are one hit.

        Returns:
            A list of hits for a text or media; a list of such lists for a list of texts.

        Raises:
            UnusableIndexError: the index is empty, cannot be read, or is of another model.
            ValueError: a text says nothing, `where` is no condition, or the checkpoint does not compare such media with
                these modalities.
            MediaError: `media` cannot be read.
        """
        if (texts is None) == (media is None):
            raise ValueError("A search needs either `texts` or `media`.")
        several = media is None and not isinstance(texts, str)
        if several and not texts:
            return []
        self._check_filled()
        _check_count("top", top)
        if nearest_rows is not None:
            _check_count("nearest_rows", nearest_rows)
        if media is None:
            scoring = scoring_of(self.model.config, "text", modalities)
            queries = text_queries(self.model.valor, self.model.processor, list(texts) if several else [texts])
        else:
            queries = [self._media_query(media, modalities)]
            scoring = scoring_of(self.model.config, queries[0].modality, modalities)
        tolerance = math.log(2) / self.model.valor.logit_scale.detach().float().exp().item() if join else -math.inf
        options = SearchOptions(scoring, top, where, exact, nearest_rows, tolerance)
        hits = find_hits(self.backend, queries, options)
        return hits if several else hits[0]

    def _media_query(self, media: Any, modalities: str) -> Query:
        """The frames of a file, or its sound where that is all that it has or that is compared with frames."""
        is_read = isinstance(media, Mapping) and not media.keys().isdisjoint(MASKS)
        tokens = self.model.embed(media if is_read else self.model.processor(videos=[media], return_tensors="pt"))[0]
        if tokens is None:
            raise ValueError("There is nothing in `media` to search with.")
        letter = "v" if "v" in tokens.modalities and ("a" in modalities or "a" not in tokens.modalities) else "a"
        chosen = np.array(list(tokens.modalities)) == letter
        values = (torch.from_numpy(part[chosen].astype(np.float32)) for part in (tokens.embeds, tokens.weights))
        return media_query({"v": "video", "a": "audio"}[letter], *values)

    # --- Adding -------------------------------------------------------------------------------------------------------

    def add(
        self,
        sources: Source | Iterable[Source],
        segment_seconds: float | None = None,
        stride: float | None = None,
        *,
        segments: str | None = None,
        modalities: str | None = None,
        num_frames: int | None = None,
        metadata: Metadata | None = None,
        caption: bool = False,
        batch_size: int = 16,
        workers: int | None = None,
        progress: bool = True,
    ) -> AddReport:
        """Reads, embeds and stores the segments of files.

        Run it again to go on after it was interrupted or killed, which loses one batch at most, and to bring the index up
        to date: files of the same size and time are passed over, changed ones are replaced. Files that cannot be read,
        and parts of them, are named in a warning and left out.

        How files are cut is by default as when the index was made, which was, unless something else was asked for, into
        segments of 10 s with both modalities and the frames of the checkpoint's processor. Files of the index are cut again
        only where something is asked for that they are not; a message says so.

        Args:
            sources: files, folders, globs, addresses (URLs and object stores) or samples, one or a list. Local files are
                known by their absolute paths.
            segment_seconds: length of a segment.
            stride: seconds from one beginning to the next; with a `segment_seconds` they lie end to end by default.
            segments: "fixed", or "shots", which PySceneDetect finds.
            modalities: what is read of each file, "av", "v" or "a".
            num_frames: frames of each segment. Sound is heard all.
            metadata: anything that JSON has, for the segments of every file, or a function of a source that returns it.
                Files that the index has already get it, too.
            caption: let the checkpoint write a caption of each segment, also of those that the index has already without
                one. Captions of samples are stored in any case.
            batch_size: segments that are embedded together and written together.
            workers: processes that decode; 0: this one. By default one for every two cores, 8 at most.
            progress: show a bar with files, hours and speed, where there is a terminal.

        Returns:
            What was added, replaced, unchanged, vanished, and could not be read.

        Raises:
            ValueError: the index is of another model or cannot be written, or an argument is not what is accepted.
        """
        _check_count("batch_size", batch_size)
        asked = (segment_seconds, stride, segments, modalities, num_frames)
        own = segmentation_of(self.backend) or Segmentation(num_frames=self.model.processor.video_processor.num_frames)
        segmentation = own.changed(*asked)
        sources = sources if isinstance(sources, (str, os.PathLike, Sample)) else list(sources)
        items, failures = list_items(sources, metadata)
        report = AddReport(failures=failures)
        for reason in failures.values():
            logger.warning(reason)
        if items:
            self._create(segmentation)
            workers = min(8, (os.cpu_count() or 1) // 2) if workers is None else workers
            reading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "progress": progress}
            cut_again = any(option is not None for option in asked)
            plan = plan_additions(self.backend, items, segmentation, report, cut_again)
            if metadata is not None:
                update_metadata(self.backend, plan, report)
            add_items(self.backend, self.model, plan, segmentation, report, caption=caption, **reading)
            if caption:
                caption_segments(self.backend, self.model, plan.kept, segmentation, report, **reading)
            if report.segments or report.updated or report.captioned:
                self.backend.compact()
        if self.backend.about() is not None:
            report.vanished = find_vanished(self.backend, sources)
        return report

    # --- Contents -----------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """What the index holds, without loading its model.

        Returns:
            `path`, `model`, `revision`, `version`, `files`, `hours`, `segmentation` (how files are cut by default),
            `segmentations` (how files were cut), `segments`, `tokens`, `bytes` on the disk (None where nobody knows), and
            `index`, the kind of the approximate index (None: all rows are compared).
        """
        about = self.backend.about()
        if about is None:
            return {
                "path": self.path,
                "model": self._unchecked.name,
                "files": 0,
                "hours": 0.0,
                "segmentations": [],
                "segments": 0,
                "tokens": 0,
            }
        files, seconds, cut = 0, 0.0, set()
        for file in self.backend.files():
            files, seconds = files + 1, seconds + file.seconds
            cut.add(file.segmentation)
        counts = {"files": files, "hours": seconds / 3600, "segmentations": sorted(cut)}
        return {"path": self.path, **about, **counts, **self.backend.sizes()}

    def segments(self, source: str | None = None) -> list[Segment]:
        """The segments of a file by their start, or all segments in no order, without their tokens."""
        return [] if self.backend.about() is None else self.backend.segments(source=source)

    def add_segments(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None:
        """Adds segments that are embedded already, and notes files as complete.

        Safe to repeat, and to run in several processes: a segment that is there stays as it is. `files` are those whose
        last segments these are; without them `add` would read a file again.

        Raises:
            ValueError: embeddings of another width than the model's, or segments of another revision than the index.
        """
        self._create()
        for item in segments:
            width = item.tokens.embeds.shape[1]
            if width != self.model.config.projection_dim:
                raise ValueError(
                    f"Embeddings of width {width} were given; the model {self.model.name} has "
                    f"{self.model.config.projection_dim}."
                )
            if item.segment.revision not in ("", self.model.revision):
                raise ValueError(
                    f"The segment {item.segment.source} {item.segment.start:g}-{item.segment.end:g} s was embedded with the "
                    f"weights {item.segment.revision}, the index has {self.model.revision}: embed it with {self.model.name}."
                )
        self.backend.write(segments, files)

    def remove(self, *sources: str | os.PathLike[str]) -> int:
        """Removes files with all that is known of them; returns the number of segments.

        Raises:
            ValueError: the index does not have one of them; the others are removed.
        """
        names = [os.fspath(source) for source in sources]
        known = set() if self.backend.about() is None else {file.source for file in self.backend.files()}
        names = [name if name in known else absolute(name) for name in names]
        unknown = [name for name in names if name not in known and not self.segments(name)]
        count = self.backend.delete([name for name in names if name not in unknown]) if names else 0
        if unknown:
            raise ValueError(f"The index {self.path} has no file {unknown[0]!r}; by this path or address.")
        return count

    def compact(self) -> None:
        """Joins the small files of many writes, frees what was deleted, and makes the approximate index of a large one."""
        if self.backend.about() is not None:
            self.backend.compact()

    # --- Captions -----------------------------------------------------------------------------------------------------

    def caption(self, captions: Mapping[str, str | None]) -> None:
        """Stores captions of segments, by the ids of these; None removes one.

        Where the checkpoint has the alignment group a-tv or v-ta, their embeddings are stored, too, and take part where
        sound, or a video, is the query.
        """
        self._check_filled()
        model = self.model if self._unchecked.compares_captions else self._unchecked  # which needs no weights
        store_captions(self.backend, model, captions)

    def search_captions(self, words: str, top: int = 10, where: str | None = None) -> list[tuple[Segment, float]]:
        """Segments whose captions have some of the words, best first, with their BM25 score.

        Raises:
            ValueError: no segment has a caption, there are only words of grammar, or `where` is no condition.
        """
        self._check_filled()
        if all(word.lower() in STOP_WORDS for word in words.split()):
            raise ValueError(f"The query {words!r} has only words of grammar: name a thing, an action or a sound.")
        found = dict(self.backend.find_captions(words, top, where))
        return [(segment, found[segment.id]) for segment in self.backend.segments(list(found))]

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _read_about(self) -> dict[str, Any] | None:
        """What the index is; it may have been made again, by another model or version, since this one was opened."""
        about = self.backend.about()
        self._check_version(about)
        if "model" in vars(self):
            self._check_model(about)
        return about

    def _create(self, segmentation: Segmentation | None = None) -> None:
        if self._read_about() is None:
            self.backend.create(
                {
                    "version": FORMAT_VERSION,
                    "model": self.model.name,
                    "revision": self.model.revision,
                    "width": self.model.config.projection_dim,
                    "segmentation": None if segmentation is None else str(segmentation),
                }
            )

    def _check_filled(self) -> None:
        if self._read_about() is None:
            raise UnusableIndexError(f"There is no index at {self.path}, or not any more: add files first.")
        if self.backend.is_empty():
            raise UnusableIndexError(f"The index {self.path} is empty: add files first.")


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} was given; a whole number of at least 1 is accepted.")
