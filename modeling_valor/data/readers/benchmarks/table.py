# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The paper's benchmarks: what each is for, its splits and their files, and VALOR's settings on it (section 5.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from . import formats
from .formats import Reader, rows_of, selected
from .places import AnnotationFiles


@dataclass(frozen=True)
class Settings:
    """How VALOR is fine-tuned and evaluated for one task of a benchmark.

    The paper names tasks, metrics, beam sizes and the resolution of images (sections 5.1.2 and 5.2.3) and leaves the rest
    to "task-specific" choices; those here are the 2023 release's, whose scripts come before its configuration files.

    Args:
        train_split, test_split: parts of the benchmark.
        groups: modality groups that are trained and evaluated; the first is the one of the paper's tables.
        num_frames, num_audio_clips: of each sample in evaluation. None: the modality is not used.
        train_num_frames, train_num_audio_clips: of each sample in training.
        max_length: tokens of a caption or of an answer, [CLS] and [SEP] included.
        max_question_length: the same of a question.
        num_beams: width of the search that writes captions or answers.
        resolution: side of a frame in pixels.
        crop: frames keep their proportions, of which a square is cut out (and mirrored in training); otherwise they
            are squeezed into a square.
        learning_rate, epochs, batch_size: of fine-tuning; an epoch has each sample once, with one of its texts.
    """

    train_split: str
    test_split: str
    groups: tuple[str, ...]
    num_frames: int | None
    num_audio_clips: int | None
    train_num_frames: int | None
    train_num_audio_clips: int | None
    learning_rate: float
    epochs: int
    batch_size: int = 64
    max_length: int = 32
    max_question_length: int | None = None
    num_beams: int = 1
    resolution: int = 224
    crop: bool = False


@dataclass(frozen=True)
class Split:
    """A part of a benchmark.

    Args:
        files: its annotation files, by part.
        read: reads them.
    """

    files: Mapping[str, AnnotationFiles]
    read: Reader


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark.

    Args:
        title: its name in the paper.
        media: what a sample is. The audio of a "video" is an audio file or the audio track of the video; "audio" is an audio
            file or the audio track of a video.
        source: where the annotations come from.
        splits: its parts, by name.
        settings: VALOR's, by task: "retrieval", "captioning" or "question_answering".
        paragraph: all captions of a sample are joined into one (section 5.1.2).
    """

    title: str
    media: Literal["video", "image", "audio"]
    source: str
    splits: Mapping[str, Split]
    settings: Mapping[str, Settings] = field(default_factory=dict)
    paragraph: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the paper evaluates on it."""
        return tuple(self.settings)


def _files(*alternatives: str | tuple[str, ...], required: bool = True) -> AnnotationFiles:
    """File names, any of which will do; a tuple of names is needed as a whole."""
    return AnnotationFiles(tuple((names,) if isinstance(names, str) else names for names in alternatives), required)


def _split(read: Reader, *names: str, **more: AnnotationFiles) -> Split:
    return Split({"annotations": _files(*names), **more}, read)


def _splits(read: Reader, *names: str, splits: tuple[str, ...] = ("train", "val", "test")) -> dict[str, Split]:
    """Splits whose files are called alike: "{}" in a name stands for the split's."""
    return {split: _split(read, *(name.format(split) for name in names)) for split in splits}


def _settings(
    train: str,
    test: str,
    groups: str,
    frames: tuple[int, int] | None,
    audio_clips: tuple[int, int] | None,
    learning_rate: float,
    epochs: int,
    **more: Any,
) -> Settings:
    """`frames` and `audio_clips` are pairs: the number in training and the number in evaluation."""
    return Settings(
        train,
        test,
        tuple(groups.split()),
        frames and frames[1],
        audio_clips and audio_clips[1],
        frames and frames[0],
        audio_clips and audio_clips[0],
        learning_rate,
        epochs,
        **more,
    )


def _captioning(*arguments: Any, **more: Any) -> Settings:
    """Beam search of width 3 (section 5.1.2)."""
    return _settings(*arguments, num_beams=3, **more)


def _answering(*arguments: Any, **more: Any) -> Settings:
    """Greedy search (section 5.1.2); the 2023 code cuts questions to 30 tokens and answers to 5."""
    return _settings(*arguments, max_length=7, max_question_length=32, **more)


_MSRVTT_FILES = {
    "train": _files("MSRVTT_data.json", "train_val_videodatainfo.json"),
    "test": _files("MSRVTT_data.json", "test_videodatainfo.json"),
    "all": _files("MSRVTT_data.json", ("train_val_videodatainfo.json", "test_videodatainfo.json")),
}


def _msrvtt_list(file: str, captions: str) -> Split:
    return Split({"annotations": _MSRVTT_FILES[captions], "ids": _files(file)}, selected(formats.msrvtt()))


def _msvd_split(split: str) -> Split:
    return _split(
        selected(formats.msvd(split)),
        "captions_msvd.json",
        "AllVideoDescriptions.txt",
        ids=_files(f"{split}_list.txt", required=False),
        mapping=_files("youtube_mapping.txt", required=False),
    )


def _vatex_1k5(split: str) -> Split:
    return _split(
        selected(rows_of(formats.vatex)),
        "vatex_validation_v1.0.json",
        ids=_files(f"{split}_id_ret.json", f"{split}_list.txt"),
    )


def _vqav2_split(*parts: str, answered: bool = True) -> Split:
    files = {"annotations": _files(tuple(f"v2_OpenEnded_mscoco_{part}_questions.json" for part in parts))}
    if answered:
        files["answers"] = _files(tuple(f"v2_mscoco_{part}_annotations.json" for part in parts))
    return Split(files, formats.vqav2)


BENCHMARKS: dict[str, Benchmark] = {
    "valor32k": Benchmark(
        "VALOR-32K",
        "video",
        "https://casia-iva-group.github.io/projects/VALOR/download.html",
        _splits(rows_of(formats.valor32k), "desc_{}.json"),
        {
            "retrieval": _settings("train", "test", "t-av", (4, 8), (2, 2), 2e-5, 10),
            "captioning": _captioning("train", "test", "t-av t-v t-a", (4, 8), (2, 2), 2e-5, 10),
        },
    ),
    "msrvtt": Benchmark(
        "MSR-VTT",
        "video",
        "the authors' release (train_val_videodatainfo.json, test_videodatainfo.json) or, with the lists of the 7k, 9k and "
        "1k splits, https://github.com/ArrowLuo/CLIP4Clip",
        {
            "train": Split({"annotations": _MSRVTT_FILES["train"]}, formats.msrvtt(range(6513))),
            "val": Split({"annotations": _MSRVTT_FILES["train"]}, formats.msrvtt(range(6513, 7010))),
            "test": Split({"annotations": _MSRVTT_FILES["test"]}, formats.msrvtt(range(7010, 10000))),
            "train_7k": _msrvtt_list("MSRVTT_train.7k.csv", "train"),
            "train_9k": _msrvtt_list("MSRVTT_train.9k.csv", "all"),
            "test_1k": _split(rows_of(formats.msrvtt_1k), "MSRVTT_JSFUSION_test.csv"),
        },
        {
            "retrieval": _settings("train_9k", "test_1k", "t-av t-v", (4, 8), (2, 2), 2e-5, 70, crop=True),
            "captioning": _captioning("train", "test", "t-av t-v", (6, 10), (2, 2), 9e-6, 100, crop=True),
        },
    ),
    "msvd": Benchmark(
        "MSVD",
        "video",
        "https://www.cs.utexas.edu/users/ml/clamp/videoDescription/ (AllVideoDescriptions.txt) or "
        "https://github.com/layer6ai-labs/xpool (data/MSVD)",
        {split: _msvd_split(split) for split in formats.MSVD_SPLITS},
        {
            "retrieval": _settings("train", "test", "t-v", (4, 8), None, 2e-5, 140),
            "captioning": _captioning("train", "test", "t-v", (8, 12), None, 9e-6, 100, crop=True),
        },
    ),
    "vatex": Benchmark(
        "VATEX",
        "video",
        "https://eric-xw.github.io/vatex-website/download.html, and the lists of the 1,500 videos each for validation and "
        "test of retrieval from https://github.com/cshizhe/hgr_v2t, as text or JSON",
        {
            "train": _split(rows_of(formats.vatex), "vatex_training_v1.0.json"),
            "val": _split(rows_of(formats.vatex), "vatex_validation_v1.0.json"),
            "test": _split(rows_of(formats.vatex), "vatex_public_test_english_v1.1.json"),
            "val_1k5": _vatex_1k5("val"),
            "test_1k5": _vatex_1k5("test"),
        },
        {
            "retrieval": _settings("train", "test_1k5", "t-av t-v", (4, 8), (2, 2), 2e-5, 50),
            "captioning": _captioning("train", "test", "t-av t-v", (8, 20), (2, 2), 2e-5, 100),
        },
    ),
    "didemo": Benchmark(
        "DiDeMo",
        "video",
        "https://github.com/LisaAnne/LocalizingMoments (data/)",
        {
            split: _split(
                selected(rows_of(formats.didemo), complete=False),
                f"{split}_data.json",
                ids=_files(f"{split}_list.txt", required=False),
            )
            for split in ("train", "val", "test")
        },
        {"retrieval": _settings("train", "test", "t-av t-v", (8, 32), (4, 8), 9e-6, 30, max_length=67)},
        paragraph=True,
    ),
    "activitynet": Benchmark(
        "ActivityNet Captions",
        "video",
        "https://cs.stanford.edu/people/ranjaykrishna/densevid/ (captions.zip)",
        _splits(rows_of(formats.activitynet), "{}.json", splits=("train", "val_1", "val_2")),
        {"retrieval": _settings("train", "val_1", "t-av t-v", (8, 32), (4, 8), 2e-5, 40, max_length=76)},
        paragraph=True,
    ),
    "lsmdc": Benchmark(
        "LSMDC",
        "video",
        "https://sites.google.com/site/describingmovies/download (LSMDC 2016)",
        {
            "train": _split(formats.lsmdc, "LSMDC16_annos_training.csv"),
            "val": _split(formats.lsmdc, "LSMDC16_annos_val.csv"),
            "test": _split(formats.lsmdc, "LSMDC16_challenge_1000_publictect.csv"),
        },
        {"retrieval": _settings("train", "test", "t-av t-v", (4, 8), (2, 2), 2e-5, 5)},
    ),
    "coco": Benchmark(
        "MSCOCO",
        "image",
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip (dataset_coco.json)",
        {
            "train": _split(formats.coco("train", "restval"), "dataset_coco.json"),
            "val": _split(formats.coco("val"), "dataset_coco.json"),
            "test": _split(formats.coco("test"), "dataset_coco.json"),
        },
        {
            "retrieval": _settings("train", "test", "t-v", (1, 1), None, 2e-5, 75, batch_size=1024, resolution=392),
            "captioning": _captioning("train", "test", "t-v", (1, 1), None, 5e-6, 25, resolution=392),
        },
    ),
    "audiocaps": Benchmark(
        "AudioCaps",
        "audio",
        "https://github.com/cdjkim/audiocaps (dataset/)",
        _splits(rows_of(formats.audiocaps), "{}.csv"),
        {
            "retrieval": _settings("train", "test", "t-a", None, (2, 2), 2e-5, 10),
            "captioning": _captioning("train", "test", "t-a", None, (2, 2), 2e-5, 10),
        },
    ),
    "clotho": Benchmark(
        "Clotho",
        "audio",
        "https://zenodo.org/record/3490684 (version 1, as in the paper, which has no validation split) or "
        "https://zenodo.org/record/4783391",
        {
            "train": _split(rows_of(formats.clotho), "clotho_captions_development.csv", "train.csv"),
            "val": _split(rows_of(formats.clotho), "clotho_captions_validation.csv", "val.csv"),
            "test": _split(rows_of(formats.clotho), "clotho_captions_evaluation.csv", "test.csv"),
        },
        {
            "retrieval": _settings("train", "test", "t-a", None, (6, 6), 2e-5, 45),
            "captioning": _captioning("train", "test", "t-a", None, (6, 6), 2e-5, 50),
        },
    ),
    "msvd_qa": Benchmark(
        "MSVD-QA",
        "video",
        "https://github.com/xudejing/video-question-answering (MSVD-QA, with youtube_mapping.txt)",
        {
            split: _split(
                formats.msvd_qa,
                f"{split}_qa.json",
                f"{split}.jsonl",
                mapping=_files("youtube_mapping.txt", required=False),
            )
            for split in ("train", "val", "test")
        },
        {"question_answering": _answering("train", "test", "t-v", (4, 8), None, 1e-5, 250)},
    ),
    "msrvtt_qa": Benchmark(
        "MSRVTT-QA",
        "video",
        "https://github.com/xudejing/video-question-answering (MSRVTT-QA)",
        _splits(rows_of(formats.msrvtt_qa), "{}_qa.json", "{}.jsonl"),
        {"question_answering": _answering("train", "test", "t-av t-v", (4, 8), (2, 2), 2e-5, 100, crop=True)},
    ),
    "activitynet_qa": Benchmark(
        "ActivityNet-QA",
        "video",
        "https://github.com/MILVLG/activitynet-qa (dataset/)",
        {
            split: _split(formats.activitynet_qa, f"{split}_q.json", answers=_files(f"{split}_a.json"))
            for split in ("train", "val", "test")
        },
        {"question_answering": _answering("train", "test", "t-v", (8, 16), (4, 8), 2e-5, 100)},
    ),
    "tgif_frame": Benchmark(
        "TGIF-FrameQA",
        "video",
        "https://github.com/YunseokJANG/tgif-qa (dataset/)",
        {
            split: _split(rows_of(formats.tgif_frame, delimiter="\t"), f"{split.title()}_frameqa_question.csv")
            for split in ("train", "test")
        },
        {"question_answering": _answering("train", "test", "t-v", (4, 8), None, 2e-5, 10)},
    ),
    "music_avqa": Benchmark(
        "MUSIC-AVQA",
        "video",
        "https://github.com/GeWu-Lab/MUSIC-AVQA (data/json_update/)",
        _splits(rows_of(formats.music_avqa), "avqa-{}.json"),
        {"question_answering": _answering("train", "test", "t-av t-v", (4, 8), (4, 8), 2e-5, 25)},
    ),
    "vqav2": Benchmark(
        "VQAv2",
        "image",
        "https://visualqa.org/download.html",
        {
            "train": _vqav2_split("train2014"),
            "val": _vqav2_split("val2014"),
            "trainval": _vqav2_split("train2014", "val2014"),
            "test": _vqav2_split("test2015", answered=False),
            "test-dev": _vqav2_split("test-dev2015", answered=False),
        },
        {
            "question_answering": _answering(
                "trainval", "test", "t-v", (1, 1), None, 2e-5, 200, batch_size=256, resolution=392
            )
        },
    ),
}
"""The paper's benchmarks, by the names that `load_benchmark` takes."""
