# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import functools
import io
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import AutoModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from helpers.media_files import render_clips, write_video, write_wav
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorProcessor,
)


TASKS = {"audiovisual-captioning": "generated_text", "audiovisual-question-answering": "answer"}
QUESTION = "what is near the soccer ?"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return render_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def folder(converted):
    return str(converted("clip-vision-bert-shared"))


@pytest.fixture(scope="module")
def captioner(folder):
    return pipeline("audiovisual-captioning", model=folder, max_new_tokens=6, device="cpu")


@pytest.fixture(scope="module")
def answerer(folder):
    return pipeline("audiovisual-question-answering", model=folder, max_new_tokens=4, device="cpu")


# ----------------------------------------------------------------------------- numbers


def test_caption_equals_processor_and_model_by_hand(folder, captioner, clips):
    model, processor = ValorForCaptioning.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)
    inputs = processor(videos=clips["both"], return_tensors="pt")
    expected = processor.post_process_generation(model.generate(**inputs, max_new_tokens=6))
    assert captioner(clips["both"]) == [{"generated_text": expected[0], "modalities": "av"}]


def test_answer_equals_processor_and_model_by_hand(folder, answerer, clips):
    model, processor = ValorForQuestionAnswering.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)
    inputs = processor(videos=clips["both"], question=QUESTION, return_tensors="pt")
    expected = processor.post_process_generation(model.generate(**inputs, max_new_tokens=4))
    assert answerer(clips["both"], question=QUESTION) == [{"answer": expected[0], "modalities": "av"}]


def test_batch_with_missing_modalities_equals_singles(captioner, clips):
    files = [clips[name] for name in ("both", "silent", "sound", "other", "both")]
    singles = [captioner(file) for file in files]
    assert [single[0]["modalities"] for single in singles] == ["av", "v", "a", "av", "av"]
    assert captioner(files, batch_size=3) == singles
    assert captioner(files) == singles


def test_batch_of_questions_of_different_length_equals_singles(answerer, clips):
    samples = [
        {"video": clips["both"], "question": "what barks ?"},
        {"video": clips["silent"], "question": QUESTION},
        {"audio": clips["sound"], "question": "near ?"},
    ]
    singles = [answerer(sample) for sample in samples]
    assert [single[0]["modalities"] for single in singles] == ["av", "v", "a"]
    assert answerer(samples, batch_size=3) == singles


def test_all_beams_come_with_scores_best_first(folder, captioner, clips):
    model, processor = ValorForCaptioning.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)
    inputs = processor(videos=clips["both"], return_tensors="pt")
    options = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 6}
    expected = model.generate(**inputs, **options, return_dict_in_generate=True, output_scores=True)
    results = captioner(clips["both"], return_all=True, num_beams=4)
    assert [result["generated_text"] for result in results] == processor.post_process_generation(expected.sequences)
    torch.testing.assert_close(torch.tensor([r["score"] for r in results]), expected.sequences_scores)
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert len(captioner(clips["both"], return_all=True)) == 3


def test_scores_of_a_batch_equal_singles(captioner, clips):
    files = [clips[name] for name in ("both", "silent", "sound")]
    batch = captioner(files, return_all=True, batch_size=3)
    for results, file in zip(batch, files, strict=True):
        for result, expected in zip(results, captioner(file, return_all=True), strict=True):
            assert result["generated_text"] == expected["generated_text"]
            assert result["score"] == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"do_sample": True, "top_k": 1}])
def test_score_of_one_text_is_the_log_probability_of_its_words(captioner, clips, options):
    inputs = captioner.processor(videos=clips["silent"], return_tensors="pt")
    greedy = captioner.model.generate(**inputs, max_new_tokens=6, return_dict_in_generate=True, output_logits=True)
    expected = sum(
        logits[0].log_softmax(-1)[word].item()
        for logits, word in zip(greedy.logits, greedy.sequences[0, 1:], strict=True)
    )
    (result,) = captioner(clips["silent"], return_all=True, **options)
    assert result["generated_text"] == captioner(clips["silent"])[0]["generated_text"]
    assert result["score"] == pytest.approx(expected, abs=1e-4)


# ----------------------------------------------------------------------------- inputs


def test_every_form_of_input_gives_the_same_captions(captioner, clips):
    datasets = pytest.importorskip("datasets")
    captioner = functools.partial(captioner, max_new_tokens=2)
    files = [clips["both"], clips["sound"]]
    expected = [captioner(file) for file in files]
    contents = [Path(file).read_bytes() for file in files]
    dataset = datasets.Dataset.from_dict({"video": files}).cast_column("video", datasets.Video(decode=False))

    assert captioner(files) == expected
    assert captioner(tuple(files)) == expected
    assert captioner([Path(file) for file in files]) == expected
    assert captioner(contents) == expected
    assert captioner([io.BytesIO(content) for content in contents]) == expected
    assert captioner([{"video": file} for file in files]) == expected
    assert captioner([{"video": clips["both"]}, {"audio": clips["sound"]}]) == expected
    assert (
        captioner([{"video": clips["both"], "audio": clips["both"]}, {"video": None, "audio": clips["sound"]}])
        == expected
    )
    assert captioner(dataset["video"], batch_size=2) == expected
    assert captioner(dataset) == expected
    assert list(captioner(KeyDataset(dataset, "video"))) == expected
    assert captioner([]) == []


def test_valor_tiny_writes_the_same_in_batches_of_questions_of_any_length():
    root = Path(__file__).parents[1]
    answerer = pipeline("audiovisual-question-answering", model=str(root / "hub_configs" / "valor-tiny"), device="cpu")
    files = sorted(map(str, (root / "examples" / "media").glob("*.mp4")))
    questions = [
        "what is heard?",
        "is a bell heard just as the triangle and the cross collide?",
        "is the triangle small or large?",
    ]
    samples = [{"video": file, "question": question} for question in questions for file in files[:2]]
    singles = [answerer(sample) for sample in samples]
    assert {single[0]["answer"] for single in singles} == {"bell", "yes", "no", "large"}
    assert answerer(samples, batch_size=4) == singles


def test_the_next_batch_is_read_while_the_model_works(captioner, clips, monkeypatch):
    """The model waits for it here, and no more than it is read."""
    read, later = [], threading.Event()
    read_media, forward = captioner.read_media, captioner.forward

    def noting(sample, *args, **kwargs):
        read.append(threading.current_thread())
        if len(read) == 4:
            later.set()
        return read_media(sample, *args, **kwargs)

    def waiting(inputs, **kwargs):
        assert later.wait(timeout=60) and len(read) <= 4 + 2 * waiting.batches
        waiting.batches += 1
        return forward(inputs, **kwargs)

    waiting.batches = 0
    files = [clips[name] for name in ("both", "silent", "sound", "other", "both", "silent", "sound")]
    singles = [captioner(file) for file in files]
    monkeypatch.setattr(captioner, "read_media", noting)
    monkeypatch.setattr(captioner, "forward", waiting)
    assert captioner(files, batch_size=2) == singles
    assert threading.main_thread() not in read and len(read) == 7


def test_results_of_a_dataset_can_be_gone_through_again(captioner, clips):
    files = [{"file": clips[name]} for name in ("both", "silent", "sound", "other", "both")]
    results = captioner(KeyDataset(files, "file"), batch_size=3)
    next(iter(results))
    assert list(results) == list(results) == [captioner(file["file"]) for file in files]


class Counted(IterableDataset):
    """Knows how many samples it has."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)

    def __len__(self):
        return len(self.samples)


def test_a_stream_that_knows_its_length_is_a_stream(captioner, clips):
    files = [clips[name] for name in ("both", "silent", "sound")]
    assert list(captioner(Counted(files), batch_size=2)) == captioner(files)


def test_random_frames_are_read_in_turn(captioner, clips, monkeypatch):
    """Their random numbers are of one generator."""
    threads = []
    read_media = captioner.read_media
    monkeypatch.setattr(
        captioner,
        "read_media",
        lambda *args, **kwargs: threads.append(threading.get_ident()) or read_media(*args, **kwargs),
    )
    captioner([clips["both"], clips["silent"]], processor_kwargs={"sampling": "random", "generator": 3})
    assert threads == [threading.get_ident()] * 2


def test_random_choices_of_the_processor_and_of_its_parts_are_known(captioner, monkeypatch):
    assert captioner.reads_ahead({}) and captioner.reads_ahead({"sampling": "center", "num_frames": 2})
    for part in ({"do_flip": True}, {"crop_scale": (0.5, 1.0)}, {"sampling": "random"}, {"generator": 3}):
        assert not captioner.reads_ahead({"videos_kwargs": part})
    assert not captioner.reads_ahead({"audio_kwargs": {"sampling": "random"}})
    monkeypatch.setattr(captioner.processor.video_processor, "do_flip", True)
    assert not captioner.reads_ahead({})


def test_generator_is_consumed_lazily(captioner, clips):
    seen = []

    def files():
        for name in ("both", "silent", "sound"):
            seen.append(name)
            yield clips[name]

    results = captioner(files())
    assert seen in ([], ["both"])
    assert list(results) == [captioner(clips[name]) for name in ("both", "silent", "sound")]


def test_modalities_select_what_the_caption_is_made_from(captioner, clips):
    assert captioner(clips["both"], modalities="v")[0]["modalities"] == "v"
    assert captioner(clips["both"], modalities="a")[0]["modalities"] == "a"
    only_video = captioner(clips["silent"])
    assert captioner({"video": clips["silent"], "audio": clips["sound"]}, modalities="v") == only_video


def test_numbers_of_frames_and_clips_reach_the_processor(captioner, clips, monkeypatch):
    shapes = []
    encode = captioner.model.valor.encode_conditions

    def recording(**inputs):
        shapes.append((inputs["pixel_values_videos"].shape[1], inputs["input_features"].shape[1]))
        return encode(**inputs)

    monkeypatch.setattr(captioner.model.valor, "encode_conditions", recording)
    captioner(clips["other"], num_frames=3, num_audio_clips=2)
    captioner(clips["other"], processor_kwargs={"num_frames": 2, "num_audio_clips": 1})
    assert shapes == [(3, 2), (2, 1)]


def test_one_question_for_all_and_one_for_each(answerer, clips):
    files = [clips["both"], clips["silent"]]
    assert answerer(files, question=QUESTION) == [answerer(file, question=QUESTION) for file in files]
    asked = ["what barks ?", QUESTION]
    expected = [answerer(file, question=question) for file, question in zip(files, asked, strict=True)]
    assert answerer(files, question=asked, batch_size=2) == expected
    assert list(answerer((file for file in files), question=asked)) == expected


@pytest.mark.parametrize("question", ["", " ", ["what barks ?", ""], None])
def test_a_question_without_words_is_refused(answerer, clips, question):
    with pytest.raises(ValueError, match="must be a string with words in it"):
        answerer(clips["both"], question=question)


def test_questions_about_a_dataset_are_those_about_its_files(answerer, clips):
    files = [clips["both"], clips["silent"]]
    dataset = KeyDataset([{"file": file} for file in files], "file")
    assert list(answerer(dataset, question=QUESTION)) == answerer(files, question=QUESTION)
    asked = ["what barks ?", QUESTION]
    assert list(answerer(dataset, question=asked, batch_size=2)) == answerer(files, question=asked)


def test_several_questions_about_a_video_read_and_encode_it_once(answerer, clips, monkeypatch):
    asked = ["what barks ?", QUESTION, "near ?"]
    expected = [answerer(clips["both"], question=question) for question in asked]
    rows = []
    encode = answerer.model.valor.encode_conditions

    def recording(**inputs):
        rows.append(len(inputs["pixel_values_videos"]))
        return encode(**inputs)

    monkeypatch.setattr(answerer.model.valor, "encode_conditions", recording)
    assert answerer(clips["both"], question=asked) == expected
    assert rows == [1]
    samples = [{"video": clips["both"], "question": asked}, {"video": clips["silent"], "question": QUESTION}]
    assert answerer(samples, batch_size=2) == [expected, answerer(clips["silent"], question=QUESTION)]
    many = answerer(clips["both"], question=asked, return_all=True, num_beams=2)
    assert [len(texts) for texts in many] == [2, 2, 2]
    with pytest.raises(ValueError, match="question"):
        answerer(clips["both"], question=[])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_sample_that_cannot_be_read_costs_no_other_result(captioner, clips, tmp_path, batch_size):
    broken = tmp_path / "text.mp4"
    broken.write_text("this is no video")
    files = [clips["both"], str(broken), clips["silent"], str(broken)]
    options = {"on_error": "skip", "batch_size": batch_size}
    both, error, silent, again = captioner(files, **options)
    assert [both, silent] == captioner([clips["both"], clips["silent"]])
    assert error == again and error[0]["generated_text"] is None and "text.mp4" in error[0]["error"]
    assert list(captioner((file for file in files), **options)) == [both, error, silent, again]
    assert captioner([str(broken)], **options) == [error]
    with pytest.raises(ValueError, match=r"text\.mp4"):
        captioner(files, batch_size=batch_size)
    with pytest.raises(ValueError, match="on_error"):
        captioner(files, on_error="ignore")


def test_a_list_of_questions_about_a_broken_file_has_one_error_each(answerer, tmp_path):
    broken = tmp_path / "text.mp4"
    broken.write_text("this is no video")
    results = answerer(str(broken), question=["what barks ?", QUESTION], on_error="skip")
    assert [result[0]["answer"] for result in results] == [None, None]


def test_waveforms_are_samples_of_sound(captioner, clips):
    rate = 22_050
    waveform = torch.randn(rate, generator=torch.Generator().manual_seed(0)).numpy()
    expected = captioner({"audio": {"array": waveform, "sampling_rate": rate}})
    assert expected[0]["modalities"] == "a"
    assert captioner({"array": waveform, "sampling_rate": rate}) == expected
    assert captioner((waveform, rate)) == captioner((rate, waveform)) == expected
    assert captioner([(waveform[None], rate), (waveform[:, None], rate)]) == [expected] * 2


def test_results_say_how_little_of_a_long_file_was_used(captioner, clips, tmp_path):
    """90 frames, one every four seconds, and a last one of 1/25 second: 356.04 seconds, of which the checkpoint takes a few frames."""
    film = write_video(tmp_path / "long.mp4", count=90, stamps=range(0, 90 * 400, 400))
    frames = captioner.processor.video_processor.num_frames
    (result,) = captioner(film)
    assert result["coverage"] == {"duration": 356.04, "frames": frames}
    assert captioner([film, clips["both"]], batch_size=2)[0][0]["coverage"]["frames"] == frames
    # A frame every 30 seconds is enough, and short files are seen well
    assert "coverage" not in captioner(film, num_frames=12)[0]
    assert "coverage" in captioner(film, num_frames=11)[0]
    assert "coverage" not in captioner(clips["both"])[0]
    sound = write_wav(tmp_path / "long.wav", seconds=70)
    assert captioner(sound, num_audio_clips=2)[0]["coverage"] == {"duration": 70.0, "audio_clips": 2}
    assert "coverage" not in captioner(sound, num_audio_clips=3)[0]


def test_generation_arguments_work_in_both_places(captioner, clips):
    short = captioner(clips["both"], max_new_tokens=2)
    assert captioner(clips["both"], generate_kwargs={"max_new_tokens": 2}) == short
    assert short != captioner(clips["both"])
    torch.manual_seed(0)
    sampled = captioner(clips["both"], do_sample=True, num_return_sequences=3, return_all=True)
    assert len(sampled) == 3
    with pytest.raises(ValueError, match="given twice"):
        captioner(clips["both"], max_new_tokens=2, generate_kwargs={"max_new_tokens": 2})


def test_missing_question_is_a_clear_error(answerer, clips):
    with pytest.raises(ValueError, match="question"):
        answerer(clips["both"])
    with pytest.raises(ValueError, match="2 samples, but 1 questions"):
        answerer([clips["both"]] * 2, question=[QUESTION])


# ----------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("name", ["num_frames", "num_audio_clips"])
@pytest.mark.parametrize("number", [0, 1.5, "3"])
def test_numbers_of_frames_and_clips_are_whole_and_positive(captioner, clips, name, number):
    with pytest.raises(ValueError, match=f"^`{name}` must be a whole number of at least 1, got {number!r}.$"):
        captioner(clips["both"], on_error="skip", **{name: number})


def settings(processor: ValorProcessor) -> dict:
    """All that a processor says of itself and its parts but where their code is, which concerns the files."""
    parts = {name: part for name, part in processor.to_dict().items() if name != "auto_map"}
    for name in ("video_processor", "feature_extractor"):
        parts[name] = {key: value for key, value in parts[name].items() if key != "auto_map"}
    return parts


@pytest.mark.parametrize("task", TASKS)
def test_saved_pipeline_is_loaded_unchanged(folder, clips, tmp_path, task):
    options = {"max_new_tokens": 3, "device": "cpu"}
    original = pipeline(task, model=folder, **options)
    sample = {"video": clips["both"], "question": QUESTION}
    original.save_pretrained(tmp_path)
    loaded = pipeline(task, model=str(tmp_path), **options)
    assert isinstance(loaded.processor, ValorProcessor)
    assert settings(loaded.processor) == settings(original.processor)
    assert loaded(sample) == original(sample)
    assert set(loaded(sample)[0]) == {TASKS[task], "modalities"}


def test_pipeline_is_built_from_objects(folder, captioner, clips):
    model, processor = ValorForCaptioning.from_pretrained(folder), ValorProcessor.from_pretrained(folder)
    built = pipeline("audiovisual-captioning", model=model, processor=processor, device="cpu", num_frames=2)
    assert built(clips["both"], max_new_tokens=6) == captioner(clips["both"], num_frames=2)


def test_half_precision_model_gets_half_precision_inputs(folder, clips):
    built = pipeline("audiovisual-captioning", model=folder, dtype=torch.bfloat16, device="cpu", max_new_tokens=2)
    assert isinstance(built(clips["both"])[0]["generated_text"], str)


@pytest.mark.parametrize("cls", [ValorForPreTraining, ValorForRetrieval, ValorForQuestionAnswering])
def test_any_head_of_a_checkpoint_makes_a_pipeline(folder, captioner, answerer, clips, cls):
    built = [
        pipeline(task, model=cls.from_pretrained(folder), processor=captioner.processor, max_new_tokens=4)
        for task in TASKS
    ]
    assert built[0](clips["both"]) == captioner(clips["both"], max_new_tokens=4)
    assert built[1](clips["both"], question=QUESTION) == answerer(clips["both"], question=QUESTION)


@pytest.mark.parametrize("task", TASKS)
def test_a_model_without_a_head_is_refused_by_pipelines(folder, captioner, task):
    with pytest.raises(ValueError, match="ValorModel has no decoder head"):
        pipeline(task, model=AutoModel.from_pretrained(folder), processor=captioner.processor)


def test_real_video_is_captioned(captioner, shared):
    (result,) = captioner(shared / "media/real/video/dog_barking_4s.mp4")
    assert result["modalities"] == "av"
    assert isinstance(result["generated_text"], str)
