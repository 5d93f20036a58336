# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import functools
import http.server
import logging
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from PIL import Image
from transformers import AutoProcessor, BertTokenizer, CLIPTokenizer

from helpers.media_files import render_clips, torchcodec_works
from modeling_valor import ValorFeatureExtractor, ValorProcessor, ValorVideoProcessor, processing_valor
from modeling_valor.media import MediaError


FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return render_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def processor():
    return ValorProcessor(
        BertTokenizer(str(FIXTURES / "vocab.txt")),
        ValorVideoProcessor(size={"height": 32, "width": 32}, num_frames=4),
        ValorFeatureExtractor(),
    )


def assert_same(result, expected):
    assert set(result) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, msg=lambda text, name=name: f"{name}: {text}")


# ----------------------------------------------------------------------------- text


def test_text_is_framed_padded_and_masked(processor):
    inputs = processor(text=["a dog barks", ""], return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["input_ids"][0, 0] == 101
    assert inputs["input_ids"][0, -1] == 102
    assert inputs["input_ids"][1].tolist() == [101, 102] + [0] * (inputs["input_ids"].shape[1] - 2)
    assert inputs["attention_mask"][1].tolist() == [1, 1] + [0] * (inputs["input_ids"].shape[1] - 2)


def test_long_text_is_cut_with_one_warning(processor, caplog, monkeypatch):
    processing_valor.logger.warning_once.cache_clear()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    for _ in range(2):
        ids = processor(text="dog " * 100, return_tensors="pt")["input_ids"]
    assert ids.shape == (1, 40)
    assert ids[0, -1] == 102
    message = "Text of more than 40 tokens is cut: the first 40 are used (`max_length` of the processor)."
    assert [record.message for record in caplog.records if "tokens" in record.message] == [message]
    assert processor(text="dog " * 100, max_length=60, return_tensors="pt")["input_ids"].shape == (1, 60)


def test_question_comes_beside_text_and_one_question_serves_all_samples(processor, clips):
    inputs = processor(text="dog", question="what barks ?", return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask", "question_input_ids", "question_attention_mask"}
    assert inputs["question_input_ids"].tolist() == processor(text="what barks ?")["input_ids"]
    inputs = processor(videos=[clips["both"], clips["silent"]], question="what barks ?", return_tensors="pt")
    assert inputs["question_input_ids"].shape[0] == 2


@pytest.mark.parametrize("text", [[], 3, [3], [None], [["dog"]]])
def test_text_of_another_type_is_a_clear_error(processor, text):
    with pytest.raises(ValueError, match="string or a list of strings"):
        processor(text=text)


def test_clip_tokens_are_padded_with_zero(tmp_path):
    words = ["!", "dog</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    assert tokenizer.pad_token_id == 3
    processor = ValorProcessor(tokenizer, ValorVideoProcessor(), ValorFeatureExtractor())
    inputs = processor(text=["", "! !"], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == [2, 3] + [0] * (inputs["input_ids"].shape[1] - 2)
    assert inputs["attention_mask"][0].sum() == 2


@pytest.mark.parametrize("name", ["clip-vision-bert-shared", "videoswin-bert-shared"])
def test_generated_ids_read_as_the_2023_code_prints_them(processor, parity, name):
    recorded = parity(name)
    for run, texts in recorded.captions.items():
        assert processor.post_process_generation(recorded.expected[run]) == texts
    ids = recorded.expected[next(iter(recorded.captions))][0]
    assert processor.post_process_generation(ids) == processor.post_process_generation(ids.numpy()[None].tolist())


# ----------------------------------------------------------------------------- frames and sound


def test_video_file_gives_frames_and_its_own_sound(processor, clips):
    inputs = processor(videos=clips["both"], return_tensors="pt")
    assert set(inputs) == {"pixel_values_videos", "input_features"}
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 32, 32)
    assert inputs["input_features"].shape == (1, 1, 64, 512)
    expected = dict(processor.video_processor(clips["both"], return_tensors="pt"))
    expected.update(processor.feature_extractor(clips["both"], return_tensors="pt"))
    assert_same(inputs, expected)


def test_numbers_of_frames_and_clips_are_arguments(processor, clips):
    inputs = processor(videos=clips["other"], num_frames=6, num_audio_clips=2, return_tensors="pt")
    assert inputs["pixel_values_videos"].shape[1] == 6
    assert inputs["input_features"].shape[1] == 2


def test_missing_modalities_are_masked_in_a_batch_and_left_out_alone(processor, clips):
    batch = processor(videos=[clips["both"], clips["silent"], clips["sound"], None], return_tensors="pt")
    assert batch["frame_mask"].tolist() == [[True] * 4, [True] * 4, [False] * 4, [False] * 4]
    assert batch["audio_mask"].tolist() == [[True], [False], [True], [False]]
    assert not batch["pixel_values_videos"][2:].any()
    assert not batch["input_features"][[1, 3]].any()
    assert set(processor(videos=clips["silent"])) == {"pixel_values_videos"}
    assert set(processor(videos=clips["sound"])) == {"input_features"}


@pytest.mark.parametrize("modalities, names", [("v", "pixel_values_videos"), ("a", "input_features")])
def test_modalities_select_what_is_read(processor, clips, modalities, names):
    assert set(processor(videos=clips["both"], modalities=modalities)) == {names}


def test_batch_equals_singles(processor, clips):
    files = [clips[name] for name in ("both", "silent", "sound", "other")]
    texts = ["a dog barks", "", "a", "near near near"]
    options = {"num_audio_clips": 2, "return_tensors": "pt"}
    batch = processor(videos=files, text=texts, question=texts[::-1], **options)
    singles = [
        processor(videos=file, text=text, question=question, **options)
        for file, text, question in zip(files, texts, texts[::-1], strict=True)
    ]
    assert_same(processor.pad(singles), batch)


def test_padding_joins_different_numbers_of_frames_and_clips(processor, clips):
    short = processor(videos=clips["both"], num_frames=2, num_audio_clips=1, return_tensors="pt")
    long = processor(videos=clips["other"], num_frames=5, num_audio_clips=3, return_tensors="pt")
    joined = processor.pad([short, long])
    assert joined["frame_mask"].tolist() == [[True] * 2 + [False] * 3, [True] * 5]
    assert joined["audio_mask"].tolist() == [[True, False, False], [True] * 3]
    torch.testing.assert_close(joined["pixel_values_videos"][0, :2], short["pixel_values_videos"][0])
    assert not joined["pixel_values_videos"][0, 2:].any()


def test_padding_refuses_samples_of_different_kinds(processor, clips):
    with pytest.raises(ValueError, match="input_ids"):
        processor.pad([processor(text="a", return_tensors="pt"), processor(videos=clips["both"], return_tensors="pt")])
    sizes = [
        processor(videos=clips["silent"], size=size, return_tensors="pt")
        for size in ({"height": 32, "width": 32}, {"height": 48, "width": 48})
    ]
    with pytest.raises(ValueError, match="pixel_values_videos"):
        processor.pad(sizes)


def test_given_audio_replaces_that_of_the_video(processor, clips):
    inputs = processor(videos=clips["both"], audio=clips["sound"], return_tensors="pt")
    expected = processor.feature_extractor(clips["sound"], return_tensors="pt")["input_features"]
    torch.testing.assert_close(inputs["input_features"], expected)
    inputs = processor(videos=[clips["both"]] * 2, audio=[None, clips["sound"]], return_tensors="pt")
    assert inputs["audio_mask"].tolist() == [[False], [True]]


def test_sound_of_the_video_can_be_left_alone(processor, clips):
    assert set(processor(videos=clips["both"], load_audio_from_video=False)) == {"pixel_values_videos"}


def test_arrays_and_waveforms_need_no_files(processor):
    video = np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), dtype=np.uint8)
    inputs = processor(videos=video, audio=np.zeros(16000, dtype=np.float32), sampling_rate=16000, return_tensors="pt")
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 32, 32)
    assert inputs["input_features"].shape == (1, 1, 64, 512)


def test_every_source_of_a_file_gives_the_same(processor, clips):
    expected = processor(videos=clips["both"], return_tensors="pt")
    path = Path(clips["both"])

    class Decoded:
        """What a `datasets` video column gives, as far as it matters here."""

        _hf_encoded = {"path": str(path), "bytes": None}

    with path.open("rb") as file:
        sources = [
            path,
            path.read_bytes(),
            file,
            {"bytes": path.read_bytes(), "path": None},
            {"path": str(path)},
            Decoded(),
        ]
        for source in [*sources, [path], [[str(path)]]]:
            assert_same(processor(videos=source, return_tensors="pt"), expected)


def test_a_url_is_fetched_once_for_frames_and_sound(processor, clips):
    served = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            served.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=Path(clips["both"]).parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/both.mp4"
        assert_same(processor(videos=url, return_tensors="pt"), processor(videos=clips["both"], return_tensors="pt"))
        server.shutdown()
    assert served == ["/both.mp4"]


def test_sound_that_says_its_rate_is_a_sample_without_frames(processor, clips):
    samples = np.sin(np.arange(8000) / 10).astype(np.float32)
    expected = processor(audio=samples, sampling_rate=16000, return_tensors="pt")
    entry = {"array": samples, "sampling_rate": 16000}
    for sound in (entry, [entry], (samples, 16000), [(samples, 16000)]):
        assert_same(processor(videos=sound, return_tensors="pt"), expected)
        assert_same(processor(audio=sound, return_tensors="pt"), expected)
    batch = processor(videos=[entry, clips["silent"]], return_tensors="pt")
    assert batch["frame_mask"].any(1).tolist() == [False, True]
    assert batch["audio_mask"].any(1).tolist() == [True, False]


def test_frames_with_metadata_are_one_sample(processor):
    frames = np.random.default_rng(0).integers(0, 255, (9, 40, 40, 3), dtype=np.uint8)
    pair = (frames, {"fps": 3.0, "total_num_frames": 9})
    assert_same(processor(videos=pair, return_tensors="pt"), processor(videos=frames, return_tensors="pt"))


def test_limits_of_media_hold_for_frames_and_sound(processor, clips, tmp_path):
    parts = (processor.tokenizer, processor.video_processor, processor.feature_extractor)
    closed = ValorProcessor(*parts, media_limits={"public_only": True})
    closed.save_pretrained(tmp_path)
    for refusing in (closed, AutoProcessor.from_pretrained(tmp_path)):
        for inputs in ({"videos": clips["both"]}, {"audio": clips["sound"]}, {"videos": [[clips["both"]] * 2]}):
            with pytest.raises(MediaError, match="only http and https"):
                refusing(**inputs)
            assert refusing(**inputs, media_limits={}) if "audio" in inputs else True
        assert refusing(videos=Path(clips["both"]).read_bytes(), audio=Path(clips["sound"]).read_bytes())
    with pytest.raises(MediaError, match="limit of 100 bytes"):
        processor(audio=Path(clips["sound"]).read_bytes(), media_limits={"max_bytes": 100})
    with pytest.raises(ValueError, match="media_limits"):
        ValorProcessor(*parts, media_limits={"public": True})


def test_columns_of_datasets_are_read(processor, clips):
    datasets = pytest.importorskip("datasets")
    columns = {"video": [clips["both"], clips["silent"]], "audio": [clips["sound"], clips["other"]]}
    dataset = datasets.Dataset.from_dict(columns)
    dataset = dataset.cast_column("video", datasets.Video(decode=False)).cast_column(
        "audio", datasets.Audio(decode=False)
    )
    inputs = processor(videos=list(dataset["video"]), audio=list(dataset["audio"]), return_tensors="pt")
    assert_same(inputs, processor(videos=columns["video"], audio=columns["audio"], return_tensors="pt"))


@pytest.mark.parametrize("decode", [False, True])
def test_videos_in_archives_are_read_from_columns_of_datasets(processor, clips, tmp_path, decode):
    """A decoded entry is a VideoDecoder that remembers an address such as zip://both.mp4::clips.zip."""
    datasets = pytest.importorskip("datasets")
    if decode and not torchcodec_works():
        pytest.skip("needs torchcodec and FFmpeg")
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        for name in ("both", "silent"):
            archive.write(clips[name], f"{name}.mp4")
    addresses = [f"zip://{name}.mp4::{tmp_path}/clips.zip" for name in ("both", "silent")]
    dataset = datasets.Dataset.from_dict({"video": addresses}).cast_column("video", datasets.Video(decode=decode))
    inputs = processor(videos=list(dataset["video"]), return_tensors="pt")
    assert_same(inputs, processor(videos=[clips["both"], clips["silent"]], return_tensors="pt"))
    if decode:
        assert hasattr(dataset[0]["video"], "get_frames_at")


def test_random_sampling_reaches_frames_and_clips(processor, clips):
    torch.manual_seed(0)
    draws = [processor(videos=clips["other"], sampling="random", return_tensors="pt") for _ in range(4)]
    for name in ("pixel_values_videos", "input_features"):
        assert any(not torch.equal(draws[0][name], draw[name]) for draw in draws[1:])


# ----------------------------------------------------------------------------- bad input


def test_nothing_at_all_is_a_clear_error(processor):
    with pytest.raises(ValueError, match="nothing to process"):
        processor()


def test_a_file_without_the_modality_asked_for_is_a_clear_error(processor, clips):
    with pytest.raises(MediaError, match=r"sound\.m4a"):
        processor(videos=clips["sound"], modalities="v")
    with pytest.raises(ValueError, match="modalities"):
        processor(videos=clips["silent"], modalities="a")
    assert set(processor(text="a dog", videos=clips["silent"], modalities="a")) == {"input_ids", "attention_mask"}


def test_unknown_arguments_are_refused_by_name(processor, clips):
    with pytest.raises(TypeError, match=r"'images'\. An image is a video of one frame: give it as `videos`"):
        processor(text="a dog", images=clips["both"])
    with pytest.raises(TypeError, match="'num_frame', 'videoz'"):
        processor(text="a dog", videoz=clips["both"], num_frame=3)
    with pytest.raises(TypeError, match="num_frame"):
        processor(videos=clips["both"], videos_kwargs={"num_frame": 3})
    with pytest.raises(TypeError, match="num_clips"):
        processor(videos=clips["both"], audio_kwargs={"num_clips": 3})


def test_a_picture_given_as_sound_is_named(processor, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    for inputs, message in (
        ({"audio": tmp_path / "picture.png"}, "is given as audio and has no sound"),
        ({"audio": [str(tmp_path / "picture.png")]}, "is given as audio and has no sound"),
        ({"videos": tmp_path / "picture.png", "modalities": "a"}, "has nothing of `modalities=.*no sound"),
    ):
        with pytest.raises(MediaError, match=rf"picture\.png {message}"):
            processor(**inputs)


def test_different_numbers_of_videos_sounds_and_questions_are_clear_errors(processor, clips):
    with pytest.raises(ValueError, match="1 questions for 2 samples"):
        processor(videos=[clips["both"]] * 2, question=["what ?"])
    with pytest.raises(ValueError, match="same samples"):
        processor(videos=[clips["both"]] * 2, audio=[clips["sound"]])


def test_a_broken_file_is_named(processor, clips, tmp_path):
    for name, content in (("empty.mp4", b""), ("text.mp4", b"a note\n" * 50), ("noise.mp4", bytes(range(256)) * 40)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name):
            processor(videos=[clips["both"], tmp_path / name])
    with pytest.raises(MediaError, match="absent"):
        processor(videos=str(tmp_path / "absent.mp4"))


@pytest.mark.filterwarnings("ignore:.*as far as it goes")
def test_every_broken_file_is_read_or_named(processor, shared):
    for path in sorted((shared / "media/broken").iterdir()):
        try:
            inputs = processor(videos=path, return_tensors="pt")
        except MediaError as error:
            assert path.name in str(error)
        else:
            assert all(value.isfinite().all() for value in inputs.values())


def test_unknown_modalities_are_a_clear_error(processor, clips):
    with pytest.raises(StrictDataclassFieldValidationError, match="'av', 'v', 'a'"):
        processor(videos=clips["both"], modalities="x")


# ----------------------------------------------------------------------------- transformers


def test_saved_processor_is_loaded_unchanged(processor, clips, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, ValorProcessor)
    assert loaded.to_dict() == processor.to_dict()
    options = {"text": "a dog", "videos": clips["both"], "return_tensors": "pt"}
    assert_same(loaded(**options), processor(**options))


@pytest.mark.parametrize("missing", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_processor_whose_tokenizer_files_are_missing_is_refused(processor, tmp_path, missing):
    processor.save_pretrained(tmp_path)
    for name in missing:
        (tmp_path / name).unlink()
    with pytest.raises(OSError, match=r"has no tokenizer: add the `tokenizer.json`"):
        ValorProcessor.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ndog\n")
    if len(missing) == 1:  # else nothing says which kind of tokenizer the words are for
        assert len(ValorProcessor.from_pretrained(tmp_path).tokenizer) == 7


def test_input_names_are_those_of_complete_samples(processor, clips):
    assert set(processor(text="a dog", videos=clips["both"])) == set(processor.model_input_names)


def test_text_is_cleaned_where_the_model_was_trained_on_clean_text(processor, tmp_path):
    """As the 2023 code does; the setting is the checkpoint's."""
    plain = processor(text="a dog barks", question="what is it", return_tensors="pt")
    assert not processor.clean_text
    processor = ValorProcessor(
        processor.tokenizer, processor.video_processor, processor.feature_extractor, clean_text=True
    )
    processor.save_pretrained(tmp_path)
    cleaned = ValorProcessor.from_pretrained(tmp_path)(
        text="A dog barks!", question="What is it?", return_tensors="pt"
    )
    for name, value in plain.items():
        assert torch.equal(cleaned[name], value)
