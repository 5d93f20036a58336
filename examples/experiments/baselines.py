# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What chance and simple supervised models reach on the real data, with the splits and the metrics of the experiments.

Sounds are the mean and the standard deviation over time of each mel band; images are 16 x 16 pixels. Classes are told by
logistic regression; captions of photographs are found by ridge regression from pixels to weighted words, and "written" by
taking the caption of the nearest training image.
"""

import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from real_data import class_figures, read_labels

from modeling_valor import ValorFeatureExtractor
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import caption_metrics, retrieval_metrics
from modeling_valor.media import read_image
from modeling_valor.text_cleaning import clean_caption


PIXELS = 16


def sound_features(samples: Sequence[Sample]) -> np.ndarray:
    """(samples, 128): mean and standard deviation of the log-mel bands over the first 5.12 s, without padding."""
    return np.stack([_bands(sample.audio) for sample in samples])


@functools.cache
def _bands(path: str) -> np.ndarray:
    """Features of one file, kept because one sound is in many pairs."""
    extractor = ValorFeatureExtractor(num_audio_clips=1)
    clip = extractor(path, return_tensors="np")["input_features"].reshape(-1, extractor.clip_length)
    # Padding and digital silence are the same number in all bands; a clip may be nothing else
    sounding = np.ptp(clip, axis=0) > 0
    clip = clip[:, sounding] if sounding.any() else clip
    return np.concatenate([clip.mean(axis=1), clip.std(axis=1)])


def image_features(samples: Sequence[Sample]) -> np.ndarray:
    """(samples, 768): pixels of the image, made smaller."""
    rows = []
    for sample in samples:
        image = read_image(sample.video).float()[None]
        small = torch.nn.functional.interpolate(image, (PIXELS, PIXELS), mode="bilinear", antialias=True)
        rows.append(small.flatten().numpy() / 255)
    return np.stack(rows)


def both_features(samples: Sequence[Sample]) -> np.ndarray:
    return np.concatenate([sound_features(samples), image_features(samples)], axis=1)


FEATURES = {"a": sound_features, "v": image_features, "av": both_features}


def classify(path: Path, features: Callable[[Sequence[Sample]], np.ndarray]) -> dict[str, float]:
    """Metrics of logistic regression on a set's test split, as `real_data.evaluate_classes` has them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))
    model.fit(features(load_samples(path, "train")), read_labels(path, "train"))
    scores = model.predict_proba(features(load_samples(path, "test")))
    return class_figures(scores, list(model[-1].classes_), read_labels(path, "test"))


def chance_of_classes(path: Path) -> dict[str, float]:
    """The commonest training class for every clip; and rankings in no order, whose mean precision is a class's share."""
    common = Counter(read_labels(path, "train")).most_common(1)[0][0]
    labels = read_labels(path, "test")
    counts = Counter(labels)
    expected = [expected_precision(count, len(labels)) for count in counts.values()]
    return {"accuracy": 100 * counts[common] / len(labels), "mAP": 100 * float(np.mean(expected))}


def expected_precision(relevant: int, count: int) -> float:
    """Mean over all orders of `count` items, of which some are relevant, of the average precision."""
    if count == 1:
        return float(relevant)
    harmonic = float(np.sum(1 / np.arange(1, count + 1)))
    # At a relevant item's rank k stand itself and, on average, (k - 1) (relevant - 1) / (count - 1) others before it
    others = (relevant - 1) / (count - 1)
    return (harmonic + others * (count - harmonic)) / count


def find_photographs(path: Path) -> dict[str, dict[str, float]]:
    """Retrieval and captions of photographs by the two simple models, and by chance."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = (list(load_samples(path, split)) for split in ("train", "test"))
    pixels, test_pixels = image_features(train), image_features(test)
    words = TfidfVectorizer(preprocessor=clean_caption, min_df=2)
    targets = words.fit_transform(" ".join(sample.captions) for sample in train).toarray()
    predicted = make_pipeline(StandardScaler(), Ridge(alpha=1e4)).fit(pixels, targets).predict(test_pixels)
    predicted -= targets.mean(axis=0)  # what every photograph is said to show tells none apart
    texts = [caption for sample in test for caption in sample.captions]
    positives = [[index] for index, sample in enumerate(test) for _ in sample.captions]
    queries = words.transform(texts).toarray()
    ranks = retrieval_metrics(_cosine(queries, predicted), positives)

    scale = pixels.std(axis=0) + 1e-6
    nearest = [np.linalg.norm((pixels - row) / scale, axis=1).argmin() for row in test_pixels]
    rng = random.Random(0)
    references = [sample.captions for sample in test]
    captions = {
        "baseline": [train[index].captions[0] for index in nearest],
        "chance": [rng.choice(train).captions[0] for _ in test],
    }
    cider = {name: caption_metrics(texts, references, ("CIDEr",))["CIDEr"] for name, texts in captions.items()}
    chance = {f"R@{count}": min(100.0, 100 * count / len(test)) for count in (1, 5, 10)}
    return {
        "baseline": {**{f"t-v/{name}": value for name, value in ranks.items()}, "CIDEr": cider["baseline"]},
        "chance": {**{f"t-v/{name}": value for name, value in chance.items()}, "CIDEr": cider["chance"]},
    }


def _cosine(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    def normalised(rows: np.ndarray) -> np.ndarray:
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    return normalised(queries) @ normalised(items).T


def measure_baselines(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics of "chance" and "baseline", by the names of the evaluations that they are compared with (`Measure.run`).

    Naming the right class is writing one of its captions, so accuracy is the baseline of captions as well; chance writes a
    caption of the commonest class.
    """
    metrics = {"chance": {}, "baseline": {}}
    for name, modalities in (("esc10", "a"), ("animals", "a"), ("cifar10", "v"), *(("pairs", m) for m in FEATURES)):
        path = folder / f"{name}.jsonl"
        found = {"chance": chance_of_classes(path), "baseline": classify(path, FEATURES[modalities])}
        for kind, values in found.items():
            metrics[kind][f"{name}/classes/{modalities}"] = values
            metrics[kind][f"{name}/captioning/{modalities}"] = {"exact": values["accuracy"]}
    for kind, values in find_photographs(folder / "flickr.jsonl").items():
        metrics[kind]["flickr/retrieval/v"] = metrics[kind]["flickr/captioning/v"] = values
    return metrics
