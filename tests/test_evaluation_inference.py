# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.evaluation_world import OPTIONS, evaluate_all, read_world
from helpers.media_files import write_clip
from helpers.tiny import tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorModel,
    ValorProcessor,
)
from modeling_valor.data.samples import Question, Sample
from modeling_valor.evaluation import (
    MediaOptions,
    TextOptions,
    caption_metrics,
    evaluate_captioning,
    evaluate_question_answering,
    evaluate_retrieval,
    retrieval_metrics,
)
from modeling_valor.evaluation.models import with_head
from modeling_valor.evaluation.options import accepts_flat_keywords
from modeling_valor.evaluation.resumable import TensorCache, TextCache, map_resumable
from modeling_valor.evaluation.retrieve import embed, score
from modeling_valor.text_cleaning import clean_caption, clean_question
from modeling_valor.world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, "test", 5, seed=0, workers=1)
    return folder


@pytest.fixture(scope="module")
def samples(world):
    return read_world(world)


@pytest.fixture(scope="module")
def checkpoint(converted):
    return str(converted("clip-vision-bert-shared"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return ValorForPreTraining.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def processor(checkpoint):
    return ValorProcessor.from_pretrained(checkpoint)


MEDIA = MediaOptions("av", 2, 1)
ONE = {"num_frames": 2, "num_audio_clips": 1, "return_tensors": "pt"}


# ----------------------------------------------------------------------------- metrics


def reference_scores(model, processor, samples, group="t-av"):
    """Each text with each sample, all in one batch padded to 40 tokens."""
    texts = [clean_caption(caption) for sample in samples for caption in sample.captions]
    text = processor(text=texts, padding="max_length", return_tensors="pt")
    media = processor(videos=[sample.video for sample in samples], **ONE)
    valor = model.valor
    with torch.no_grad():
        return valor.compute_similarity(
            valor.get_text_embeds(**text),
            valor.get_video_embeds(media["pixel_values_videos"]),
            valor.get_audio_embeds(media["input_features"]),
            text["attention_mask"],
            group=group,
        )


@pytest.mark.parametrize("group", ["t-av", "t-v", "t-a"])
def test_scores_of_batches_equal_those_of_one_padded_batch(model, processor, samples, group):
    embeddings, failures = embed(model, processor, samples, MEDIA, batch_size=2)
    assert not failures and embeddings.sample_of_text.tolist() == [0, 0, 1, 2, 3, 4]
    expected = reference_scores(model, processor, samples, group)
    torch.testing.assert_close(score(model, embeddings, group), expected, atol=2e-5, rtol=0)


def test_recall_in_both_directions_is_that_of_the_matrix(model, processor, samples):
    result = evaluate_retrieval(model, processor, samples, ["t-av"], dual_softmax=True, **OPTIONS)
    matrix = result.similarity["t-av"]
    forth = retrieval_metrics(matrix, [[0], [0], [1], [2], [3], [4]])
    back = retrieval_metrics(matrix.mT, [[0, 1], [2], [3], [4], [5]])
    dual = retrieval_metrics(matrix, [[0], [0], [1], [2], [3], [4]], dual_softmax=True)
    assert {name: result.metrics[f"t-av/{name}"] for name in forth} == forth
    assert {name: result.metrics[f"av-t/{name}"] for name in back} == back
    assert {name: result.metrics[f"t-av/DSL/{name}"] for name in dual} == dual
    assert result.counts == {"samples": 5, "texts": 6, "t-av/queries": 6, "t-av/candidates": 5}


def test_paragraphs_join_the_captions_of_a_sample(model, processor, samples):
    embeddings, _ = embed(model, processor, samples[:2], MEDIA, TextOptions(paragraph=True))
    assert embeddings.texts[0] == " ".join(map(clean_caption, samples[0].captions))
    assert embeddings.sample_of_text.tolist() == [0, 1]


def test_captions_are_those_of_generate_and_scored_by_caption_metrics(model, processor, samples):
    result = evaluate_captioning(
        model,
        processor,
        samples,
        generate_kwargs={"num_beams": 3, "max_new_tokens": 5},
        metrics=["BLEU-1", "CIDEr"],
        **OPTIONS,
    )
    head = with_head(model, ValorForCaptioning)
    written = []
    for sample in samples:
        ids = head.generate(**processor(videos=sample.video, **ONE), num_beams=3, max_new_tokens=5)
        written += processor.post_process_generation(ids)
    assert [entry["prediction"] for entry in result.predictions] == written
    assert result.metrics == caption_metrics(
        written, [list(sample.captions) for sample in samples], ["BLEU-1", "CIDEr"]
    )


def test_answers_are_those_of_generate_one_by_one(model, processor, samples):
    result = evaluate_question_answering(model, processor, samples, generate_kwargs={"max_new_tokens": 4}, **OPTIONS)
    head = with_head(model, ValorForQuestionAnswering)
    asked = [(sample, question) for sample in samples for question in sample.questions]
    for entry, (sample, question) in zip(result.predictions, asked, strict=True):
        inputs = processor(videos=sample.video, question=clean_question(question.text), **ONE)
        expected = processor.post_process_generation(head.generate(**inputs, max_new_tokens=4))
        assert (entry["prediction"], entry["question"], entry["type"]) == (expected[0], question.text, question.type)
    types = {f"accuracy/{question.type}" for _, question in asked}
    assert set(result.metrics) == {"accuracy", *types}


def test_questions_are_cleaned_where_that_is_wanted(model, processor, samples, monkeypatch):
    asked, call = [], ValorProcessor.__call__

    def recording(self, *args, **kwargs):
        asked.extend(kwargs.get("question") or ())
        return call(self, *args, **kwargs)

    monkeypatch.setattr(ValorProcessor, "__call__", recording)
    sample = dataclasses.replace(samples[0], questions=(Question("What's Red?", ("bell",)),))
    for clean in (True, False):
        evaluate_question_answering(
            model, processor, [sample], text=TextOptions(clean=clean), generate_kwargs={"max_new_tokens": 1}, **OPTIONS
        )
    assert asked == ["whats red", "What's Red?"]


def test_right_answers_count(model, processor, samples):
    """Answers that equal what the model writes make 100 percent of their type."""
    written = evaluate_question_answering(
        model, processor, samples, generate_kwargs={"max_new_tokens": 4}, **OPTIONS
    ).predictions
    answers = iter([entry["prediction"] for entry in written])
    right = [
        dataclasses.replace(
            sample,
            questions=tuple(
                dataclasses.replace(question, answers=(next(answers),), type=f"{question.type}/all")
                for question in sample.questions
            ),
        )
        for sample in samples
    ]
    metrics = evaluate_question_answering(
        model, processor, right, generate_kwargs={"max_new_tokens": 4}, **OPTIONS
    ).metrics
    assert set(metrics.values()) == {100.0} and {"accuracy", "accuracy/sight", "accuracy/sight/all"} <= set(metrics)


# ----------------------------------------------------------------------------- options


def test_keywords_of_before_are_grouped_with_a_warning():
    @accepts_flat_keywords
    def evaluate(*, media=None, text=None, generate_kwargs=None, batch_size=16):
        return media, text, generate_kwargs, batch_size

    media, text = MediaOptions("v", num_frames=4, cache="folder"), TextOptions(30, clean=False)
    grouped = media, text, {"num_beams": 3}, 8
    with pytest.warns(
        FutureWarning, match="`evaluate` takes modalities, num_frames, media_cache, max_question_length, c"
    ):
        flat = {"modalities": "v", "num_frames": 4, "media_cache": "folder", "max_question_length": 30}
        assert evaluate(**flat, clean_text=False, num_beams=3, batch_size=8) == grouped
    with warnings.catch_warnings(action="error"):
        assert evaluate(media=media, text=text, generate_kwargs={"num_beams": 3}, batch_size=8) == grouped
    with pytest.raises(TypeError, match="got both `media` and num_frames"):
        evaluate(media=media, num_frames=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_beams'"):
        evaluate_retrieval(None, None, [], num_beams=3)


# ----------------------------------------------------------------------------- merged rows


COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def seeing(model, processor, monkeypatch):
    """The model with encoders that know colours: everything is right at the first place."""

    def vision(self, pixel_values_videos, frame_mask=None):
        means = pixel_values_videos.mean(dim=(-1, -2))
        features = torch.zeros(*means.shape[:-1], model.config.projection_dim)
        features[..., :3] = torch.nn.functional.one_hot(means.argmax(dim=-1), 3).float()
        return features

    def text(self, input_ids, attention_mask):
        features = torch.zeros(*input_ids.shape, model.config.projection_dim)
        for row, words in enumerate(processor.tokenizer.batch_decode(input_ids, skip_special_tokens=True)):
            features[row, :, list(COLOURS).index(words.split()[-1])] = 1
        return features

    monkeypatch.setattr(ValorModel, "get_video_embeds", vision)
    monkeypatch.setattr(ValorModel, "get_text_embeds", text)
    return model


def test_one_row_per_caption_counts_as_one_row_per_sample(seeing, processor):
    """R@1 of a model that is right: 100 in both forms, not 0 because a sample competes with itself."""
    videos = {
        name: torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(2, 3, 32, 32).clone()
        for name, colour in COLOURS.items()
    }
    texts = {name: tuple(f"{word} {name}" for word in ("a", "some", "more")) for name in videos}
    whole = [Sample(name, video, None, texts[name]) for name, video in videos.items()]
    rows = [Sample(name, video.clone(), None, (text,)) for name, video in videos.items() for text in texts[name]]
    options = {"media": MediaOptions("v", 2), "batch_size": 2}
    expected = evaluate_retrieval(seeing, processor, whole, **options)
    result = evaluate_retrieval(seeing, processor, rows, **options)
    assert expected.metrics["t-v/R@1"] == expected.metrics["v-t/R@1"] == 100
    assert result.metrics == expected.metrics
    assert result.counts == {**expected.counts, "rows": 9} and "rows" not in expected.counts


@pytest.mark.parametrize(
    "evaluate",
    [evaluate_retrieval, partial(evaluate_captioning, metrics=["CIDEr"]), evaluate_question_answering],
    ids=["retrieval", "captioning", "qa"],
)
def test_merged_rows_have_the_results_of_one_sample_and_different_media_of_one_id_are_refused(
    model, processor, samples, evaluate
):
    rows = [
        dataclasses.replace(sample, captions=(caption,))
        for sample in [samples[0], samples[0], *samples[1:]]
        for caption in sample.captions[:1]
    ]
    rows[1] = dataclasses.replace(rows[1], captions=samples[0].captions[1:])
    expected, result = (evaluate(model, processor, given, **OPTIONS) for given in (samples, rows))
    assert (result.metrics, result.predictions) == (expected.metrics, expected.predictions)
    assert result.counts == {**expected.counts, "rows": 6}
    with pytest.raises(ValueError, match="Two samples with different media have the id"):
        evaluate(model, processor, [samples[0], dataclasses.replace(samples[1], id=samples[0].id)], **OPTIONS)


# ----------------------------------------------------------------------------- what is missing


def test_unreadable_samples_are_listed_and_in_no_metric(model, processor, samples, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    broken = Sample("broken", str(tmp_path / "broken.mp4"), captions=("a dog",), questions=samples[0].questions)
    whole = [*samples[:2], broken, *samples[2:]]
    for evaluate, options in (
        (evaluate_retrieval, OPTIONS),
        (evaluate_captioning, {"metrics": ["BLEU-1", "CIDEr"], "generate_kwargs": {"max_new_tokens": 4}, **OPTIONS}),
        (evaluate_question_answering, {"generate_kwargs": {"max_new_tokens": 4}, **OPTIONS}),
    ):
        result = evaluate(model, processor, whole, **{**options, "batch_size": 3})
        assert [failure.id for failure in result.failures] == ["broken"]
        assert result.counts["samples"] == 5
        assert result.metrics == evaluate(model, processor, samples, **options).metrics


def test_groups_count_the_samples_that_have_their_modalities(model, processor, samples, tmp_path):
    silent = str(write_clip(tmp_path / "silent.mp4", hertz=None))
    whole = [samples[0], Sample("silent", silent, silent, ("a white bar",)), *samples[1:]]
    result = evaluate_retrieval(model, processor, whole, ["t-av", "t-a", "v-a"], **OPTIONS)
    expected = evaluate_retrieval(model, processor, samples, ["t-a", "v-a"], **OPTIONS)
    assert (result.counts["t-av/queries"], result.counts["t-a/queries"], result.counts["v-a/queries"]) == (7, 6, 5)
    for name, value in expected.metrics.items():
        assert result.metrics[name] == value


def test_workers_decode_the_same(model, processor, samples):
    options = {**OPTIONS, "batch_size": 3}
    alone = evaluate_retrieval(model, processor, samples, **options)
    workers = evaluate_retrieval(
        model, processor, samples, **{**options, "media": MediaOptions("av", 2, 1, num_workers=2)}
    )
    assert torch.equal(alone.similarity["t-av"], workers.similarity["t-av"])


def test_a_media_cache_saves_decoding(model, processor, samples, tmp_path):
    expected = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
    copies = [shutil.copy(sample.video, tmp_path) for sample in samples]
    samples = [dataclasses.replace(sample, video=c, audio=c) for sample, c in zip(samples, copies, strict=True)]
    evaluate_retrieval(model, processor, samples, media=MediaOptions("av", 2, 1, cache=tmp_path), batch_size=2)
    for copy in copies:
        Path(copy).unlink()
    cached = evaluate_retrieval(
        model, processor, samples, media=MediaOptions("av", 2, 1, cache=tmp_path), batch_size=2
    ).similarity["t-av"]
    torch.testing.assert_close(cached, expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("change", [{}, {"padded_similarity": "zero"}, {"alignment": "coarse"}])
def test_any_batch_size_gives_the_same_scores(processor, samples, change):
    texts = {"vocab_size": 1024}
    config = tiny_model(ValorForRetrieval).config
    model = tiny_model(
        ValorForRetrieval,
        text_config={**config.text_config.to_dict(), **texts},
        vision_config={**config.vision_config.to_dict(), "image_size": 32},
        audio_config={**config.audio_config.to_dict(), "num_mel_bins": 64, "max_length": 512, "patch_size": 16},
        **change,
    )
    matrices = [
        evaluate_retrieval(model, processor, samples, media=MEDIA, batch_size=size).similarity for size in (1, 5)
    ]
    torch.testing.assert_close(matrices[0]["t-av"], matrices[1]["t-av"], atol=1e-5, rtol=0)


# ----------------------------------------------------------------------------- the model


def test_a_head_shares_the_modules_of_the_model_that_is_trained(model):
    head = with_head(model, ValorForCaptioning)
    assert type(head) is ValorForCaptioning and head.valor is model.valor and head.lm_head is model.lm_head
    assert {id(part) for part in head.parameters()} == {id(part) for part in model.parameters()}
    assert with_head(head, ValorForCaptioning) is head


def test_models_without_a_decoder_head_cannot_write(processor, samples):
    with pytest.raises(ValueError, match="no decoder head"):
        evaluate_captioning(tiny_model(ValorModel), processor, samples)


@pytest.mark.parametrize(
    "evaluate",
    [evaluate_retrieval, partial(evaluate_captioning, metrics=["BLEU-1"]), evaluate_question_answering],
    ids=["retrieval", "captioning", "qa"],
)
def test_training_goes_on_as_before(checkpoint, processor, samples, evaluate):
    model = ValorForPreTraining.from_pretrained(checkpoint).train()
    model.valor.vision_model.eval()  # frozen parts stay in evaluation mode
    modes = [module.training for module in model.modules()]
    storage = [parameter.data_ptr() for parameter in model.parameters()]
    generator = torch.get_rng_state()
    evaluate(model, processor, samples[:2], **OPTIONS)
    assert modes == [module.training for module in model.modules()]
    assert storage == [parameter.data_ptr() for parameter in model.parameters()]
    assert torch.equal(generator, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_base_model_and_wrapped_models_can_be_measured(checkpoint, model, processor, samples):
    expected = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
    base = ValorModel.from_pretrained(checkpoint)
    wrapped = torch.nn.DataParallel(model)
    for other in (base, wrapped):
        assert torch.equal(evaluate_retrieval(other, processor, samples, **OPTIONS).similarity["t-av"], expected)


def test_half_precision_models_can_be_measured(checkpoint, processor, samples):
    model = ValorForPreTraining.from_pretrained(checkpoint, dtype=torch.bfloat16)
    assert evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"].dtype == torch.float32
    captions = evaluate_captioning(
        model, processor, samples[:2], generate_kwargs={"max_new_tokens": 3}, metrics=["BLEU-1"], **OPTIONS
    )
    assert captions.counts["samples"] == 2
    assert evaluate_question_answering(model, processor, samples[:2], **OPTIONS).counts["questions"] == 3


def test_models_can_be_measured_in_mixed_precision(model, processor, samples):
    expected = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
        answers = evaluate_question_answering(
            model, processor, samples[:2], generate_kwargs={"max_new_tokens": 3}, **OPTIONS
        )
    assert answers.counts["questions"] == 3
    torch.testing.assert_close(mixed, expected, atol=5e-2, rtol=0)


# ----------------------------------------------------------------------------- work


def squares(batches, log):
    for batch in batches:
        log.append(batch)
        yield {item: {"square": torch.tensor([item**2]), "odd": torch.tensor([item % 2])} for item in batch}


def test_interrupted_work_goes_on_in_the_same_batches(tmp_path):
    keys = [f"item {index}" for index in range(7)]

    def killed(batches):
        for number, result in enumerate(squares(batches, [])):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    with pytest.raises(KeyboardInterrupt):
        map_resumable(keys, 2, killed, TensorCache(tmp_path))
    (tmp_path / "torn.1.partial").write_bytes(b"half")
    log = []
    results = map_resumable(keys, 2, lambda batches: squares(batches, log), TensorCache(tmp_path))
    assert log == [[4, 5], [6]]
    assert [result["square"].item() for result in results] == [index**2 for index in range(7)]


def test_a_torn_line_is_done_again(tmp_path):
    cache = TextCache(tmp_path)
    cache.add({"a": {"text": "one"}, "b": {"text": "two"}})
    path = next(tmp_path.glob("*.jsonl"))
    path.write_text(path.read_text()[:-5])
    assert cache.load({"a", "b"}) == {"a": {"text": "one"}}
    cache.add({"b": {"text": "two"}})
    assert cache.load({"a", "b"}) == {"a": {"text": "one"}, "b": {"text": "two"}}


def tensors(name):
    return {name: {"square": torch.ones(2)}}


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 99, lambda whole: whole[:-5], lambda whole: whole[:20]])
def test_damaged_tensors_are_computed_again_and_named(damage, tmp_path, caplog):
    cache = TensorCache(tmp_path)
    for key in "abc":
        cache.add(tensors(key))
    path = next(iter(sorted(tmp_path.iterdir())))
    path.write_bytes(damage(path.read_bytes()) if callable(damage) else damage)
    assert len(cache.load(set("abc"))) == 2
    (record,) = caplog.records
    assert path.name in record.message and "again" in record.message
    results = map_resumable(
        list("abc"), 1, lambda batches: ({batch[0]: tensors("x")["x"]} for batch in batches), cache
    )
    assert all(torch.equal(result["square"], torch.ones(2)) for result in results)
    caplog.clear()
    assert len(cache.load(set("abc"))) == 3 and not caplog.records


def test_damaged_lines_are_computed_again_and_named(tmp_path, caplog):
    cache = TextCache(tmp_path)
    cache.add({"a": {"text": "one"}, "b": {"text": "two"}})
    path = next(tmp_path.glob("*.jsonl"))
    odd = [
        b"[]",
        b"1",
        b'{"key": 1, "result": {}}',
        b'{"key": "a"}',
        b'{"key": "a", "result": []}',
        b"[" * 99999,
        b"\xff",
    ]
    path.write_bytes(path.read_bytes() + b"\n".join(odd))
    assert cache.load({"a", "b"}) == {"a": {"text": "one"}, "b": {"text": "two"}}
    (record,) = caplog.records
    assert path.name in record.message and "and 6 more" in record.message


def test_cached_embeddings_of_an_encoder_with_a_temporal_stride_are_used(samples, tmp_path, caplog, monkeypatch):
    """valor-tiny has one video token for two frames, so embeddings are half as long as their masks."""
    folder = Path(__file__).parents[1] / "hub_configs" / "valor-tiny"
    model, processor = ValorForRetrieval.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)
    caches = {"samples": TensorCache(tmp_path / "samples")}
    options = {**OPTIONS, "media": MediaOptions("av", 4, 1), "groups": ["t-v"]}
    first = evaluate_retrieval(model, processor, samples[:2], caches=caches, **options)
    monkeypatch.setattr(ValorModel, "get_video_features", lambda *_, **__: pytest.fail("samples are encoded again"))
    again = evaluate_retrieval(model, processor, samples[:2], caches=caches, **options)
    assert torch.equal(again.similarity["t-v"], first.similarity["t-v"])
    assert not caplog.records
    with pytest.warns(FutureWarning, match='now called "samples"'):
        evaluate_retrieval(model, processor, samples[:2], caches={"clips": caches["samples"]}, **options)


def test_cached_results_of_an_unexpected_form_are_computed_again(model, processor, samples, tmp_path, caplog):
    """A cache whose tensors and texts are whole, but not those of this model and these questions."""
    samples = samples[:2]
    caches = {name: TensorCache(tmp_path / name) for name in ("samples", "texts")}
    expected = evaluate_retrieval(model, processor, samples, caches=caches, **OPTIONS)
    for cache in caches.values():
        for path in cache.folder.iterdir():
            found = {
                name: value[..., :7].contiguous() for name, value in load_file(path).items() if "audio" not in name
            }
            save_file(found, path)
    caplog.clear()
    result = evaluate_retrieval(model, processor, samples, caches=caches, **OPTIONS)
    assert torch.equal(result.similarity["t-av"], expected.similarity["t-av"])
    assert [record.message.count("unexpected form") for record in caplog.records] == [1, 1]

    cache = TextCache(tmp_path / "answers")
    options = {"generate_kwargs": {"max_new_tokens": 3}, "cache": cache, **OPTIONS}
    expected = evaluate_question_answering(model, processor, samples, **options)
    (path,) = cache.folder.iterdir()
    odd = [{"text": "x"}, {"answers": ["x"] * 9}]
    keys = [json.loads(line)["key"] for line in path.read_text().split("\n") if line]
    cache.add(dict(zip(keys, odd, strict=True)))
    assert evaluate_question_answering(model, processor, samples, **options).predictions == expected.predictions


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog):
    def full(self, results):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    monkeypatch.setattr(TextCache, "add", full)
    log = []

    def compute(batches):
        for batch in batches:
            log.append(batch)
            yield {item: {"text": str(item)} for item in batch}

    results = map_resumable(list("abcd"), 1, compute, TextCache(tmp_path))
    assert [result["text"] for result in results] == list("0123") and len(log) == 4
    (record,) = caplog.records
    assert f"{tmp_path} cannot be written (No space left on device)" in record.message


def test_two_processes_give_the_metrics_of_one(checkpoint, world, samples, tmp_path):
    """Five samples in batches of two: three batches for two processes."""
    program = [sys.executable, "-m", "helpers.evaluation_world"]
    arguments = ["2", str(tmp_path / "rendezvous"), checkpoint, str(world), str(tmp_path)]
    started = [subprocess.Popen([*program, str(rank), *arguments], cwd=Path(__file__).parent) for rank in range(2)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    expected = json.loads(json.dumps(evaluate_all(checkpoint, samples)))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == expected
    for task, result in second.items():
        assert result == {**expected[task], "predictions": []}
