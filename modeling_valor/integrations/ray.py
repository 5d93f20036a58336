# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Videos into an index, or into captions, on many machines, with Ray Data.

Files go through a pool of readers, which need CPUs, and a pool of models, which may have GPUs. The index is written by the
process that calls [`index_videos`] alone, so that it also holds on object stores, where nobody can lock; captions are
written where they are made, and Ray's checkpoints say which are. Either way the same command goes on after a crash.

[`ValorReader`], [`ValorEmbedder`] and [`ValorCaptioner`] also make pipelines of one's own:

    files = ray.data.from_items([{"path": path} for path in paths])
    segments = files.map_batches(ValorReader, fn_constructor_args=("casia/valor-b",), batch_size=1, concurrency=(1, 64))
    rows = segments.map_batches(ValorEmbedder, fn_constructor_args=("casia/valor-b",), batch_size=16, num_gpus=1, concurrency=8)
"""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from transformers.utils import logging

from ..search import ValorIndex
from ..search.adding import AddReport, find_vanished, plan_additions, update_metadata
from ..search.segments import EmbeddedSegment, FileState, IndexedFile, Segment, SegmentTokens, covered_seconds
from ..search.sources import IndexItem, Metadata, Source, list_items, part_start
from .batches import CaptionRows, Columns, Row, Span, ValorCaptioner, ValorEmbedder, ValorReader, to_columns, to_rows
from .caption_folder import CaptionReport, caption_id, check_options, read_report, remove_changed


__all__ = ["CaptionReport", "ValorCaptioner", "ValorEmbedder", "ValorReader", "caption_videos", "index_videos"]

logger = logging.get_logger(__name__)

MODEL_CPUS = 0.25
SMALL_TASK_CPUS = 0.2  # of what lists and writes
LEAST_CPUS = 4  # a Ray that is started here counts so many, also on a smaller machine
MOST_BLOCKS = 100_000  # Ray keeps a record of each
SEGMENTS_PER_BLOCK = 64


def index_videos(
    sources: Source | Iterable[Source],
    index: str | os.PathLike[str],
    model: str,
    *,
    metadata: Metadata | None = None,
    readers: int | None = None,
    models: int = 1,
    num_gpus: float = 0.0,
    batch_size: int = 16,
    segments_per_write: int = 256,
    progress: bool = True,
    **reader_options: Any,
) -> AddReport:
    """Adds files to an index, on all machines of the Ray cluster.

    As with [`ValorIndex.add`], the same call again goes on after a crash and passes over what has not changed. A reader
    or model that is killed is started again by Ray, and what it had in work is done again; when this process is killed,
    what was not written yet is lost. Segments are never there twice. Files of which a segment failed are read
    again by the next call.

    Args:
        sources: files, folders, globs or addresses (`s3://bucket/**/*.mp4`), one or a list, the same for all machines.
        index: where the index is, as seen from this process: a folder, an object store, or `postgresql://...`.
        model: folder or Hub name of a checkpoint; all machines must have it under this name.
        metadata: as for [`ValorIndex.add`].
        readers: most processes that read and decode, of one CPU each; by default as many as there are CPUs left.
        models: processes that hold the model.
        num_gpus: GPUs of each of these; a fraction shares one.
        batch_size: segments that are embedded together.
        segments_per_write: segments that are written together.
        progress: show the progress bars of Ray Data.
        reader_options: `segment_seconds`, `stride`, `segments`, `modalities` and `num_frames` of [`ValorReader`].

    Returns:
        What was added, replaced, unchanged, vanished, and could not be read.

    Raises:
        ImportError: Ray is not installed.
        ValueError: the cluster has too little for this, or as [`ValorIndex.add`].
    """
    ray = _import_ray()
    model = _same_everywhere(model)
    segmentation = ValorReader(model, **reader_options).segmentation
    pool = _Pool(ray, readers, models, num_gpus)  # before the index: Ray forks, which LanceDB does not like
    store = ValorIndex(index, model=model, device="cpu")
    items, failures = list_items(_as_list(sources), metadata)
    report = AddReport(failures=failures)
    if items:
        store.add_segments([])  # makes the index
        plan = plan_additions(store.backend, items, segmentation, report)
        if metadata is not None:
            update_metadata(store.backend, plan, report)
        done = {plan.items[place].source: spans for place, spans in plan.done.items()}
        writer = _IndexWriter(store, plan.items, done, str(segmentation), report)
        if plan.items:
            with _data_context(ray, progress):
                files = _rows(ray, [_file_row(item, done) for item in plan.items])
                read = files.map_batches(
                    ValorReader, fn_constructor_args=(model,), fn_constructor_kwargs=reader_options, **pool.reader(1)
                )
                embedded = read.map_batches(
                    ValorEmbedder,
                    fn_constructor_args=(model,),
                    fn_constructor_kwargs={"batch_size": batch_size, **pool.device},
                    **pool.model(batch_size),
                )
                for batch in embedded.iter_batches(batch_size=segments_per_write, batch_format="numpy"):
                    writer.write(to_rows(batch))
        if report.segments or report.updated:
            store.compact()
    report.vanished = find_vanished(store.backend, _as_list(sources)) if store.backend.about() else []
    _warn_of(report.failures)
    return report


def caption_videos(
    sources: Source | Iterable[Source],
    folder: str | os.PathLike[str],
    model: str,
    *,
    readers: int | None = None,
    models: int = 1,
    num_gpus: float = 0.0,
    batch_size: int = 16,
    segments_per_file: int = 256,
    generate_kwargs: Mapping[str, Any] | None = None,
    progress: bool = True,
    **reader_options: Any,
) -> CaptionReport:
    """Captions files into Parquet, on all machines of the Ray cluster.

    The files are listed and cut first, without decoding (`FOLDER/plan`); then each segment is captioned and written
    (`FOLDER/captions`, columns `id`, `source`, `start`, `end`, `modalities`, `caption`, `error`). Ray's checkpoints
    (`FOLDER/checkpoint`) hold the ids of what is written, in two phases, so that the same call again, also after a
    crash and also with more files, writes what is missing and nothing twice. Until then a killed run may leave a file in
    `captions` that is not complete; the next call removes it. A segment with an error has a row too, and is not tried again.
    Captions of a file that has changed since, by size or time, are removed, and it is captioned anew; of an address (`s3://`) nobody
    knows. Captions of files that are not among the sources stay.

    Args:
        sources, model, readers, models, num_gpus, batch_size, progress, reader_options: as for [`index_videos`].
        folder: a folder that all machines see, or an address such as `s3://bucket/captions`.
        segments_per_file: rows of each Parquet file, at least, except of the last.
        generate_kwargs: arguments of `generate`, such as `num_beams`.

    Raises:
        ImportError: Ray is not installed.
        ValueError: the folder was made with other options, or the cluster has too little for this.
    """
    ray = _import_ray()
    import pyarrow as pa
    from ray.data.checkpoint import CheckpointConfig

    model = _same_everywhere(model)
    segmentation = ValorReader(model, **reader_options).segmentation
    address = os.fspath(folder) if "://" in os.fspath(folder) else os.path.abspath(folder)
    options = {"model": model, "segmentation": str(segmentation), "generate": dict(generate_kwargs or {})}
    check_options(address, options)
    items, failures = list_items(_as_list(sources))
    replaced: list[str] = []
    if items:
        pool = _Pool(ray, readers, models, num_gpus, reserved=2)  # Ray's listing and its checkpoints
        with _data_context(ray, progress):
            files = _rows(ray, [_plan_row(item) for item in items])
            spans = files.map_batches(
                _Planner, fn_constructor_args=(model,), fn_constructor_kwargs=reader_options, **pool.reader(16)
            )
            spans.write_parquet(
                f"{address}/plan", mode="overwrite", min_rows_per_file=16_384, ray_remote_args=pool.small
            )
        replaced = remove_changed(address)
        checkpoint = CheckpointConfig("id", f"{address}/checkpoint", delete_checkpoint_on_success=False)
        with _data_context(ray, progress, checkpoint):
            planned = ray.data.read_parquet(f"{address}/plan", **pool.small)
            planned = planned.repartition(target_num_rows_per_block=SEGMENTS_PER_BLOCK)
            read = planned.map_batches(
                ValorReader,
                fn_constructor_args=(model,),
                fn_constructor_kwargs=reader_options,
                **pool.reader(SEGMENTS_PER_BLOCK),
            )
            captioned = read.map_batches(
                CaptionRows,
                fn_constructor_args=(model,),
                fn_constructor_kwargs={
                    "batch_size": batch_size,
                    "generate_kwargs": generate_kwargs,
                    **pool.device,
                },
                **pool.model(batch_size),
            )
            text = [(name, pa.string()) for name in ("modalities", "caption", "error")]
            schema = pa.schema(
                [("id", pa.string()), ("source", pa.string()), ("start", pa.float64()), ("end", pa.float64()), *text]
            )
            captioned.write_parquet(
                f"{address}/captions",
                mode="append",
                min_rows_per_file=segments_per_file,
                ray_remote_args=pool.small,
                schema=schema,
            )
    report = read_report(address, replaced, failures)
    _warn_of(report.failures)
    return report


class _Planner(ValorReader):
    """Files to rows of their segments, without decoding."""

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[Columns]:
        for source, state in zip(map(str, batch["path"]), map(json.loads, batch["state"]), strict=True):
            rows = [{"path": source, **span} for span in self.spans(source)]
            yield to_columns(
                [{**row, "id": caption_id(source, row["start"], row["end"], FileState(*state))} for row in rows]
            )


class _IndexWriter:
    """Writes rows to an index as they come, and files once all of their rows have come."""

    def __init__(
        self,
        index: ValorIndex,
        items: Sequence[IndexItem],
        done: Mapping[str, set[Span]],
        segmentation: str,
        report: AddReport,
    ):
        self.index, self.segmentation, self.report = index, segmentation, report
        self.items = {item.source: item for item in items}
        self.embedded: dict[str, set[Span]] = {}
        for source, spans in done.items():
            begin = part_start(source)
            self.embedded[source] = {(begin + start, begin + end) for start, end in spans}
        self.new: dict[str, set[Span]] = {}
        self.missing: dict[str, int] = {}
        self.failed: set[str] = set()

    def write(self, rows: Sequence[Row]) -> None:
        segments, complete = [], []
        for row in rows:
            source = row["source"]
            if row["error"]:
                self.failed.add(source)
                name = f"{source}#t={row['start']:.2f},{row['end']:.2f}" if row["file_seconds"] else source
                self.report.failures[name] = row["error"]
            elif row["modalities"]:
                segments.append(self._segment(row))
                self.new.setdefault(source, set()).add((round(row["start"], 3), round(row["end"], 3)))
            self.missing[source] = self.missing.get(source, int(row["file_segments"])) - 1
            if not self.missing[source]:
                new = self.new.pop(source, set())
                self.report.seconds += covered_seconds(new)
                if source not in self.failed:
                    complete.append(self._file(source, self.embedded.pop(source, set()) | new))
        self.index.add_segments(segments, complete)
        self.report.segments += len(segments)
        self.report.added += [file.source for file in complete]

    def _segment(self, row: Row) -> EmbeddedSegment:
        item = self.items[row["source"]]
        segment = Segment(
            source=item.source,
            start=float(row["start"]),
            end=float(row["end"]),
            modalities=row["modalities"],
            state=item.state,
            revision=row["revision"],
            metadata=item.metadata,
        )
        tokens = SegmentTokens(row["token_modalities"], row["token_times"], row["token_weights"], row["token_embeds"])
        return EmbeddedSegment(segment, tokens)

    def _file(self, source: str, spans: set[Span]) -> IndexedFile:
        if not spans:
            self.report.failures[source] = "There is nothing in it to embed."
        seconds = covered_seconds(spans)
        return IndexedFile(source, self.items[source].state, self.segmentation, seconds, len(spans))


class _Pool:
    """What the readers and models of a run ask of the cluster.

    Args:
        reserved: CPUs that others of the run need.

    Raises:
        ValueError: the cluster has too little, so that Ray would wait for ever.
    """

    def __init__(self, ray: Any, readers: int | None, models: int, num_gpus: float, reserved: float = 0.0):
        if models < 1 or (readers is not None and readers < 1):
            raise ValueError(f"readers={readers} and models={models} were given; at least 1 of each is needed.")
        if not ray.is_initialized():
            ray.init(num_cpus=max(LEAST_CPUS, os.cpu_count() or 1), include_dashboard=False)
        resources = ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        needed = models * MODEL_CPUS + 2 * SMALL_TASK_CPUS + reserved
        if needed + SMALL_TASK_CPUS > cpus or models * num_gpus > gpus:
            raise ValueError(
                f"models={models} with {num_gpus:g} GPUs each and their readers need {models * num_gpus:g} GPUs and "
                f"{needed + SMALL_TASK_CPUS:g} CPUs at least; the Ray cluster has {gpus:g} and {cpus:g}."
            )
        spare = cpus - needed
        self.reader_cpus = min(1.0, spare)
        self.readers = max(1, min(readers or math.floor(spare), math.floor(spare)))
        self.models, self.num_gpus = models, num_gpus
        self.small = {"num_cpus": SMALL_TASK_CPUS}
        self.device = {} if num_gpus else {"device": "cpu"}
        self.strategy = ray.data.ActorPoolStrategy

    def reader(self, batch_size: int) -> dict[str, Any]:
        compute = self.strategy(min_size=1, max_size=self.readers)
        return {"compute": compute, "num_cpus": self.reader_cpus, "batch_size": batch_size}

    def model(self, batch_size: int) -> dict[str, Any]:
        return {
            "compute": self.strategy(size=self.models),
            "num_cpus": MODEL_CPUS,
            "num_gpus": self.num_gpus,
            "batch_size": batch_size,
        }


def _rows(ray: Any, rows: list[Row]) -> Any:
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))


def _file_row(item: IndexItem, done: Mapping[str, set[Span]]) -> Row:
    return {"path": item.source, "done": json.dumps(sorted(done.get(item.source, ())))}


def _plan_row(item: IndexItem) -> Row:
    return {"path": item.source, "state": json.dumps([item.state.size, item.state.modified])}


@contextlib.contextmanager
def _data_context(ray: Any, progress: bool, checkpoint: Any = None) -> Iterator[None]:
    """Settings of the datasets that are made within; those of the caller's own stay as they are."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.checkpoint_config
    context.enable_progress_bars, context.checkpoint_config = progress, checkpoint
    try:
        yield
    finally:
        context.enable_progress_bars, context.checkpoint_config = before


def _warn_of(failures: Mapping[str, str], most: int = 20) -> None:
    for name, reason in list(failures.items())[:most]:
        logger.warning(reason if name.partition("#t=")[0] in reason else f"{name}: {reason}")
    if len(failures) > most:
        logger.warning(f"{len(failures) - most} more could not be read; the report names them.")


def _as_list(sources: Source | Iterable[Source]) -> Any:
    return sources if isinstance(sources, (str, os.PathLike)) else list(sources)  # type: ignore[arg-type]


def _same_everywhere(model: str) -> str:
    return os.path.abspath(model) if os.path.isdir(model) else model


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("Many machines need Ray: `pip install modeling-valor[ray]` brings it.") from error
    return ray
