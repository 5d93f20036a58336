# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The folder that captions of many videos are written to: what it was made with, what of it is out of date, what it holds.

`plan` has a row for each segment of the files as they are now, `captions` for each that has a caption or an error, and
`checkpoint`, which Ray Data keeps, the ids of those that are certainly written.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..search.segments import FileState, Segment


@dataclass
class CaptionReport:
    """What is in a folder of captions.

    Args:
        segments: number of rows.
        replaced: files that had changed since they were captioned.
        failures: for each source, or segment of it, that has an error, one sentence.
    """

    segments: int = 0
    replaced: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        count = len(self.replaced)
        changed = (
            f", {count} file{' that has' if count == 1 else 's that have'} changed captioned anew" if count else ""
        )
        return f"{self.segments} segments, of which {len(self.failures)} could not be captioned{changed}."


def caption_id(source: str, start: float, end: float, state: FileState) -> str:
    """32 hex digits: the same as long as the file is the same by size and time."""
    name = f"{Segment(source, start, end).id} {state.size} {state.modified}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def check_options(address: str, options: Mapping[str, Any]) -> None:
    """Notes the options that a folder of captions is made with.

    Raises:
        ValueError: it was made with others.
    """
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(address)
    file = f"{path}/options.json"
    if system.get_file_info(file).is_file:
        with system.open_input_stream(file) as stream:
            before = json.loads(stream.read())
        if before != options:
            raise ValueError(f"{address} was made with {before}, not with {options}: use these, or another folder.")
        return
    system.create_dir(path, recursive=True)
    with system.open_output_stream(f"{file}.new") as stream:
        stream.write(json.dumps(options).encode())
    system.move(f"{file}.new", file)


def remove_changed(address: str) -> list[str]:
    """Removes captions of files of the plan that were made when these were others; returns the files.

    Rows whose ids are not planned any more go, and those that no checkpoint knows, which would be written again. It may
    be killed: the ids leave the checkpoint before the rows leave the captions, and the next call does the rest.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from pyarrow.dataset import dataset
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(address)
    written, pending = _written_files(system, path)
    if not written:
        return []
    files = [name for name in _parquet_files(system, f"{path}/checkpoint") if name not in pending]
    known = dataset(files, filesystem=system, schema=_ids()).to_table()["id"] if files else _ids().empty_table()["id"]
    plan = dataset(f"{path}/plan", format="parquet", filesystem=system).to_table(["path", "id"])
    current = pc.filter(plan["id"], pc.is_in(plan["id"], known))
    stale, sources = [], set()
    for file in written:
        rows = pq.read_table(file, columns=["id", "source"], filesystem=system)
        is_stale = pc.and_not(pc.is_in(rows["source"], plan["path"]), pc.is_in(rows["id"], current))
        stale += rows["id"].filter(is_stale).to_pylist()
        sources |= set(rows["source"].filter(is_stale).to_pylist())
    for file in [*files, *written] if stale else []:
        _remove_rows(system, path, file, stale)
    return sorted(sources)


def _ids() -> Any:
    import pyarrow as pa

    return pa.schema([("id", pa.string())])


def _parquet_files(system: Any, folder: str) -> list[str]:
    from pyarrow.fs import FileSelector

    found = system.get_file_info(FileSelector(folder, allow_not_found=True))
    return [file.path for file in found if file.path.endswith(".parquet")]


def _written_files(system: Any, path: str) -> tuple[list[str], list[str]]:
    """The files of captions that are complete, and the checkpoints of those that may not be, which Ray removes."""
    ending = ".pending.parquet"
    pending = [name for name in _parquet_files(system, f"{path}/checkpoint") if name.endswith(ending)]
    begun = tuple(os.path.basename(name).removesuffix(ending) for name in pending)
    written = _parquet_files(system, f"{path}/captions")
    return [name for name in written if not os.path.basename(name).startswith(begun)], pending


def _remove_rows(system: Any, path: str, file: str, ids: list[str]) -> None:
    """Replaces a file by one without the rows of these ids, or by none."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(file, filesystem=system)
    kept = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(ids, pa.string()))))
    if not len(kept):
        system.delete_file(file)
    elif len(kept) < len(rows):
        pq.write_table(kept, f"{path}/replacement.parquet", filesystem=system)
        system.move(f"{path}/replacement.parquet", file)


def read_report(address: str, replaced: list[str], failures: Mapping[str, str]) -> CaptionReport:
    """What is in the folder, with `failures` of sources that stand for no file."""
    import pyarrow.compute as pc
    from pyarrow.dataset import dataset
    from pyarrow.fs import FileSystem, FileType

    system, path = FileSystem.from_uri(f"{address}/captions")
    report = CaptionReport(replaced=replaced, failures=dict(failures))
    if system.get_file_info(path).type != FileType.Directory:
        return report
    rows = dataset(path, format="parquet", filesystem=system)
    report.segments = rows.count_rows()
    for row in rows.to_table(["source", "start", "end", "error"], filter=pc.field("error") != "").to_pylist():
        name = f"{row['source']}#t={row['start']:.2f},{row['end']:.2f}" if row["end"] else row["source"]
        report.failures[name] = row["error"]
    return report
