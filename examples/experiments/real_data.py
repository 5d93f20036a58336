# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Small labelled sets of real sounds and images: tar files and manifests to folders that `load_samples` reads.

The data is named by the user and is no part of this repository. Each set is `{set}.tar` with `{set}_manifest.jsonl`, a
line of JSON for each file with its name in the archive, split, and label and caption, or captions.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from modeling_valor import ValorProcessor
from modeling_valor.data.files import atomic_write
from modeling_valor.data.readers import load_samples
from modeling_valor.evaluation import MediaOptions
from modeling_valor.evaluation.retrieve import embed, score
from modeling_valor.text_cleaning import clean_caption


SETS = {"esc10": "esc10_vorbis", "animals": "animals", "cifar10": "cifar10", "flickr": "flickr1k", "pairs": "av_pairs"}
"""Names of the experiments' sets, and of their files. "pairs" has a manifest only: its files are those of the others."""

ARCHIVES = ("esc10_vorbis", "animals", "cifar10", "flickr1k")

TEMPLATES = {
    # The same words around both, as a decoder that is unsure of the class is unsure of an article too
    "esc10": ("{caption}", "the sound of {label}", "we hear that {caption}", "a recording of {label}"),
    "animals": ("{caption}", "the sound of {label}", "we hear that {caption}", "a recording of {label}"),
    "cifar10": ("{caption}", "a small picture of {article} {label}", "{article} {label}", "this is {article} {label}"),
}
"""Captions of a labelled file, made from its class; the first is the manifest's own."""

PAIR_PROMPTS = {
    "baby": "a baby while a baby is crying",
    "bird": "a photo of a bird while a bird is singing",
    "cat": "a photo of a cat while a cat is meowing",
    "dog": "a photo of a dog while a dog is barking",
    "frog": "a photo of a frog while a frog is croaking",
    "sea": "the sea while waves break on the shore",
}
"""A caption for each class of the pairs, some of which have captions of people in the manifest."""


def prepare_real_data(data: Path, folder: Path) -> None:
    """Extracts the files that the manifests name to `folder`, and writes `{set}.jsonl` for each set in the same folder.

    Sets whose files are there are left alone, so a run that was killed goes on.

    Raises:
        ValueError: an archive or a manifest is absent, names files outside of the folder, or lacks files that are named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ARCHIVES:
        names = {row["file"] for row in read_manifest(data, name)}
        missing = {file for file in names if not (folder / file).is_file()}
        if missing:
            _extract(data / f"{name}.tar", missing, folder)
    for name, file in SETS.items():
        with atomic_write(folder / f"{name}.jsonl") as partial, partial.open("w", encoding="utf-8") as lines:
            for row in read_manifest(data, file):
                lines.write(json.dumps(row_of(name, row)) + "\n")


def read_manifest(data: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a manifest.

    Raises:
        ValueError: there is none, or it names a file by a path that leads out of a folder.
    """
    path = data / f"{name}_manifest.jsonl"
    if not path.is_file():
        raise ValueError(f"{data} has no {path.name}: give the folder with {', '.join(ARCHIVES)} as tar and manifest.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for row in rows:
        for key in ("file", "image", "audio"):
            parts = PurePosixPath(row.get(key, ""))
            if parts.is_absolute() or ".." in parts.parts:
                raise ValueError(f"{path} names {row[key]!r}, which lies outside of its archive.")
    return rows


def _extract(archive: Path, names: set[str], folder: Path) -> None:
    """Regular files of these names, and nothing else of the archive."""
    if not archive.is_file():
        raise ValueError(f"{archive} does not exist; {len(names)} files that its manifest names are needed of it.")
    left = set(names)
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in left and member.isfile():
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(target) as partial:
                    partial.write_bytes(tar.extractfile(member).read())
                left.discard(member.name)
    if left:
        raise ValueError(f"{archive} lacks {len(left)} files of its manifest, such as {sorted(left)[0]}.")


def row_of(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """A manifest's line as a row of `metadata.jsonl`, with the label added."""
    common = {"split": row["split"], "label": row.get("label")}
    if name == "pairs":
        identity = f"{row['image']}+{row['audio']}"
        media = {"id": identity, "file_name": row["image"], "audio_file_name": row["audio"]}
        return {**media, "captions": row["captions"], **common}
    if name == "flickr":
        return {"file_name": row["file"], "captions": row["captions"], **common}
    return {"file_name": row["file"], "captions": captions_of_class(name, row["label"], row["caption"]), **common}


def captions_of_class(name: str, label: str, caption: str) -> list[str]:
    article = "an" if label[0] in "aeiou" else "a"
    return [template.format(label=label, caption=caption, article=article) for template in TEMPLATES[name]]


def vocabulary_of(folder: Path) -> Iterator[str]:
    """Training captions of all sets, for a vocabulary of their own."""
    for name in SETS:
        for sample in load_samples(folder / f"{name}.jsonl", "train"):
            yield from map(clean_caption, sample.captions)


def read_labels(path: Path, split: str) -> list[str]:
    """Labels of a set's samples, in the order in which `load_samples` gives them."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [row["label"] for row in rows if row["split"] == split]


def prompts_of(path: Path, split: str = "train") -> dict[str, list[str]]:
    """The texts that stand for each class of a set, those of its training samples."""
    if path.stem == "pairs":
        return {label: [text] for label, text in PAIR_PROMPTS.items()}
    samples = load_samples(path, split)
    return {
        label: list(sample.captions)
        for label, sample in sorted(zip(read_labels(path, split), samples, strict=True), key=lambda pair: pair[0])
    }


# --- Measuring --------------------------------------------------------------------------------------------------------


def evaluate_classes(
    model: torch.nn.Module,
    processor: ValorProcessor,
    path: Path,
    split: str,
    modalities: str,
    batch_size: int = 50,
    num_frames: int | None = None,
    num_workers: int = 0,
    media_cache: str | None = None,
) -> dict[str, float]:
    """Which class's texts fit a clip best: "accuracy", and "mAP" of ranking the clips for each class, both in percent.

    A class's score is the mean of its texts' (eq. 3). Nothing is trained for this: it is retrieval among all classes.
    """
    labels, prompts = read_labels(path, split), prompts_of(path)
    samples = load_samples(path, split)
    texts = [clean_caption(text) for own in prompts.values() for text in own]
    # The texts have to belong to some clip to be embedded; to which one is of no matter here
    samples = [replace(sample, captions=tuple(texts) if index == 0 else ()) for index, sample in enumerate(samples)]
    media = MediaOptions(modalities, num_frames, None, num_workers, media_cache)
    embeddings, failures = embed(model, processor, samples, media, batch_size=batch_size)
    if failures:
        raise ValueError(
            f"{len(failures)} files of {path} cannot be read, such as {failures[0].id}: {failures[0].reason}"
        )
    similarity = score(model, embeddings, f"t-{modalities}")
    rows = iter(similarity)
    by_class = torch.stack([torch.stack([next(rows) for _ in own]).mean(dim=0) for own in prompts.values()])
    return class_figures(by_class.T.numpy(), list(prompts), labels)


def class_figures(scores: np.ndarray, classes: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """ "accuracy" and "mAP" in percent of scores (clips, classes)."""
    truth = np.array([classes.index(label) for label in labels])
    present = sorted(set(truth.tolist()))
    precisions = [average_precision(scores[:, number], truth == number) for number in present]
    return {
        "accuracy": 100 * float(np.mean(scores.argmax(axis=1) == truth)),
        "mAP": 100 * float(np.mean(precisions)),
    }


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean precision at the ranks of the relevant items; of equal scores the irrelevant ones rank first."""
    order = np.lexsort((relevant, -scores))
    hits = relevant[order]
    return float(np.mean((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits]))


def exact_captions(predictions: Sequence[dict[str, Any]]) -> float:
    """Share in percent of generated captions that are, word by word, one of their clip's."""
    right = [
        clean_caption(entry["prediction"]) in {clean_caption(text) for text in entry["references"]}
        for entry in predictions
    ]
    return 100 * sum(right) / len(right)
