# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Pipelines that score texts against media: by the model's own scores, whatever the batches and the form of the inputs."""

import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import AutoModel, BertConfig, BertModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from helpers.media_files import render_clips
from modeling_valor import ValorForCaptioning, ValorForPreTraining, ValorForRetrieval, ValorModel, ValorProcessor
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation.retrieve import evaluate_retrieval


TEXTS = ["a dog barks near the soccer", "what", "the man sings while a cat sleeps"]
RETRIEVAL, CLASSIFICATION = "audiovisual-retrieval", "zero-shot-audiovisual-classification"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return render_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def files(clips):
    return [clips[name] for name in ("both", "silent", "sound", "other")]


@pytest.fixture(scope="module")
def folder(converted):
    return str(converted("clip-vision-bert-shared"))


@pytest.fixture(scope="module")
def retriever(folder):
    return pipeline(RETRIEVAL, model=folder, device="cpu")


@pytest.fixture(scope="module")
def classifier(folder):
    return pipeline(CLASSIFICATION, model=folder, device="cpu")


def matrix(results, columns: int) -> torch.Tensor:
    """(queries, candidates) of the results of several queries."""
    scores = torch.full((len(results), columns), math.nan)
    for row, records in enumerate(results):
        for record in records:
            scores[row, record["index"]] = record["score"]
    return scores


def by_hand(model, text_inputs, media_inputs) -> float:
    """Eq. 3 of one text and one file, word by word, with padding of 2023: its similarities are 0 and its weight is 0."""
    words = model.get_text_embeds(**text_inputs)[0]
    mask = text_inputs["attention_mask"][0].bool()
    video, audio = (media_inputs.get(name) for name in ("pixel_values_videos", "input_features"))
    sides = [(model.get_video_embeds(video)[0], model.video_token_weight)] if video is not None else []
    sides += [(model.get_audio_embeds(audio)[0], model.audio_token_weight)] if audio is not None else []
    tokens = torch.cat([embeds for embeds, _ in sides])
    similarity = words @ tokens.T
    similarity[~mask] = 0
    word_weights = model.text_token_weight(words).masked_fill(~mask, -math.inf).softmax(0)
    token_weights = torch.cat([weight(embeds) for embeds, weight in sides]).softmax(0)
    return ((word_weights @ similarity.amax(1) + token_weights @ similarity.amax(0)) / 2).item()


def about(results):
    """Results to compare: with scores up to float noise, which depends on the batch."""
    if isinstance(results, dict):
        return {name: about(value) for name, value in results.items()}
    if isinstance(results, list):
        return [about(value) for value in results]
    return pytest.approx(results, abs=1e-6) if isinstance(results, float) else results


# ----------------------------------------------------------------------------- numbers


@torch.no_grad()
def test_scores_are_equation_3_in_both_directions(folder, retriever, files):
    model, processor = ValorModel.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)
    media = [processor(videos=file, return_tensors="pt") for file in files]
    texts = [processor(text=text, padding="max_length", return_tensors="pt") for text in TEXTS]
    expected = torch.tensor([[by_hand(model, text, medium) for medium in media] for text in texts])
    found = matrix(retriever(TEXTS, media=files, batch_size=2), len(files))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix(retriever(files, texts=TEXTS, batch_size=3), len(TEXTS)).T, found)


def test_scores_are_those_of_evaluation(folder, retriever, files):
    videos, sounds = [*files[:2], None, files[3]], [files[0], None, *files[2:]]
    samples = [
        Sample(text, video=video, audio=audio, captions=[text])
        for text, video, audio in zip([*TEXTS, "a"], videos, sounds, strict=True)
    ]
    evaluation = evaluate_retrieval(ValorModel.from_pretrained(folder), retriever.processor, samples, ["t-av"])
    found = matrix(retriever([*TEXTS, "a"], media=files), len(files))
    torch.testing.assert_close(found, evaluation.similarity["t-av"])


@pytest.mark.parametrize(("letters", "group"), [("v", "t-v"), ("a", "t-a")])
@torch.no_grad()
def test_modalities_choose_the_group(folder, retriever, clips, letters, group):
    model, processor = ValorModel.from_pretrained(folder).eval(), retriever.processor
    texts = processor(text=TEXTS, padding="max_length", return_tensors="pt")
    expected = model.score(texts, processor(videos=clips["both"], return_tensors="pt"), group=group)[:, 0]
    results = retriever([clips["both"]], texts=TEXTS, modalities=letters)
    torch.testing.assert_close(matrix(results, len(TEXTS))[0], expected)
    assert {record["modalities"] for record in results[0]} == {letters}


def test_results_are_ranked_best_first(retriever, files):
    (records,) = retriever([TEXTS[0]], media=files)
    assert [record["rank"] for record in records] == [1, 2, 3, 4]
    scores = [record["score"] for record in records]
    assert scores == sorted(scores, reverse=True)
    assert [files[record["index"]] for record in records] == [record["media"] for record in records]
    assert {record["media"]: record["modalities"] for record in records} == dict(
        zip(files, ("av", "v", "a", "av"), strict=True)
    )
    assert set(records[0]) == {"rank", "score", "index", "media", "modalities"}
    assert retriever(TEXTS[0], media=files, top_k=2) == about(records[:2])
    twice = retriever(files[0], texts=[TEXTS[0], TEXTS[0]])
    assert [record["index"] for record in twice] == [0, 1]


def test_probabilities_are_the_softmax_of_scaled_scores(folder, classifier, retriever, files):
    labels = ["dog", "man", "cat"]
    scale = ValorModel.from_pretrained(folder).logit_scale.exp()
    texts = [f"near the {label} ." for label in labels]
    similarity = matrix(retriever(files, texts=texts), len(labels))
    results = classifier(files, candidate_labels=labels, hypothesis_template="near the {} .", batch_size=2)
    for row, records in zip(similarity, results, strict=True):
        expected = (row * scale).softmax(0)
        assert sum(record["score"] for record in records) == pytest.approx(1)
        assert [record["label"] for record in records] == [labels[place] for place in row.argsort(descending=True)]
        for record in records:
            place = labels.index(record["label"])
            assert record["score"] == pytest.approx(expected[place].item(), abs=1e-5)
            assert record["similarity"] == pytest.approx(row[place].item(), abs=1e-6)
    assert [records[0]["modalities"] for records in results] == ["av", "v", "a", "av"]
    (best,) = classifier(files[0], candidate_labels=labels, hypothesis_template="near the {} .", top_k=1)
    assert best == about(results[0][0])


def test_labels_and_template_may_belong_to_the_pipeline(folder, classifier, files):
    options = {"candidate_labels": ["dog", "man"], "hypothesis_template": "near the {}"}
    own = pipeline(CLASSIFICATION, model=folder, device="cpu", **options)
    assert own(files[0]) == about(classifier(files[0], **options))
    assert own(files[0], candidate_labels=np.array(["dog", "man"])) == about(own(files[0]))
    assert own(files[0], hypothesis_template="{}") == classifier(files[0], candidate_labels=["dog", "man"])


# ----------------------------------------------------------------------------- inputs


class Files(Dataset):
    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self.names[index]


def test_every_form_of_queries_and_candidates_gives_the_same_results(retriever, files):
    expected = about(retriever(TEXTS, media=files))
    for media in (tuple(files), (file for file in files), Files(files), KeyDataset([{"f": f} for f in files], "f")):
        assert retriever(TEXTS, media=media) == expected
    assert retriever(TEXTS, media=[Path(file) for file in files]) == expected
    assert retriever(TEXTS, media=[{"video": file} for file in files[:2]] + files[2:]) == expected
    contents = retriever(TEXTS[0], media=[Path(file).read_bytes() for file in files])
    assert [{**record, "media": files[record["index"]]} for record in contents] == expected[0]
    assert list(retriever(Files(TEXTS), media=files)) == expected
    assert list(retriever((text for text in TEXTS), media=files)) == expected
    assert [retriever(text, media=files) for text in TEXTS] == expected
    (alone,) = retriever(TEXTS[0], media=files[0])
    assert alone["rank"] == 1 and alone["media"] == files[0]

    reverse = about(retriever(files, texts=TEXTS))
    assert list(retriever((file for file in files), texts=tuple(TEXTS))) == reverse
    assert list(retriever(Files(files), texts=TEXTS)) == reverse
    assert retriever(files[1], texts=TEXTS) == reverse[1]
    assert retriever(files[1], texts=np.array(TEXTS)) == reverse[1]
    assert retriever(files[1], texts=TEXTS[0])[0]["text"] == TEXTS[0]
    assert retriever([], texts=TEXTS) == [] and retriever(TEXTS, media=[]) == [[]] * 3


def test_queries_are_read_when_their_results_are_asked_for(retriever, files):
    seen = []

    def read():
        for file in files:
            seen.append(file)
            yield file

    results = iter(retriever(read(), texts=TEXTS))
    next(results)
    assert len(seen) < len(files)
    assert len(list(results)) == len(files) - 1


def test_candidates_are_embedded_once_whatever_the_number_of_queries(retriever, files, monkeypatch):
    expected = retriever(TEXTS, media=files)
    counts = {"embed_texts": 0, "embed_media": 0}

    def recording(name, embed, inputs):
        counts[name] += len(next(iter(inputs.values())))
        return embed(inputs)

    for name in counts:
        monkeypatch.setattr(retriever.model, name, functools.partial(recording, name, getattr(retriever.model, name)))
    gallery = retriever.embed_media(files, batch_size=2)
    assert [retriever(text, media=gallery) for text in TEXTS] == about(expected)
    assert counts == {"embed_texts": 3, "embed_media": 4}
    retriever(files, texts=TEXTS)
    assert counts == {"embed_texts": 6, "embed_media": 8}


def test_embedded_media_answer_for_one_modality_too(retriever, files):
    """Of the sound file nothing is seen: it has no score for its frames, and says so."""
    gallery = retriever.embed_media(files)
    assert len(gallery) == 4 and repr(gallery) == "Candidates(4, 0 unreadable)"
    records = retriever(TEXTS[0], media=gallery, modalities="v")
    seen = [0, 1, 3]
    expected = retriever(TEXTS[0], media=[files[index] for index in seen], modalities="v")
    assert records[:3] == about([{**record, "index": seen[record["index"]]} for record in expected])
    assert records[3]["index"] == 2 and records[3]["score"] is records[3]["rank"] is None
    assert records[3]["error"] == "It has nothing of the modalities that are scored."
    with pytest.raises(ValueError, match=r"embedded already\. Give `num_frames` to `embed_media`"):
        retriever(TEXTS[0], media=gallery, num_frames=2)
    with pytest.raises(ValueError, match="embedded without what modalities='a' scores"):
        retriever(TEXTS[0], media=retriever.embed_media(files[:1], modalities="v"), modalities="a")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_cannot_be_read_costs_no_other_result(retriever, classifier, files, tmp_path, batch_size):
    broken = tmp_path / "text.mp4"
    broken.write_text("this is no video")
    options = {"on_error": "skip", "batch_size": batch_size}
    expected = retriever(TEXTS[0], media=files)
    *found, last = retriever(TEXTS[0], media=[files[0], str(broken), *files[1:]], **options)
    assert [record["media"] for record in found] == [record["media"] for record in expected]
    assert [last[name] for name in ("media", "index", "rank", "score")] == [str(broken), 1, None, None]
    assert "text.mp4" in last["error"]
    (only,) = retriever(TEXTS[0], media=[broken], **options)
    assert only["score"] is None
    first, second, third = retriever([files[0], str(broken), files[1]], texts=TEXTS, **options)
    assert [first, third] == about(retriever([files[0], files[1]], texts=TEXTS))
    assert second[0]["score"] is None and "text.mp4" in second[0]["error"]
    (label,) = classifier(broken, candidate_labels=["dog"], **options)
    assert label["label"] is None and "text.mp4" in label["error"]
    with pytest.raises(ValueError, match=r"text\.mp4"):
        retriever(TEXTS[0], media=[files[0], broken])


# ----------------------------------------------------------------------------- errors


def test_candidates_must_be_given_once(retriever, files):
    for options in ({}, {"media": files, "texts": TEXTS}):
        with pytest.raises(
            ValueError, match=r"candidates: `media=\.\.\.` where the queries are texts, or `texts=\.\.\.`"
        ):
            retriever(files[0], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ["a dog", " "]}, "must be a string with words in it, got ' '"),
        ({"texts": [1]}, "must be a string with words in it, got 1"),
        ({"texts": TEXTS, "top_k": 0}, "`top_k` must be a whole number of at least 1, got 0"),
        ({"texts": TEXTS, "modalities": "x"}, '`modalities` must be "av", "v" or "a", got \'x\''),
        ({"texts": TEXTS, "on_error": "ignore"}, "`on_error` must be"),
        ({"texts": TEXTS, "num_frames": 0}, "`num_frames` must be"),
    ],
)
def test_options_that_are_not_accepted(retriever, files, options, message):
    with pytest.raises(ValueError, match=message):
        retriever(files[0], **options)


@pytest.mark.parametrize(
    ("labels", "template", "message"),
    [
        ("dog", "{}", "must be a list of strings with words in them, at least one, got 'dog'"),
        (["dog", ""], "a {}", "with words in them"),
        (["dog"], 1, "must have {} where the label goes, got 1"),
        ([], "{}", "at least one"),
        (None, "{}", "at least one"),
        (["dog", "dog"], "{}", "'dog' twice"),
        (["dog"], "a video", "must have {} where the label goes, got 'a video'"),
    ],
)
def test_labels_and_templates_that_are_not_accepted(classifier, files, labels, template, message):
    with pytest.raises(ValueError, match=message):
        classifier(files[0], candidate_labels=labels, hypothesis_template=template)


def test_arguments_of_other_names_are_refused(folder, retriever, classifier, files):
    with pytest.raises(TypeError, match="takes no argument 'num_beams'"):
        retriever(files[0], texts=TEXTS, num_beams=3)
    with pytest.raises(TypeError, match="takes no argument 'num_beams'"):
        classifier(files[0], candidate_labels=TEXTS, num_beams=3)
    with pytest.raises(TypeError, match=r"'texts' in `pipeline\(...\)`; give it in the call"):
        pipeline(RETRIEVAL, model=folder, device="cpu", texts=TEXTS)


def test_braces_in_labels_and_templates_are_text(classifier, files):
    (record,) = classifier(files[0], candidate_labels=["{dog}"], hypothesis_template="{near} the {}")
    assert record["label"] == "{dog}" and record["score"] == 1


def test_a_query_that_names_a_file_is_noticed(retriever, files, caplog):
    retriever(files[0], media=files[:1])
    assert "with `media=...` the query is a text" in caplog.text


def test_other_models_are_refused(retriever):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=9, **sizes))
    with pytest.raises(ValueError, match=r"BertModel does not score texts against media. Load a VALOR checkpoint."):
        pipeline(RETRIEVAL, model=model, processor=retriever.processor)


# ----------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("cls", [ValorForPreTraining, ValorForRetrieval, ValorForCaptioning])
def test_any_head_of_a_checkpoint_scores(folder, retriever, files, cls):
    built = pipeline(RETRIEVAL, model=cls.from_pretrained(folder), processor=retriever.processor, device="cpu")
    assert built(files, texts=TEXTS) == about(retriever(files, texts=TEXTS))


def test_half_precision_scores_are_numbers(folder, files):
    built = pipeline(RETRIEVAL, model=folder, device="cpu", dtype=torch.bfloat16)
    records = built(TEXTS[0], media=files)
    assert all(math.isfinite(record["score"]) for record in records)


@pytest.mark.parametrize("task", [RETRIEVAL, CLASSIFICATION])
def test_saved_pipeline_is_loaded_unchanged(folder, files, tmp_path, task):
    options = {"texts": TEXTS} if task == RETRIEVAL else {"candidate_labels": TEXTS}
    original = pipeline(task, model=folder, device="cpu")
    original.save_pretrained(tmp_path)
    loaded = pipeline(model=str(tmp_path), device="cpu", trust_remote_code=False, task=task)
    assert type(loaded) is type(original) and isinstance(loaded.model, type(AutoModel.from_pretrained(folder)))
    assert loaded(files, **options) == about(original(files, **options))


def test_the_page_about_pipelines_runs(monkeypatch):
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    page = (root / "docs" / "pipelines.md").read_text(encoding="utf-8")
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), names)
    assert names["results"][0][0]["media"] == names["files"][0]
