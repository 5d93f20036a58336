# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The formats in which the benchmarks' authors distribute their annotations, one function each."""

import html
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ...samples import Question
from ..records import short
from ..text_files import parse_json, read_json, read_lines
from .rows import Row, read_ids, read_rows, without_suffix


@dataclass(frozen=True)
class Entry:
    """One annotation of a sample; a sample may have many.

    Args:
        id: of the sample.
        names: possible names of its media files, without suffix, the most likely first.
        captions, questions: as in a sample.
        subfolders: folders that may have its media files, relative to any folder of media.
    """

    id: str
    names: tuple[str, ...]
    captions: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    subfolders: tuple[str, ...] = ()


Files: TypeAlias = Mapping[str, list[Path]]
"""Paths of a split's annotations, by part: "annotations", and what else the format has."""

Reader: TypeAlias = Callable[[Files], Iterator[Entry]]


def rows_of(entry: Callable[[Row], Entry | None], *keys: str, delimiter: str = ",") -> Reader:
    """A reader of formats that have one entry in each row, or none (`None`) in some."""

    def read(files: Files) -> Iterator[Entry]:
        for path in files["annotations"]:
            entries = (entry(row) for row in read_rows(path, *keys, delimiter=delimiter))
            yield from (found for found in entries if found is not None)

    return read


# ---------------------------------------------------------------------------------------------------------------------
# Captions
# ---------------------------------------------------------------------------------------------------------------------


def valor32k(row: Row) -> Entry:
    """`{"video_id": "x-2Abohj8VY_30.000_40.000", "desc": "..."}`: a YouTube video, and the start and end of the part."""
    sample_id = row.text("video_id")
    cut = re.fullmatch(r"(.+)_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)", sample_id)
    if cut is None:
        raise ValueError(f"{row.place}: 'video_id' must be a video, a start and an end, got {sample_id!r}.")
    video, start, end = cut[1], float(cut[2]), float(cut[3])
    return Entry(sample_id, _names_of_cut(video, start, end, sample_id), row.texts("desc"))


def audiocaps(row: Row) -> Entry:
    """`audiocap_id,youtube_id,start_time,caption`: ten seconds from a start; one line for each caption.

    The sample's id is `youtube_id` and `start_time`, joined by "_".
    """
    video, start = row.text("youtube_id"), row.number("start_time")
    sample_id = f"{video}_{start}"
    names = (*_names_of_cut(video, start, start + 10, sample_id), f"Y{video}", row.text("audiocap_id"))
    return Entry(sample_id, names, (row.text("caption"),))


def _names_of_cut(video: str, start: float, end: float, *likeliest: str) -> tuple[str, ...]:
    """File names that programs give to a part that they cut from a YouTube video."""
    times = (
        f"{start:.3f}_{end:.3f}",
        f"{start:g}_{end:g}",
        f"{start * 1000:.0f}_{end * 1000:.0f}",
        f"{start:06.0f}_{end:06.0f}",
        f"{start:06.0f}",
        f"{start:g}",
    )
    # dict: several ways to write the times may be one
    return tuple(dict.fromkeys((*likeliest, *(f"{video}_{time}" for time in times), video)))


def clotho(row: Row) -> Entry:
    """`file_name,caption_1,...,caption_5`. Names of files come with and without HTML's escapes ("&amp;", "&#39;")."""
    name = without_suffix(row.text("file_name"))
    plain = html.unescape(name)
    names = tuple(dict.fromkeys((name, plain, name.strip(), plain.strip())))
    return Entry(name, names, tuple(row.text(f"caption_{number}") for number in range(1, 6)))


def msrvtt(numbers: range | None = None) -> Reader:
    """`{"sentences": [{"video_id": "video0", "caption": "..."}], "videos": [...]}`.

    Args:
        numbers: of the videos wanted; None: all. The official split is one by number.
    """

    def entry(row: Row) -> Entry | None:
        sample_id = row.text("video_id")
        if not re.fullmatch(r"video\d+", sample_id):
            raise ValueError(f"{row.place}: 'video_id' must be 'video' and a number, got {sample_id!r}.")
        if numbers is not None and int(sample_id[5:]) not in numbers:
            return None
        return Entry(sample_id, (sample_id,), (row.text("caption"),))

    return rows_of(entry, "sentences")


def msrvtt_1k(row: Row) -> Entry:
    """`key,vid_key,video_id,sentence`: the 1,000 pairs of JSFusion, one sentence for each video."""
    sample_id = row.text("video_id")
    return Entry(sample_id, (sample_id,), (row.text("sentence"),))


MSVD_SPLITS = {"train": (0, 1200), "val": (1200, 1300), "test": (1300, 1970)}
"""The usual split of MSVD is by place in the order of ids: 1,200, 100 and 670 videos."""


def msvd(split: str) -> Reader:
    """`{id: [captions]}`, or the authors' text file of lines with an id and a caption, "#" in front of remarks.

    Where there are no lists of ids, the file must have all 1,970 videos. Media may be named by number ("vid1"), too.
    """
    first, end = MSVD_SPLITS[split]

    def read(files: Files) -> Iterator[Entry]:
        (path,) = files["annotations"]
        captions = _msvd_captions(path)
        sample_ids = sorted(captions)
        numbers = _msvd_numbers(files)
        if not numbers and len(sample_ids) == 1970:  # `youtube_mapping.txt` numbers them in this order
            numbers = {sample_id: (f"vid{number}",) for number, sample_id in enumerate(sample_ids, start=1)}
        if "ids" not in files:
            if len(sample_ids) != 1970:
                raise ValueError(
                    f"{path} has captions of {len(sample_ids)} videos instead of 1,970, so their order does not "
                    f"determine the split: put a list {split}_list.txt in the same folder."
                )
            sample_ids = sample_ids[first:end]
        for sample_id in sample_ids:
            yield Entry(sample_id, (sample_id, *numbers.get(sample_id, ())), tuple(captions[sample_id]))

    return read


def _msvd_captions(path: Path) -> dict[str, list[str]]:
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold an object of ids with their captions.")
        return {sample_id: list(Row(content, str(path)).texts(sample_id)) for sample_id in content}
    captions: dict[str, list[str]] = {}
    for number, line in read_lines(path):
        if not line.startswith("#"):
            sample_id, _, caption = line.partition(" ")
            if not caption.strip():
                raise ValueError(
                    f"{path}, line {number}: there must be an id, a space and a caption, got {line!r:.80}."
                )
            captions.setdefault(sample_id, []).append(caption.strip())
    return captions


def _msvd_numbers(files: Files) -> dict[str, tuple[str, ...]]:
    """Numbers ("vid1") of the videos, if `youtube_mapping.txt` exists."""
    numbers: dict[str, tuple[str, ...]] = {}
    for path in files.get("mapping", ()):
        for line_number, line in read_lines(path):
            fields = line.split()
            if len(fields) != 2 or not re.fullmatch(r"vid\d+", fields[1]):
                raise ValueError(
                    f"{path}, line {line_number}: there must be an id and 'vid' with a number, got {line!r:.80}."
                )
            numbers[fields[0]] = (fields[1],)
    return numbers


def vatex(row: Row) -> Entry:
    """`{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": [...], "chCap": [...]}`; Chinese captions are left out."""
    sample_id = row.text("videoID")
    video = re.sub(r"_\d{6}_\d{6}$", "", sample_id)
    return Entry(sample_id, tuple(dict.fromkeys((sample_id, video))), row.texts("enCap"))


def didemo(row: Row) -> Entry:
    """`{"video": "54322086@N00_2408598493_274c77d26a.avi", "description": "...", "times": [[2, 2], ...], ...}`.

    The sample's id is the name without its suffix; files from the authors' own download have two of them.
    """
    video = row.text("video")
    sample_id = without_suffix(video)
    return Entry(sample_id, tuple(dict.fromkeys((sample_id, video))), (row.text("description"),))


def activitynet(row: Row) -> Entry:
    """`{"v_QOlSCBRmfWY": {"duration": 82.7, "timestamps": [[0.8, 19.9], ...], "sentences": [...]}}`."""
    sample_id = row.text("key")
    return Entry(sample_id, (sample_id, sample_id.removeprefix("v_")), row.texts("sentences"))


LSMDC_COLUMNS = ("clip_id", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")


def lsmdc(files: Files) -> Iterator[Entry]:
    """Six columns with tabs between them and no header. Videos are in one folder for each movie, or all in one folder."""
    for path in files["annotations"]:
        for row in read_rows(path, columns=LSMDC_COLUMNS, delimiter="\t"):
            sample_id = row.text("clip_id")
            movie = re.sub(r"_\d\d\.\d\d\.\d\d\.\d{3}-\d\d\.\d\d\.\d\d\.\d{3}$", "", sample_id)
            yield Entry(sample_id, (sample_id,), (row.text("sentence").strip(),), subfolders=(movie,))


def coco(*parts: str) -> Reader:
    """Karpathy's `{"images": [{"filename": "COCO_val2014_000000391895.jpg", "split": "test", "sentences": [{"raw": ...}]}]}`.

    Args:
        parts: its names for what is wanted; what most call training is "train" and "restval".
    """

    def entry(row: Row) -> Entry | None:
        if row.text("split") not in parts:
            return None
        name = without_suffix(row.text("filename"))
        captions = (str(sentence.value("raw")).strip() for sentence in row.within("sentences"))
        return Entry(name, (name, name.rpartition("_")[2]), tuple(filter(None, captions)))

    return rows_of(entry, "images")


# ---------------------------------------------------------------------------------------------------------------------
# Questions
# ---------------------------------------------------------------------------------------------------------------------

VIDEO_QUESTION_TYPES = ("what", "who", "how", "when", "where")
"""The five kinds of questions of MSVD-QA and MSRVTT-QA, which are their first words."""


def msrvtt_qa(row: Row) -> Entry:
    """`{"id": 158581, "video_id": 6513, "question": "...", "answer": "...", ...}`; also `"video_id": "video6513"`."""
    sample_id = str(row.value("video_id"))
    sample_id = f"video{sample_id}" if sample_id.isdecimal() else sample_id
    return Entry(sample_id, (sample_id,), questions=(_video_question(row),))


def msvd_qa(files: Files) -> Iterator[Entry]:
    """As MSRVTT-QA, but the numbers are those of `youtube_mapping.txt`.

    If that file exists, samples have the ids of MSVD; otherwise they are called "vid1" and so on.
    """
    sample_ids = {number: sample_id for sample_id, (number,) in _msvd_numbers(files).items()}
    for path in files["annotations"]:
        for row in read_rows(path):
            number = str(row.value("video_id"))
            number = f"vid{number}" if number.isdecimal() else number
            if sample_ids and number not in sample_ids and number not in sample_ids.values():
                raise ValueError(f"{row.place}: {number} is not in {files['mapping'][0]}.")
            sample_id = sample_ids.get(number, number)
            yield Entry(sample_id, tuple(dict.fromkeys((sample_id, number))), questions=(_video_question(row),))


def _video_question(row: Row) -> Question:
    text = row.text("question")
    kind = row.values.get("answer_type", text.split()[0].lower())
    name = row.values.get("id")
    return Question(
        text,
        (row.text("answer"),),
        kind if kind in VIDEO_QUESTION_TYPES else None,
        None if name is None else str(name),
    )


ACTIVITYNET_QA_TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
"""What the numbers of ActivityNet-QA's `type` mean; from "yes/no" on they are kinds of answers to free questions."""


def activitynet_qa(files: Files) -> Iterator[Entry]:
    """`[{"video_name": "1QIUV7WYKXg", "question": "...", "question_id": "v_1QIUV7WYKXg_3"}]` and, in another file,
    `[{"question_id": "v_1QIUV7WYKXg_3", "answer": "no", "type": 3}]`.
    """
    answers = {row.text("question_id"): row for path in files["answers"] for row in read_rows(path)}
    for path in files["annotations"]:
        for row in read_rows(path):
            name, sample_id = row.text("question_id"), row.text("video_name")
            if name not in answers:
                raise ValueError(f"{row.place}: the question {name} has no answer in {files['answers'][0]}.")
            answer = answers[name]
            kind = _named(answer, "type", ACTIVITYNET_QA_TYPES)
            question = Question(row.text("question").strip(), (answer.text("answer"),), kind, name)
            yield Entry(sample_id, (f"v_{sample_id}", sample_id), questions=(question,))


TGIF_FRAME_TYPES = ("object", "number", "color", "location")
"""What the numbers of FrameQA's `type` mean."""


def tgif_frame(row: Row) -> Entry:
    """`gif_name`, `question`, `answer`, `type`, `vid_id`, `key`, `description`, with tabs between them.

    The number of a question stands under `vid_id`.
    """
    sample_id = row.text("gif_name")
    kind = _named(row, "type", TGIF_FRAME_TYPES)
    return Entry(
        sample_id,
        (sample_id,),
        questions=(Question(row.text("question"), (row.text("answer"),), kind, row.text("vid_id")),),
    )


def _named(row: Row, column: str, names: tuple[str, ...]) -> str:
    number = row.number(column)
    if not 0 <= number < len(names):
        raise ValueError(f"{row.place}: {column!r} must be from 0 to {len(names) - 1}, got {number}.")
    return names[number]


def music_avqa(row: Row) -> Entry | None:
    r"""`{"video_id": "00000093", "question_id": 12, "type": "[\"Audio\", \"Counting\"]", "question_content": "Is the
    <Object> louder than the <Object>?", "templ_values": "[\"violin\", \"piano\"]", "anser": "yes", ...}`.

    Templates are filled in, and names such as "acoustic_guitar" become words, in answers, too. A question's type is
    "Audio/Counting". Questions that are marked as deleted are left out.
    """
    if row.values.get("question_deleted"):
        return None
    first, *pieces = re.split(r"<\w+>", row.text("question_content"))
    values = _packed(row, "templ_values")
    if len(values) != len(pieces):
        raise ValueError(
            f"{row.place}: 'templ_values' has {len(values)} values for {len(pieces)} places in the question."
        )
    text = first + "".join(_words(value) + piece for value, piece in zip(values, pieces, strict=True))
    sample_id, kind = row.text("video_id"), "/".join(_packed(row, "type"))
    question = Question(text, (_words(row.text("anser", "answer")),), kind or None, row.text("question_id"))
    return Entry(sample_id, (sample_id,), questions=(question,))


def _packed(row: Row, column: str) -> list[str]:
    """A list that is written as JSON in a text."""
    packed = row.value(column)
    try:
        values = parse_json(packed, row.place) if isinstance(packed, str) else packed
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{row.place}: {column!r} must be a list of texts written as JSON, got {short(packed)}.")
    return values


def _words(name: str) -> str:
    return name.replace("_", " ")


def vqav2(files: Files) -> Iterator[Entry]:
    """`{"questions": [{"image_id": 458752, "question": "...", "question_id": 458752000}], "data_subtype": "train2014"}`
    and `{"annotations": [{"question_id": 458752000, "answer_type": "other", "answers": [{"answer": "net"}, ...]}]}`.

    All ten answers are kept, in their order; questions of the test splits have none. A sample is an image and is called
    by its file's name, such as "COCO_train2014_000000458752".
    """
    # Interned, as four million answers are mostly the same few words
    answers = {
        row.number("question_id"): (
            tuple(sys.intern(str(answer.value("answer"))) for answer in row.within("answers")),
            sys.intern(row.text("answer_type")),
        )
        for path in files.get("answers", ())
        for row in read_rows(path, "annotations")
    }
    for path in files["annotations"]:
        content = read_json(path)
        part = Row(content if isinstance(content, dict) else {}, str(path))
        folder = part.text("data_subtype").replace("test-dev", "test")
        for row in part.within("questions"):
            number = row.number("question_id")
            if answers and number not in answers:
                raise ValueError(f"{row.place}: the question {number} has no answers in the file of answers.")
            given, kind = answers.get(number, ((), None))
            image = f"{row.number('image_id'):012d}"
            question = Question(row.text("question"), given, kind, str(number))
            yield Entry(f"COCO_{folder}_{image}", (f"COCO_{folder}_{image}", image), questions=(question,))


def only(ids: list[str], entries: Iterator[Entry], complete: bool, place: str) -> Iterator[Entry]:
    """The entries of these samples, in the order of the ids.

    Raises:
        ValueError: `complete`, and there is none for an id.
    """
    found: dict[str, list[Entry]] = {name: [] for name in ids}
    for entry in entries:
        if entry.id in found:
            found[entry.id].append(entry)
    lacking = [name for name, own in found.items() if not own]
    if lacking and complete:
        raise ValueError(
            f"{place}: {len(lacking)} of {len(found)} samples have no annotations, such as {lacking[0]!r}."
        )
    for own in found.values():
        yield from own


def selected(read: Reader, complete: bool = True) -> Reader:
    """A reader that takes only the samples of the part "ids", where the split has one.

    Args:
        complete: a sample of the list without annotations is an error.
    """

    def read_selected(files: Files) -> Iterator[Entry]:
        if "ids" not in files:
            return read(files)
        (path,) = files["ids"]
        return only(read_ids(path), read(files), complete, str(path))

    return read_selected
