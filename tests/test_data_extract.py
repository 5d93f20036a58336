# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Extracted folders: what they hold is what the clips hold; killed, broken and crashing extractions."""

import errno
import json
import math
import os
import signal
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.warm import run_warm
from modeling_valor import ValorFeatureExtractor, ValorVideoProcessor
from modeling_valor.cli.main import main
from modeling_valor.data import extract as extract_module
from modeling_valor.data.extract import ExtractOptions, extract
from modeling_valor.data.failures import TooManyFailures
from modeling_valor.data.files import sole_writer
from modeling_valor.data.readers import read_folder
from modeling_valor.data.samples import Question, Sample, SampleStream
from modeling_valor.media import audio_info, read_audio, read_frames


EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "media"
CLIP = str(EXAMPLES / "clip-00000.mp4")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extracted")
    result = extract(read_folder(EXAMPLES), folder, workers=1)
    assert (result.samples, result.extracted, result.failures, result.damaged) == (2, 2, {}, {})
    with pytest.warns(FutureWarning, match="now called `samples`"):
        assert result.clips == 2
    return folder


def write_tone(path: Path, seconds: float, rate: int = 16_000) -> str:
    """A rising tone, of 16 bits and mono."""
    times = np.arange(int(seconds * rate)) / rate
    samples = np.round(8000 * np.sin(2 * math.pi * (200 + 40 * times) * times)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", None))
        file.writeframes(samples.tobytes())
    return str(path)


def write_images(folder: Path, count: int, size=(40, 20)) -> str:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (20 * number, 0, 0)).save(folder / f"img_{number}.png")
    return str(folder)


def frames_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jpg"))


# --- What is written --------------------------------------------------------------------------------------------------


def test_texts_and_ids_are_read_back(extracted):
    for sample, original in zip(read_folder(extracted), read_folder(EXAMPLES), strict=True):
        folder = extracted / "clips" / original.id
        assert sample == Sample(
            original.id, str(folder), str(folder / "audio.wav"), original.captions, original.questions
        )


def test_frames_are_those_of_the_video(extracted):
    kept = read_frames(str(extracted / "clips" / "clip-00000"), 10)
    original = read_frames(CLIP, 10)
    assert kept.num_available == 10  # 5 seconds, 2 frames each
    assert (kept.frames.float() - original.frames.float()).abs().mean() < 2.0


def test_sound_is_that_of_the_video_at_the_rate_of_the_features(extracted):
    path = str(extracted / "clips" / "clip-00000" / "audio.wav")
    assert audio_info(path).sampling_rate == 22_050 and audio_info(path).channels == 1
    original = read_audio(CLIP)
    assert original.sampling_rate == 22_050  # so that nothing is resampled here
    assert (read_audio(path).waveform - original.waveform.clamp(-1, 1)).abs().max() <= 0.5 / 2**15 + 1e-7


def test_the_processors_read_an_extracted_clip_as_they_read_the_video(extracted):
    folder = extracted / "clips" / "clip-00000"
    options = {"num_frames": 10, "size": {"height": 64, "width": 64}, "return_tensors": "pt"}
    video = ValorVideoProcessor()
    difference = video(str(folder), **options).pixel_values_videos - video(CLIP, **options).pixel_values_videos
    assert difference.abs().mean() < 0.03
    sound = ValorFeatureExtractor()
    loud = sound([CLIP], return_tensors="pt").input_features
    difference = sound([str(folder / "audio.wav")], return_tensors="pt").input_features - loud
    assert difference[loud > loud.median()].abs().mean() < 0.01


def test_parts_of_a_file_are_extracted_as_files_of_their_own(tmp_path):
    samples = [Sample(f"part-{start}", *2 * [f"{CLIP}#t={start},{start + 2}"], ("a bell",)) for start in (0, 2)]
    assert extract(samples, tmp_path / "parts", workers=1).failures == {}
    for sample in read_folder(tmp_path / "parts"):
        start = int(sample.id[-1])
        whole = read_frames(f"{CLIP}#t={start},{start + 2}", 4)
        kept = read_frames(sample.video, 4)
        assert kept.num_available == 4  # 2 seconds, 2 frames each
        assert (kept.frames.float() - whole.frames.float()).abs().mean() < 2.0
        original = read_audio(CLIP).waveform[2 * start * 11_025 : 2 * (start + 2) * 11_025]
        assert (read_audio(sample.audio).waveform - original.clamp(-1, 1)).abs().max() < 0.02


def test_frames_per_second_count_and_size(tmp_path):
    sample = read_folder(EXAMPLES)[:1]
    for name, options, count, side in (
        ("few", ExtractOptions(num_frames=3, short_side=32), 3, 32),
        ("slow", ExtractOptions(frames_per_second=1), 5, 128),
        ("all", ExtractOptions(frames_per_second=100), 50, 128),
    ):
        extract(sample, tmp_path / name, options, workers=1)
        frames = frames_of(tmp_path / name / "clips" / "clip-00000")
        assert len(frames) == count
        with Image.open(tmp_path / name / "clips" / "clip-00000" / frames[-1]) as image:
            assert image.size == (side, side)


def test_whatever_a_sample_has_is_kept(tmp_path):
    tone, folder = write_tone(tmp_path / "tone.wav", 0.5), write_images(tmp_path / "frames", 4)
    image = str(tmp_path / "frames" / "img_0.png")
    samples = [
        Sample("sound", tone, tone),
        Sample("only sound", None, tone),
        Sample("only sight", CLIP, None),
        Sample("a/folder", folder, tone),
        Sample("../files", [image] * 3),
        Sample(".image", image, image, ("a plane",), (Question("what?", ("plane", "bird"), "sight", "7"),)),
        Sample("bytes", Path(CLIP).read_bytes(), None),
        Sample("x" * 300, image),
    ]
    result = extract(samples, tmp_path / "out", ExtractOptions(num_frames=2), workers=1)
    assert result.samples == len(samples) and not result.failures
    read = read_folder(tmp_path / "out")
    assert [sample.id for sample in read] == [sample.id for sample in samples]
    assert [sample.video is not None for sample in read] == [False, False, *[True] * 6]
    assert [sample.audio is not None for sample in read] == [True, True, False, True, *[False] * 4]
    assert [len(frames_of(Path(sample.video))) for sample in read[2:]] == [2, 2, 2, 1, 2, 1]
    assert (read[5].captions, read[5].questions) == (samples[5].captions, samples[5].questions)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out", "tone.wav"]


def test_a_folder_of_frames_has_no_rate_and_is_kept_whole(tmp_path):
    extract([Sample("a", write_images(tmp_path / "frames", 7))], tmp_path / "out", workers=1)
    assert len(frames_of(tmp_path / "out" / "clips" / "a")) == 7


def test_long_sound_is_read_in_pieces_without_a_seam(tmp_path, monkeypatch):
    samples = [Sample("tone", None, write_tone(tmp_path / "tone.wav", 5.3))]
    extract(samples, tmp_path / "whole", workers=1)
    monkeypatch.setattr(extract_module, "_SECONDS_AT_ONCE", 2)
    extract(samples, tmp_path / "pieces", workers=1)
    whole, pieces = (
        read_audio(str(tmp_path / name / "clips/tone/audio.wav")).waveform for name in ("whole", "pieces")
    )
    assert len(whole) == len(pieces) == math.ceil(5.3 * 22_050)
    assert (whole - pieces).abs().max() <= 1 / 2**15


def test_questions_about_one_clip_decode_it_once(tmp_path):
    samples = [Sample("a", CLIP, None, questions=(Question(f"{n}?", ("so",)),)) for n in range(3)]
    result = extract(samples, tmp_path, workers=1)
    assert (result.samples, result.extracted) == (1, 1)
    assert list(read_folder(tmp_path)) == [
        Sample("a", str(tmp_path / "clips" / "a"), None, questions=sample.questions) for sample in samples
    ]
    with pytest.raises(ValueError, match="two samples with different media have the id 'a'"):
        extract([*samples, Sample("a", None, CLIP)], tmp_path / "other", workers=1)


def test_a_stream_is_extracted_as_well(tmp_path):
    class Stream(SampleStream):
        def samples(self, partition, partitions, epoch, seed):
            yield from read_folder(EXAMPLES)

    assert extract(Stream(), tmp_path, workers=1).samples == 2
    assert len(read_folder(tmp_path)) == 2


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_folder_holds_clips_of_one_kind(tmp_path):
    samples = read_folder(EXAMPLES)[:1]
    extract(samples, tmp_path / "out", workers=1, origin="one")
    with pytest.raises(ValueError, match="has samples of origin one, not two: choose another folder"):
        extract(samples, tmp_path / "out", workers=1, origin="two")
    with pytest.raises(ValueError, match="has samples of short_side 256, not 64: choose another folder"):
        extract(samples, tmp_path / "out", ExtractOptions(short_side=64), workers=1, origin="one")
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "metadata.jsonl").write_text("precious")
    with pytest.raises(ValueError, match="holds a dataset that was not extracted"):
        extract(samples, tmp_path / "world", workers=1)
    assert (tmp_path / "world" / "metadata.jsonl").read_text() == "precious"


def test_options_out_of_range_are_refused(tmp_path):
    for options in ({"frames_per_second": 0}, {"num_frames": 0}, {"short_side": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            ExtractOptions(**options)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        extract([], tmp_path, workers=0)


@pytest.fixture
def broken(tmp_path):
    """A folder of ten images, of which one is text, and one absent."""
    rows = [{"file_name": f"{number}.png", "caption": "grey"} for number in range(10)]
    for row in rows:
        Image.new("RGB", (8, 8)).save(tmp_path / row["file_name"])
    (tmp_path / "3.png").write_text("this is no image")
    (tmp_path / "5.png").unlink()
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_file_is_left_out_and_listed(broken, workers):
    out = broken / "out"
    result = extract(read_folder(broken), out, workers=workers, max_failures=0.2)
    assert (result.samples, result.extracted, sorted(result.failures)) == (8, 8, ["3", "5"])
    assert "3.png" in result.failures["3"] and "does not exist" in result.failures["5"]
    assert not any(why.startswith(f"{identity}:") for identity, why in result.failures.items())
    listed = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in listed) == ["3", "5"]
    assert [sample.id for sample in read_folder(out)] == [str(n) for n in range(10) if n not in (3, 5)]
    Image.new("RGB", (8, 8)).save(broken / "3.png")
    again = extract(read_folder(broken), out, workers=workers, max_failures=0.2)
    assert (again.samples, again.extracted, list(again.failures)) == (9, 1, ["5"])


def test_too_many_broken_files_are_an_error_that_names_some(broken, capsys):
    with pytest.raises(TooManyFailures, match=r"of 10 samples could not be read, more than the 5%.*3\.png"):
        extract(read_folder(broken), broken / "out", workers=1)
    assert not (broken / "out" / "metadata.jsonl").exists()
    assert main(["extract", str(broken), str(broken / "out"), "--workers", "1"]) == 1
    assert "choose another folder" in capsys.readouterr().err  # of another origin
    assert main(["extract", str(broken), str(broken / "out 2"), "--workers", "1"]) == 1
    assert "3.png" in capsys.readouterr().err


def test_a_damaged_file_is_used_as_far_as_it_goes_and_listed(tmp_path):
    tone = Path(write_tone(tmp_path / "tone.wav", 1.0))
    tone.write_bytes(tone.read_bytes()[:20_000])
    result = extract([Sample("a", None, str(tone))], tmp_path / "out", workers=1)
    assert result.samples == 1 and "tone.wav" in result.damaged["a"]


def test_a_file_that_makes_the_decoder_crash_is_a_broken_file(tmp_path, monkeypatch):
    write_sample = extract_module._write_sample

    def crash(job, folder, options):
        if job.id == "clip-00001":
            os.kill(os.getpid(), signal.SIGKILL)
        write_sample(job, folder, options)

    monkeypatch.setattr(extract_module, "_write_sample", crash)
    samples = read_folder(EXAMPLES)
    result = extract([*samples, Sample("third", CLIP)], tmp_path, workers=2, max_failures=0.5)
    assert (result.samples, result.extracted) == (2, 2)
    assert result.failures == {"clip-00001": "decoding it made the process crash."}


def test_a_killed_extraction_goes_on_where_it_stopped(tmp_path):
    samples = [Sample(f"{n}", CLIP, CLIP, (f"caption {n}",)) for n in range(6)]
    program = f"""
import os, signal
from modeling_valor.data import extract as module
from modeling_valor.data.samples import Sample

write_audio, done = module._write_audio, []

def die_at_the_fourth(*arguments):
    done.append(write_audio(*arguments))
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return done[-1]

module._write_audio = die_at_the_fourth
samples = [Sample(f"{{n}}", {CLIP!r}, {CLIP!r}, (f"caption {{n}}",)) for n in range(6)]
module.extract(samples, {str(tmp_path / "killed")!r}, workers=1)
"""
    killed = run_warm("-c", program)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    clips = tmp_path / "killed" / "clips"
    assert sorted(path.name for path in clips.glob("[!.]*")) == ["0", "1", "2"]
    assert not (tmp_path / "killed" / "metadata.jsonl").exists()
    assert extract(samples, tmp_path / "killed", workers=1).extracted == 3
    extract(samples, tmp_path / "whole", workers=1)
    killed, whole = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "killed", tmp_path / "whole")
    )
    assert killed == whole and not any(".partial" in name for name in killed)


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_summary(tmp_path, capsys):
    arguments = ["extract", str(EXAMPLES), str(tmp_path), "--num-frames", "2", "--workers", "2"]
    assert main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == {"directory": str(tmp_path), "samples": 2, "extracted": 2, "failures": {}, "damaged": {}}
    assert main(arguments) == 0
    done, then = capsys.readouterr().out.splitlines()
    assert done == f"{tmp_path}: 2 samples, 0 of them decoded now."
    assert f"valor train TASK --dataset {tmp_path} --do_train --dataloader_num_workers" in then


def test_real_media_are_extracted(shared, tmp_path):
    files = [
        path for path in sorted((shared / "media" / "real").rglob("*")) if path.suffix != ".json" and path.is_file()
    ]
    samples = [Sample(str(index), str(path), str(path)) for index, path in enumerate(files[:12])]
    torch.manual_seed(0)
    result = extract(samples, tmp_path, ExtractOptions(num_frames=2, short_side=64), workers=1)
    assert result.samples == len(samples) and not result.failures


# --- Disks and other runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_an_extraction_with_one_sentence_and_keeps_what_is_there(
    tmp_path, monkeypatch, capfd, workers
):
    save, done = Image.Image.save, []

    def fail_at_the_third(self, path, *args, **kwargs):
        done.append(path)
        if "clips/2" in str(path) or "clips/.2" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, path, *args, **kwargs)

    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    rows = [{"file_name": f"{number}.png", "caption": "grey"} for number in range(4)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(Image.Image, "save", fail_at_the_third)
    out = tmp_path / "out"
    assert main(["extract", str(tmp_path), str(out), "--workers", str(workers)]) == 1
    (line,) = capfd.readouterr().err.strip().split("\n")
    assert line.startswith(f"valor extract: {out}") and "cannot be written to: No space left on device" in line
    assert not (out / "metadata.jsonl").exists() and not list(out.rglob("*.partial"))
    monkeypatch.undo()
    again = extract(read_folder(tmp_path), out, workers=1, origin=str(tmp_path))
    assert again.samples == 4 and again.extracted <= 2


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch, capfd):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "out"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["extract", str(EXAMPLES), str(tmp_path / "out"), "--workers", "1"]) == 1
    (line,) = capfd.readouterr().err.strip().split("\n")
    assert (
        line
        == f"valor extract: {tmp_path / 'out'} cannot be made a folder: Read-only file system. Choose another one."
    )
    monkeypatch.undo()
    (tmp_path / "out").write_text("a file")
    assert main(["extract", str(EXAMPLES), str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "cannot be made a folder: File exists" in capfd.readouterr().err


def test_a_second_extraction_into_a_folder_is_refused_by_name(tmp_path, capfd):
    out = tmp_path / "out"
    out.mkdir()
    with sole_writer(out, ".extract.lock"):
        with pytest.raises(ValueError, match=f"^{out} is being written by another run"):
            extract(read_folder(EXAMPLES), out, workers=1)
        assert main(["extract", str(EXAMPLES), str(out), "--workers", "1"]) == 1
        (line,) = capfd.readouterr().err.strip().split("\n")
        assert str(out) in line and "another run" in line
        assert [path.name for path in out.iterdir()] == [".extract.lock"]
    assert extract(read_folder(EXAMPLES), out, workers=1).samples == 2


def test_a_damaged_note_of_an_extraction_is_named(tmp_path):
    extract(read_folder(EXAMPLES)[:1], tmp_path, workers=1)
    (tmp_path / ".extract.json").write_text("{")
    with pytest.raises(ValueError, match=r"\.extract\.json is damaged"):
        extract(read_folder(EXAMPLES)[:1], tmp_path, workers=1)


def test_other_bytes_with_one_id_are_refused(tmp_path):
    samples = [Sample("a", Path(name).read_bytes()) for name in (CLIP, CLIP.replace("00000", "00001"))]
    with pytest.raises(ValueError, match="two samples with different media have the id 'a'"):
        extract(samples, tmp_path, workers=1)
