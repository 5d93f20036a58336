# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Benchmarks by name: the public files that are at hand, and small ones in the authors' formats of the others."""

import json
from collections import Counter
from pathlib import Path

import pytest

from modeling_valor.configuration_valor import CAPTIONING_GROUPS
from modeling_valor.data.readers import benchmarks
from modeling_valor.data.readers.benchmarks import BENCHMARKS, load_benchmark
from modeling_valor.data.samples import Question, Sample


def write(folder: Path, name: str, content) -> Path:
    """A file of annotations: a text as it is, anything else as JSON, or as JSON lines if the name says so."""
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str):
        content = "\n".join(map(json.dumps, content)) if name.endswith(".jsonl") else json.dumps(content)
    (folder / name).write_text(content, encoding="utf-8")
    return folder


def touch(root: Path, *names: str) -> Path:
    """Empty media files; names that end in "/" are folders."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    return root


@pytest.fixture
def warnings(monkeypatch):
    """What the loader warns of."""
    messages = []
    monkeypatch.setattr(benchmarks.logger, "warning", messages.append)
    return messages


# --- Public files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split", "file", "clips", "captions", "questions"),
    [
        ("audiocaps", "val", "audiocaps", 495, 5 * 495, 0),
        ("audiocaps", "test", "audiocaps", 975, 5 * 975, 0),
        ("clotho", "train", "clotho", 3839, 5 * 3839, 0),
        ("clotho", "val", "clotho", 1045, 5 * 1045, 0),
        ("clotho", "test", "clotho", 1045, 5 * 1045, 0),
        ("msrvtt", "test_1k", "msrvtt", 1000, 1000, 0),
        ("msvd", "train", "msvd", 1200, 48774, 0),
        ("msvd", "val", "msvd", 100, 4290, 0),
        ("msvd", "test", "msvd", 670, 27763, 0),
        ("msrvtt_qa", "val", "msrvtt/msrvtt_qa_val.jsonl", 497, 0, 12278),
        ("music_avqa", "val", "music_avqa", 3815, 0, 4568),
        ("music_avqa", "test", "music_avqa", 6399, 0, 9129),
    ],
)
def test_public_files_have_their_published_sizes(shared, warnings, name, split, file, clips, captions, questions):
    samples = load_benchmark(name, split, shared / "annotations" / file)
    assert len({sample.id for sample in samples}) == len(samples) == clips
    assert sum(len(sample.captions) for sample in samples) == captions
    assert sum(len(sample.questions) for sample in samples) == questions
    assert all(sample.video is None and sample.audio is None for sample in samples)
    assert not warnings


def test_first_clips_of_public_files(shared):
    annotations = shared / "annotations"
    first = load_benchmark("audiocaps", "test", annotations / "audiocaps")[4]
    assert (first.id, first.captions[0]) == ("VjSEIRnLAh8_30", "Food is frying, and a woman talks")
    first = load_benchmark("clotho", "test", annotations / "clotho")[0]
    assert (first.id, first.captions[1]) == ("Santa Motor", "A person is using electric clippers to trim bushes.")
    first = load_benchmark("msrvtt", "test_1k", annotations / "msrvtt")[0]
    assert first == Sample("video9770", captions=("a person is connecting something to system",))
    assert load_benchmark("msvd", "train", annotations / "msvd")[0].captions[1] == "a chipmunk is eating"
    # The last clip of the usual list of 1,200 for training
    assert load_benchmark("msvd", "train", annotations / "msvd")[-1].id == "bQJQGoJF7_k_145_153"
    first = load_benchmark("msrvtt_qa", "val", annotations / "msrvtt" / "msrvtt_qa_val.jsonl")[0]
    assert first.id == "video6513"  # the first of the official validation split
    assert first.questions[0] == Question("what are three people sitting on?", ("couch",), "what")


def test_media_of_msvd_may_be_named_by_number(shared, tmp_path):
    touch(tmp_path, "vid1.avi", "bQJQGoJF7_k_162_169.avi", "vid1970.mp4")
    found = [
        load_benchmark("msvd", split, shared / "annotations/msvd", tmp_path) for split in ("train", "val", "test")
    ]
    assert [(sample.id, Path(sample.video).name) for (sample,) in found] == [
        ("-4wsuPCjDBc_5_15", "vid1.avi"),
        ("bQJQGoJF7_k_162_169", "bQJQGoJF7_k_162_169.avi"),
        ("zzit5b_-ukg_5_20", "vid1970.mp4"),
    ]


def test_valor32k(shared, warnings):
    """These files were put together by others and lack some captions; the whole test split has 3,500 clips."""
    samples = load_benchmark("valor32k", "test", shared / "annotations/valor32k/desc_test_from_avqa1.json")
    assert len(samples) == 3480 - 162
    assert warnings == ["VALOR-32K, 'test': 162 of 3480 samples have no text and are left out."]
    assert samples[0] == Sample(
        "CEfOX4fYlsY_20.000_30.000",
        captions=("In one room, a yellow bird leaped over the fence. The sound of his mouth ringing.",),
    )


def test_templates_of_music_avqa_are_filled_in(shared):
    samples = load_benchmark("music_avqa", "val", shared / "annotations" / "music_avqa")
    questions = [question for sample in samples for question in sample.questions]
    assert not any("<" in question.text or "_" in question.text + question.answers[0] for question in questions)
    by_id = {question.id: question for question in questions}
    assert by_id["7"] == Question(
        "Is the ukulele in the video always playing?", ("yes",), "Audio-Visual/Existential", "7"
    )
    assert by_id["10"].text == "Is the guzheng louder than the piano?"
    assert by_id["11"].text == "What is the instrument on the left of electric bass?"
    counts = Counter(question.type for question in questions)
    assert counts["Audio/Counting"] == 511 and counts["Visual/Location"] == 613 and len(counts) == 9


def test_lists_of_msrvtt_choose_the_clips(shared, tmp_path):
    """The lists are public; captions stand in for those of the release, which may not be passed on."""
    for name in ("MSRVTT_train.7k.csv", "MSRVTT_train.9k.csv"):
        write(tmp_path, name, (shared / "annotations/msrvtt" / name).read_text())
    sentences = [{"video_id": f"video{n}", "caption": f"{n}, {k}", "sen_id": 0} for k in "ab" for n in range(10000)]
    parts = {"train_val": range(7010), "test": range(7010, 10000)}
    for part, numbers in parts.items():
        chosen = [row for row in sentences if int(row["video_id"][5:]) in numbers]
        write(tmp_path, f"{part}_videodatainfo.json", {"info": {}, "videos": [], "sentences": chosen})
    split_files = {split: load_benchmark("msrvtt", split, tmp_path) for split in ("train_7k", "train_9k", "val")}
    assert {split: len(samples) for split, samples in split_files.items()} == {
        "train_7k": 7010,
        "train_9k": 9000,
        "val": 497,
    }
    assert split_files["train_7k"][1] == Sample("video1000", captions=("1000, a", "1000, b"))
    held_out = load_benchmark("msrvtt", "test_1k", shared / "annotations/msrvtt")
    assert not {sample.id for sample in held_out} & {sample.id for sample in split_files["train_9k"]}

    (tmp_path / "test_videodatainfo.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"MSRVTT_data\.json or train_val_videodatainfo\.json with test_video"):
        load_benchmark("msrvtt", "train_9k", tmp_path)
    write(tmp_path, "MSRVTT_data.json", {"videos": [], "sentences": sentences})
    assert load_benchmark("msrvtt", "train_9k", tmp_path) == split_files["train_9k"]
    assert len(load_benchmark("msrvtt", "train", tmp_path)) == 6513
    assert len(load_benchmark("msrvtt", "test", tmp_path)) == 2990
    write(tmp_path, "MSRVTT_data.json", {"sentences": sentences[:20]})
    with pytest.raises(
        ValueError, match=r"train.7k.csv: 6990 of 7010 samples have no annotations, such as 'video1000'"
    ):
        load_benchmark("msrvtt", "train_7k", tmp_path)


# --- The authors' formats ---------------------------------------------------------------------------------------------


def test_msvd_from_the_authors_text_and_lists(tmp_path):
    text = "# Descriptions\n\n-4wsuPCjDBc_5_15 a squirrel is eating\n-7KMZQEsJW4_205_208 a man\n-4wsuPCjDBc_5_15 it eats\n"
    write(tmp_path, "AllVideoDescriptions.txt", text)
    with pytest.raises(ValueError, match="2 videos instead of 1,970"):
        load_benchmark("msvd", "test", tmp_path)
    write(tmp_path, "test_list.txt", "-4wsuPCjDBc_5_15\n")
    (sample,) = load_benchmark("msvd", "test", tmp_path)
    assert sample == Sample("-4wsuPCjDBc_5_15", captions=("a squirrel is eating", "it eats"))


def test_vatex(tmp_path):
    rows = [
        {"videoID": f"Ptf_2VRj-V{n}_000122_000132", "enCap": [f"A {n}.", f"B {n}."], "chCap": ["一"]} for n in range(3)
    ]
    write(tmp_path, "vatex_validation_v1.0.json", rows)
    assert [sample.captions for sample in load_benchmark("vatex", "val", tmp_path)][2] == ("A 2.", "B 2.")
    write(tmp_path, "test_id_ret.json", [rows[2]["videoID"], rows[0]["videoID"]])
    assert [sample.captions[0] for sample in load_benchmark("vatex", "test_1k5", tmp_path)] == ["A 2.", "A 0."]
    media = touch(tmp_path / "media", "Ptf_2VRj-V0_000122_000132.mp4", "Ptf_2VRj-V1.mp4")
    assert len(load_benchmark("vatex", "val", tmp_path, media)) == 2


def test_didemo_is_a_benchmark_of_paragraphs(tmp_path, warnings):
    rows = [
        {"annotation_id": 1, "description": "a cat jumps", "video": "54@N00_24_27.avi", "times": [[1, 1], [1, 2]]},
        {"annotation_id": 2, "description": "a dog", "video": "12@N00_24_28.mov", "times": [[0, 0]]},
        {"annotation_id": 3, "description": "it sleeps ", "video": "54@N00_24_27.avi", "times": [[2, 2]]},
    ]
    write(tmp_path, "test_data.json", rows)
    samples = load_benchmark("didemo", "test", tmp_path)
    assert samples == [
        Sample("54@N00_24_27", captions=("a cat jumps it sleeps",)),
        Sample("12@N00_24_28", captions=("a dog",)),
    ]
    assert load_benchmark("didemo", "test", tmp_path, paragraph=False)[0].captions == ("a cat jumps", "it sleeps ")
    media = touch(tmp_path / "media", "54@N00_24_27.avi.mp4")
    (sample,) = load_benchmark("didemo", "test", tmp_path, media)
    assert sample.video == sample.audio == str(media / "54@N00_24_27.avi.mp4")
    write(tmp_path, "test_list.txt", "12@N00_24_28.mov\nabsent.avi\n")
    assert load_benchmark("didemo", "test", tmp_path) == samples[1:]


def test_activitynet_joins_sentences(tmp_path):
    row = {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17.37, 60.81]],
        "sentences": ["A girl runs.", " She stops."],
    }
    write(tmp_path, "val_1.json", {"v_uqiMw7tQ1Cc": row})
    touch(tmp_path, "videos/uqiMw7tQ1Cc.MKV")
    (sample,) = load_benchmark("activitynet", "val_1", media=tmp_path)
    assert sample.id == "v_uqiMw7tQ1Cc" and sample.captions == ("A girl runs. She stops.",)
    assert sample.video == str(tmp_path / "videos/uqiMw7tQ1Cc.MKV")


def test_lsmdc_has_a_folder_for_each_movie(tmp_path):
    clips = ["0001_American_Beauty_00.00.51.926-00.00.54.129", "1001_Flight_00.41.37.004-00.41.40.000"]
    times = "00.00.51.926\t00.00.54.129\t00.00.51.425\t00.00.54.129"
    lines = [f'{clips[0]}\t{times}\tSOMEONE says "no', f"{clips[1]}\t{times}\tHe flies."]
    write(tmp_path, "LSMDC16_challenge_1000_publictect.csv", "\n".join(lines) + "\n")
    media = touch(tmp_path / "media", f"avi/{clips[0]}.avi", f"0001_American_Beauty/{clips[0]}.avi", f"{clips[1]}.mp4")
    samples = load_benchmark("lsmdc", "test", tmp_path, media)
    assert [sample.captions for sample in samples] == [('SOMEONE says "no',), ("He flies.",)]
    assert samples[0].video == str(media / "0001_American_Beauty" / f"{clips[0]}.avi")
    assert samples[1].video == str(media / f"{clips[1]}.mp4")
    write(tmp_path, "LSMDC16_annos_val.csv", lines[0] + "\n\n" + "\t".join(lines[1].split("\t")[:5]))
    with pytest.raises(ValueError, match=r"LSMDC16_annos_val.csv, line 3: there are 5 columns instead of 6: clip_id"):
        load_benchmark("lsmdc", "val", tmp_path)


def test_karpathys_splits_of_coco(tmp_path):
    def image(number: int, split: str, *captions: str) -> dict:
        sentences = [{"tokens": [], "raw": caption, "imgid": 0, "sentid": 1} for caption in captions]
        name = f"COCO_val2014_{number:012d}.jpg"
        return {"filepath": "val2014", "filename": name, "split": split, "sentences": sentences, "cocoid": number}

    images = [
        image(391895, "test", "A man.", "A bike. "),
        image(522418, "restval", "A cake."),
        image(3, "train", "A dog."),
    ]
    write(tmp_path, "dataset_coco.json", {"images": images, "dataset": "coco"})
    touch(
        tmp_path,
        "train2014/COCO_val2014_000000522418.jpg",
        "val2017/000000391895.jpg",
        "COCO_val2014_000000000003.jpg",
    )
    assert load_benchmark("coco", "test", media=tmp_path) == [
        Sample("COCO_val2014_000000391895", str(tmp_path / "val2017/000000391895.jpg"), None, ("A man.", "A bike."))
    ]
    train = load_benchmark("coco", "train", media=tmp_path)
    assert [sample.captions for sample in train] == [("A cake.",), ("A dog.",)]


def test_msvd_qa_numbers_are_names_of_clips(tmp_path):
    rows = [
        {"answer": "someone", "id": 30933, "question": "who pours liquid from a container?", "video_id": 1201},
        {"answer": "eat", "id": 30934, "question": "what is it doing?", "video_id": 1202},
        {"answer": "meat", "id": 30935, "question": "Which food?", "video_id": 1201},
    ]
    write(tmp_path, "test_qa.json", rows)
    questions = (
        Question("who pours liquid from a container?", ("someone",), "who", "30933"),
        Question("Which food?", ("meat",), None, "30935"),
    )
    assert load_benchmark("msvd_qa", "test", tmp_path)[0] == Sample("vid1201", questions=questions)
    write(tmp_path, "youtube_mapping.txt", "bQJQGoJF7_k_162_169 vid1201\nbSIjZ75a50s_286_304 vid1202\n")
    touch(tmp_path, "YouTubeClips/bQJQGoJF7_k_162_169.avi", "YouTubeClips/vid1202.avi")
    samples = load_benchmark("msvd_qa", "test", media=tmp_path)
    assert [sample.id for sample in samples] == ["bQJQGoJF7_k_162_169", "bSIjZ75a50s_286_304"]
    assert [Path(sample.video).stem for sample in samples] == ["bQJQGoJF7_k_162_169", "vid1202"]
    write(tmp_path, "youtube_mapping.txt", "bQJQGoJF7_k_162_169 vid1201\n")
    with pytest.raises(ValueError, match=r"test_qa.json, item 2: vid1202 is not in .*youtube_mapping.txt"):
        load_benchmark("msvd_qa", "test", tmp_path)


def test_msrvtt_qa_in_the_authors_format(tmp_path):
    row = {
        "answer": "couch",
        "category_id": 14,
        "id": 158581,
        "question": "what are people sitting on?",
        "video_id": 6513,
    }
    write(tmp_path, "val_qa.json", [row])
    question = Question("what are people sitting on?", ("couch",), "what", "158581")
    assert load_benchmark("msrvtt_qa", "val", tmp_path) == [Sample("video6513", questions=(question,))]


def test_activitynet_qa_joins_questions_and_answers(tmp_path):
    question = {
        "video_name": "1QIUV7WYKXg",
        "question": "is the athlete wearing trousers ",
        "question_id": "v_1QIUV7WYKXg_3",
    }
    write(tmp_path, "test_q.json", [question])
    write(tmp_path, "test_a.json", [{"answer": "no", "type": 3, "question_id": "v_1QIUV7WYKXg_3"}])
    touch(tmp_path, "frames_fps1/v_1QIUV7WYKXg/", "audio_22050hz/1QIUV7WYKXg.wav")
    assert load_benchmark("activitynet_qa", "test", media=tmp_path) == [
        Sample(
            "1QIUV7WYKXg",
            str(tmp_path / "frames_fps1/v_1QIUV7WYKXg"),
            str(tmp_path / "audio_22050hz/1QIUV7WYKXg.wav"),
            questions=(Question("is the athlete wearing trousers", ("no",), "yes/no", "v_1QIUV7WYKXg_3"),),
        )
    ]
    write(tmp_path, "test_a.json", [{"answer": "no", "type": 9, "question_id": "v_1QIUV7WYKXg_3"}])
    with pytest.raises(ValueError, match=r"test_a.json, item 1: 'type' must be from 0 to 8, got 9"):
        load_benchmark("activitynet_qa", "test", tmp_path)
    with pytest.raises(ValueError, match="needs several files"):
        load_benchmark("activitynet_qa", "test", tmp_path / "test_q.json")
    write(tmp_path, "test_a.json", [])
    with pytest.raises(ValueError, match="v_1QIUV7WYKXg_3 has no answer"):
        load_benchmark("activitynet_qa", "test", tmp_path)


def test_tgif_frame(tmp_path):
    lines = [
        "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription",
        'tumblr_no73q2_250\twhat is in the "white" cone ?\tcookie\t0\tFRAMEQA1159\t27138\ta "chocolate cookie .',
        "tumblr_no73q2_250\thow many people are sitting ?\ttwo\t1\tFRAMEQA26835\t61016\ttwo people .",
    ]
    write(tmp_path, "Test_frameqa_question.csv", "\n".join(lines))
    touch(tmp_path, "gifs/tumblr_no73q2_250.gif")
    (sample,) = load_benchmark("tgif_frame", "test", media=tmp_path)
    assert sample.video == str(tmp_path / "gifs/tumblr_no73q2_250.gif")
    assert sample.questions == (
        Question('what is in the "white" cone ?', ("cookie",), "object", "FRAMEQA1159"),
        Question("how many people are sitting ?", ("two",), "number", "FRAMEQA26835"),
    )


def test_vqav2_keeps_ten_answers(tmp_path):
    def questions(part: str, *numbers: int) -> dict:
        rows = [
            {"image_id": number // 1000, "question": f"What is {number}?", "question_id": number} for number in numbers
        ]
        return {"info": {}, "data_type": "mscoco", "data_subtype": part, "questions": rows}

    given = ["net", "net", "net", "yes", "net", "netting", "net", "net", "mesh", "net"]
    answers = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": place} for place, answer in enumerate(given, 1)
    ]
    for part, numbers in {"train2014": (458752000, 458752001), "val2014": (42000,)}.items():
        write(tmp_path, f"v2_OpenEnded_mscoco_{part}_questions.json", questions(part, *numbers))
        rows = [
            {"question_id": number, "answer_type": "other", "multiple_choice_answer": "net", "answers": answers}
            for number in numbers
        ]
        write(tmp_path, f"v2_mscoco_{part}_annotations.json", {"annotations": rows})
    write(tmp_path, "v2_OpenEnded_mscoco_test-dev2015_questions.json", questions("test-dev2015", 1000))
    images = [
        "train2014/COCO_train2014_000000458752",
        "val2014/COCO_val2014_000000000042",
        "test2015/COCO_test2015_000000000001",
    ]
    touch(tmp_path, *(f"{name}.jpg" for name in images))
    both = load_benchmark("vqav2", "trainval", media=tmp_path)
    assert [sample.video for sample in both] == [str(tmp_path / f"{name}.jpg") for name in images[:2]]
    assert [len(sample.questions) for sample in both] == [2, 1]
    assert both[0].questions[0] == Question("What is 458752000?", tuple(given), "other", "458752000")
    assert both[:1] == load_benchmark("vqav2", "train", media=tmp_path)
    (test,) = load_benchmark("vqav2", "test-dev", media=tmp_path)
    assert test.questions == (Question("What is 1000?", (), None, "1000"),)
    assert test.video == str(tmp_path / f"{images[2]}.jpg")


# --- Media ------------------------------------------------------------------------------------------------------------


def test_absent_media_are_left_out_with_one_warning(tmp_path, warnings):
    lines = "".join(f"{n},{'abcd'[n]},30,caption {n}\n" for n in range(4))
    write(tmp_path, "test.csv", "audiocap_id,youtube_id,start_time,caption\n" + lines)
    with pytest.raises(
        FileNotFoundError, match=r"has no audio of the 4 samples of AudioCaps, 'test'.* such as 'a_30'"
    ):
        load_benchmark("audiocaps", "test", media=tmp_path)
    touch(tmp_path, "Yb.wav", "wavs/test/d_30000_40000.flac", "videos/a_30.mp4", "c_29.wav")
    samples = load_benchmark("audiocaps", "test", media=tmp_path)
    assert [(sample.id, sample.video, sample.audio) for sample in samples] == [
        ("a_30", str(tmp_path / "videos/a_30.mp4"), str(tmp_path / "videos/a_30.mp4")),
        ("b_30", None, str(tmp_path / "Yb.wav")),
        ("d_30", None, str(tmp_path / "wavs/test/d_30000_40000.flac")),
    ]
    assert len(warnings) == 1 and "1 of 4 samples are left out" in warnings[0] and "'c_30'" in warnings[0]
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load_benchmark("audiocaps", "test", tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "file",
    ["x-2Abohj8VY_30.000_40.000.mp4", "x-2Abohj8VY_30_40.webm", "x-2Abohj8VY_000030_000040.mkv", "x-2Abohj8VY.mp4"],
)
def test_names_of_valor32k_clips(tmp_path, file):
    write(tmp_path, "desc_val.json", [{"video_id": "x-2Abohj8VY_30.000_40.000", "desc": "a dog"}])
    touch(tmp_path, file)
    assert load_benchmark("valor32k", "val", media=tmp_path)[0].video == str(tmp_path / file)


def test_what_was_extracted_goes_before_the_video(tmp_path):
    write(
        tmp_path / "annotations", "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence\nret0,msr0,video0,a cat\n"
    )
    touch(tmp_path, "raw_videos/video0.mp4")
    video = str(tmp_path / "raw_videos/video0.mp4")
    assert load_benchmark("msrvtt", "test_1k", media=tmp_path) == [Sample("video0", video, video, ("a cat",))]
    touch(tmp_path, "frames_fps4/video0/", "audio_22050hz/video0.wav")
    (sample,) = load_benchmark("msrvtt", "test_1k", media=tmp_path)
    assert sample.video == str(tmp_path / "frames_fps4/video0")
    assert sample.audio == str(tmp_path / "audio_22050hz/video0.wav")


@pytest.mark.parametrize(
    ("annotated", "on_disk"),
    [
        ("Rain &amp; Wind.wav", "Rain & Wind.wav"),
        ("Rain &amp; Wind.wav", "Rain &amp; Wind.wav"),
        (" e ieio ieai.wav", "e ieio ieai.wav"),
        ("Ketchup #2 [4].wav", "Ketchup #2 [4].WAV"),
        ("caf\u00e9.mp3.wav", "cafe\u0301.mp3.wav"),
    ],
)
def test_names_of_clotho_files(tmp_path, annotated, on_disk):
    header = "file_name," + ",".join(f"caption_{n}" for n in range(1, 6))
    write(tmp_path, "clotho_captions_evaluation.csv", f'{header}\n"{annotated}",a,b,c,d,"e, f\n"\n')
    touch(tmp_path, f"evaluation/{on_disk}")
    (sample,) = load_benchmark("clotho", "test", media=tmp_path)
    assert sample.audio == str(tmp_path / "evaluation" / on_disk) and sample.video is None
    assert sample.id == annotated.removesuffix(".wav") and sample.captions == ("a", "b", "c", "d", "e, f\n")


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("msrvt", "test", "no benchmark called 'msrvt'; there are valor32k, msrvtt, "),
        ("activitynet", "test", "no split of ActivityNet Captions called 'test'; there are train, val_1, val_2"),
        ("vatex", "test", "VATEX needs its annotations, which come from https"),
    ],
)
def test_unknown_names(name, split, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(name, split)


@pytest.mark.parametrize(
    ("name", "split", "file", "content", "message"),
    [
        ("audiocaps", "test", "test.csv", "audiocap_id,youtube_id,caption\n1,a,b\n", "line 2: there is no 'start_time', only 'audioc"),
        ("audiocaps", "test", "test.csv", "youtube_id,start_time\na,1,b\n", "line 2: there are more columns than the 2"),
        ("audiocaps", "test", "test.csv", "youtube_id,start_time\na,x\n", "line 2: 'start_time' must be a whole number, got 'x'"),
        ("audiocaps", "test", "test.csv", "youtube_id,start_time,caption\n", "test.csv has no texts of the split 'test' of AudioCaps"),
        ("valor32k", "test", "desc_test.json", '[{"video_id": "a_1_2", "desc": "b"},\n{"video_id"]', "line 2: this is not JSON"),
        ("valor32k", "test", "desc_test.json", [{"video_id": "a", "desc": "b"}], "item 1: 'video_id' must be a video, a start"),
        ("valor32k", "test", "desc_test.json", [{"video_id": "a_1_2"}], "item 1: there is no 'desc', only 'video_id'"),
        ("valor32k", "test", "desc_test.json", [{"video_id": "a_1_2", "desc": 3}], "item 1: 'desc' must be texts, got 3"),
        ("valor32k", "test", "desc_test.json", ["a"], "item 1: this must be an object, got 'a'"),
        ("valor32k", "test", "desc_test.json", "3", "must be a list of objects, got 3"),
        ("msrvtt", "test", "MSRVTT_data.json", [], "there is no 'sentences', only nothing"),
        ("msrvtt", "test", "MSRVTT_data.json", {"sentences": [{"video_id": "a", "caption": "b"}]}, "'sentences', item 1: 'video_id' must"),
        ("msrvtt_qa", "val", "val.jsonl", '{"video_id": 1}\n[]', "line 2: this must be an object|line 1: there is no 'question'"),
        ("music_avqa", "val", "avqa-val.json", [{"question_content": "Is <Object>?", "templ_values": "[]"}], "'templ_values' has 0 values for 1 places"),
        ("music_avqa", "val", "avqa-val.json", [{"question_content": "Is it?", "templ_values": "[1"}], "a list of texts written as JSON"),
    ],
)  # fmt: skip
def test_malformed_annotations_are_named(tmp_path, name, split, file, content, message):
    write(tmp_path, file, content)
    with pytest.raises(ValueError, match=message) as error:
        load_benchmark(name, split, tmp_path)
    assert str(tmp_path / file) in str(error.value)


def test_text_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "val.csv").write_bytes("audiocap_id,youtube_id,start_time,caption\n1,a,1,café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"val.csv is not text in UTF-8: .* at byte"):
        load_benchmark("audiocaps", "val", tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_absent_annotations_are_named_with_their_source(tmp_path, name):
    for split in BENCHMARKS[name].splits:
        with pytest.raises(
            FileNotFoundError, match=r"needs .*\.(json|csv|txt).*, which is not there. It comes from .*\w"
        ):
            load_benchmark(name, split, tmp_path)


# --- The table --------------------------------------------------------------------------------------------------------


def test_every_benchmark_of_the_paper_is_there():
    """The lists of section 5.1.2; the 2023 scripts have retrieval on MSVD, too."""
    listed = {
        "retrieval": "msrvtt didemo lsmdc activitynet vatex coco clotho audiocaps valor32k msvd",
        "captioning": "msvd msrvtt vatex coco clotho audiocaps valor32k",
        "question_answering": "msvd_qa msrvtt_qa activitynet_qa tgif_frame vqav2 music_avqa",
    }
    for task, names in listed.items():
        assert {name for name, benchmark in BENCHMARKS.items() if task in benchmark.tasks} == set(names.split())
    assert {name for name, benchmark in BENCHMARKS.items() if benchmark.paragraph} == {"didemo", "activitynet"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_settings_agree_with_the_benchmark(name):
    benchmark = BENCHMARKS[name]
    for task, settings in benchmark.settings.items():
        assert {settings.train_split, settings.test_split} <= set(benchmark.splits)
        assert set(settings.groups) <= set(CAPTIONING_GROUPS)
        assert (settings.num_frames is None) == (benchmark.media == "audio")
        assert (settings.train_num_frames is None) == (settings.num_frames is None)
        assert (settings.train_num_audio_clips is None) == (settings.num_audio_clips is None)
        if any("a" in group for group in settings.groups):
            assert settings.num_audio_clips
        assert max(settings.num_frames or 0, settings.num_audio_clips or 0) <= 32  # positions of the released models
        assert settings.num_beams == (3 if task == "captioning" else 1)
        assert settings.resolution == (392 if benchmark.media == "image" else 224)
        assert (settings.max_question_length is not None) == (task == "question_answering")
