# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The procedural world: determinism, held-out combinations, true captions, balanced questions, files that appear whole."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product

import av
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from modeling_valor.cli.main import main
from modeling_valor.data.readers import read_folder
from modeling_valor.world import (
    SPLITS,
    Act,
    Scene,
    Sound,
    Thing,
    describe,
    draw_portrait,
    questions,
    render_audio,
    render_frames,
    sample_portrait,
    sample_scene,
    split_of,
    write_clip,
    write_portraits,
    write_world,
)
from modeling_valor.world import render as render_module
from modeling_valor.world.drawing import FRAME_RATE, FRAME_SIZE, RGB
from modeling_valor.world.language import PATTERN_WORDS, PLACE_WORDS, SIZE_WORDS, SOUND_WORDS
from modeling_valor.world.scenes import COLORS, EVENTS, HALVES, SHAPES, SOUNDS, TIMES


@pytest.fixture(scope="module")
def scenes():
    counts = {"train": 2000, "val": 500, "test": 1000}
    return {split: [sample_scene(split, index, seed=0) for index in range(counts[split])] for split in SPLITS}


def words(texts) -> set[str]:
    return {word.strip("?") for text in texts for word in text.split()}


def moving(*acts, sounds=(), things=None) -> Scene:
    things = things or (Thing("large", "plain", "red", "square"), Thing("small", "plain", "blue", "star"))
    return Scene("tiles", things[: max(act.thing for act in acts) + 1], acts, sounds, seed=5)


# --- Scenes and splits ------------------------------------------------------------------------------------------------


def test_same_arguments_give_same_scene_words_pixels_and_samples():
    first, again = sample_scene("train", 7, seed=3), sample_scene("train", 7, seed=3)
    assert first == again
    assert describe(first) == describe(again)
    assert questions(first) == questions(again)
    assert np.array_equal(render_frames(first), render_frames(again))
    assert np.array_equal(render_audio(first)[0], render_audio(again)[0])
    assert sample_scene("train", 7, seed=4) != first


def test_no_combination_of_shape_color_and_sound_is_shared_by_two_splits(scenes):
    met = {split: frozenset().union(*(scene.combinations for scene in scenes[split])) for split in SPLITS}
    assert met["train"].isdisjoint(met["test"])
    assert met["train"].isdisjoint(met["val"])
    assert met["val"].isdisjoint(met["test"])
    for split in SPLITS:
        assert all(split_of(*combination) == split for combination in met[split])


def test_every_pair_occurs_in_train_though_triples_are_held_out():
    train = [triple for triple in product(SHAPES, COLORS, SOUNDS) if split_of(*triple) == "train"]
    for i, j, size in ((0, 1, 64), (0, 2, 8 * 17), (1, 2, 8 * 17)):
        assert len({(triple[i], triple[j]) for triple in train}) == size


def test_every_word_of_test_occurs_in_train(scenes):
    def texts(split):
        for scene in scenes[split]:
            yield from describe(scene)
            for pair in questions(scene):
                yield from (pair["question"], pair["answer"])

    assert words(texts("test")) <= words(texts("train"))
    assert len(words(texts("train"))) < 250


def test_twins_share_all_that_is_seen_and_no_set_of_sounds(scenes):
    for first, second in zip(scenes["test"][::2], scenes["test"][1::2], strict=True):
        assert (first.background, first.things, first.acts) == (second.background, second.things, second.acts)
        assert {sound.name for sound in first.sounds} != {sound.name for sound in second.sounds}


def test_a_thousand_test_clips_differ_in_what_captions_tell(scenes):
    assert len({scene.content for scene in scenes["test"]}) >= 990
    assert len({scene.content for scene in scenes["train"]}) >= 1980


@pytest.mark.parametrize("split, index, seed", [("dev", 0, 0), ("train", -1, 0), ("train", 0, -1)])
def test_sampling_out_of_range_is_an_error(split, index, seed):
    with pytest.raises(ValueError, match=r"no split|negative"):
        sample_scene(split, index, seed)


# --- What is seen and heard -------------------------------------------------------------------------------------------


def centre(frame: np.ndarray, color: str) -> tuple[float, float]:
    """Mean (x, y) of the pixels that have nearly this color."""
    near = np.abs(frame.astype(int) - RGB[color]).max(axis=-1) < 40
    y, x = np.nonzero(near)
    return x.mean(), y.mean()


@pytest.mark.parametrize("verb, axis, sign", [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_things_move_where_the_caption_says_in_the_half_it_says(verb, axis, sign):
    frames = render_frames(moving(Act(verb, "last")))
    start, middle, end = (centre(frames[i], "red")[axis] for i in (0, 24, -1))
    assert start == pytest.approx(middle, abs=2)
    assert sign * (end - middle) > 30


@pytest.mark.parametrize("verb, larger", [("grow", True), ("shrink", False)])
def test_things_change_their_size(verb, larger):
    frames = render_frames(moving(Act(verb, "throughout"))).astype(int)
    first, last = ((np.abs(frames[i] - RGB["red"]).max(axis=-1) < 40).sum() for i in (0, -1))
    assert last > 2 * first if larger else last < first / 2


def test_things_collide_at_the_named_moment():
    frames = render_frames(moving(Act("collide", "middle", thing=1)))
    distance = [np.subtract(centre(frame, "blue"), centre(frame, "red"))[0] for frame in frames]
    assert min(distance) > 0  # the first thing stays at the left
    assert abs(np.argmin(distance) / FRAME_RATE - TIMES["middle"][0]) <= 0.2


@pytest.mark.parametrize("verb, seen_before, seen_after", [("appear", False, True), ("vanish", True, False)])
def test_things_appear_and_vanish_at_the_named_moment(verb, seen_before, seen_after):
    frames = render_frames(moving(Act(verb, "late", thing=1))).astype(int)
    seen = (np.abs(frames - RGB["blue"]).max(axis=-1) < 40).any(axis=(1, 2))
    moment = round(TIMES["late"][0] * FRAME_RATE)
    assert set(seen[: moment - 1]) == {seen_before}
    assert set(seen[moment + 2 :]) == {seen_after}


def test_a_thing_stays_where_it_is_when_it_changes_color():
    things = Thing("large", "plain", "red", "square"), Thing("large", "plain", "blue", "square")
    frames = render_frames(moving(Act("change", "early", thing=1), things=things))
    assert centre(frames[0], "red") == pytest.approx(centre(frames[-1], "blue"), abs=0.5)


@pytest.mark.parametrize("name", SOUNDS[:-1])
def test_sounds_are_heard_in_their_time_only(name):
    samples, rate = render_audio(moving(Act("left", "first"), sounds=(Sound(name, "last"),)))
    assert samples.dtype == np.float32
    assert len(samples) == 5 * rate
    assert np.abs(samples).max() <= 1
    half = len(samples) // 2
    assert np.abs(samples[: half - 1]).max() < 0.01
    assert np.abs(samples[half:]).max() > 0.1


def test_sounds_are_told_apart_by_level_and_change_in_ten_bands():
    def fingerprint(name, seed):
        scene = replace(moving(Act("left", "first"), sounds=(Sound(name, "throughout"),)), seed=seed)
        blocks = render_audio(scene)[0][: 200 * 512].reshape(200, 512)
        power = np.abs(np.fft.rfft(blocks * np.hanning(512))) ** 2
        bands = np.log(np.add.reduceat(power, [0, 2, 4, 8, 14, 22, 36, 60, 100, 160], axis=1) + 1e-4)
        return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])

    known = {name: np.mean([fingerprint(name, seed) for seed in range(4)], axis=0) for name in SOUNDS[:-1]}
    for name in known:
        heard = fingerprint(name, seed=9)
        assert min(known, key=lambda other: np.linalg.norm(known[other] - heard)) == name


# --- What is said -----------------------------------------------------------------------------------------------------


def test_each_caption_tells_all_that_is_seen_and_heard(scenes):
    synonyms = {"large": {"large", "big"}, "small": {"small", "little"}}
    patterns = {"plain": {"a"}, "striped": {"striped", "stripes"}, "spotted": {"spotted", "spots"}}
    for scene in scenes["test"][::5]:
        captions = describe(scene)
        assert len(set(captions)) == 5
        shown = scene.things[:1] if scene.acts[0].verb == "change" else scene.things
        for caption in captions:
            told = set(caption.split())
            for thing in shown:
                assert thing.shape in told
                assert told & synonyms[thing.size]
                assert told & patterns[thing.texture]
            assert {thing.color for thing in scene.things} <= told
            for sound in scene.sounds:
                subject, finite, gerund, noun, _ = SOUND_WORDS[sound.name]
                assert any(form in caption for form in (f"{subject} {finite}", gerund, noun))
            if not scene.sounds:
                assert told & {"quiet", "no", "silence"}


@pytest.mark.parametrize("strike, word", [("early", "after|before|then|later"), ("middle", "just as|at that moment")])
def test_captions_tell_the_order_of_sound_and_event(strike, word):
    scene = moving(Act("collide", "middle", thing=1), sounds=(Sound("bell", strike),))
    for caption in describe(scene):
        assert any(option in caption for option in word.split("|"))
        if " after " in caption:
            assert caption.index("collides") < caption.index("bell")
        elif strike == "early":
            assert caption.index("bell") < caption.index("collides")


def test_captions_pair_each_motion_with_its_sound():
    acts = Act("left", "first", thing=0), Act("grow", "last", thing=1)
    for caption in describe(moving(*acts, sounds=(Sound("bell", "first"), Sound("rain", "last")))):
        first, last = caption.split("and then")
        assert "square" in first
        assert "bell" in first
        assert "star" in last
        assert "rain" in last


def test_answers_to_yes_or_no_are_balanced(scenes):
    counts = defaultdict(Counter)
    for scene in scenes["train"]:
        for pair in questions(scene):
            counts[pair["about"]][pair["answer"]] += 1
    for about in ("sight", "sound", "both"):
        yes, no = counts[about]["yes"], counts[about]["no"]
        assert abs(yes - no) < 4 * np.sqrt(yes + no)


def swap_times(parts):
    """What happened first happens last, and the other way round; moments move on by one."""
    other = dict(zip((*HALVES, "early", "middle", "late"), ("last", "first", "middle", "late", "early"), strict=True))
    return tuple(
        sorted(
            (replace(part, when=other.get(part.when, part.when)) for part in parts),
            key=lambda p: list(TIMES).index(p.when),
        )
    )


def both(scene) -> dict[str, set[str]]:
    """Every question about both that any choice of words asks of a scene, with its answers."""
    asked = defaultdict(set)
    for seed in range(12):
        for pair in questions(replace(scene, seed=seed)):
            if pair["about"] == "both":
                asked[pair["question"]].add(pair["answer"])
    return asked


def test_questions_about_both_change_their_answer_with_either_modality_alone(scenes):
    asked_in_all, compared = 0, 0
    for scene in scenes["train"][:300]:
        asked = both(scene)
        if scene.acts[0].verb in EVENTS and scene.sounds and scene.sounds[0].when != scene.acts[0].when:
            # Off the event: only moving the strike onto it, or the event onto the strike, changes the answer.
            other_sight = replace(scene, acts=(replace(scene.acts[0], when=scene.sounds[0].when),))
            other_sound = replace(scene, sounds=(replace(scene.sounds[0], when=scene.acts[0].when), *scene.sounds[1:]))
        else:
            other_sight = replace(scene, acts=swap_times(scene.acts))
            other_sound = replace(scene, sounds=swap_times(scene.sounds))
        for other in (both(other_sight), both(other_sound)):
            for question, answers in asked.items():
                assert len(answers) == 1
                assert other.get(question, set()).isdisjoint(answers)
            compared += len(asked.keys() & other.keys())
        asked_in_all += len(asked)
    assert asked_in_all > 200
    assert compared > 1.8 * asked_in_all


def test_time_of_either_modality_alone_does_not_tell_whether_they_agree(scenes):
    for part in ("acts", "sounds"):
        agree = defaultdict(list)
        for scene in scenes["train"]:
            if scene.acts[0].verb in EVENTS and scene.sounds and scene.sounds[0].when != "throughout":
                agree[getattr(scene, part)[0].when].append(scene.acts[0].when == scene.sounds[0].when)
        assert len(agree) == 3
        for answers in agree.values():
            assert abs(np.mean(answers) - 0.5) < 4 * 0.5 / np.sqrt(len(answers))


# --- Files ------------------------------------------------------------------------------------------------------------


def test_a_clip_is_h264_and_aac_and_shows_what_was_drawn(tmp_path):
    scene = sample_scene("test", 4, seed=1)
    write_clip(scene, tmp_path / "clip.mp4")
    write_clip(scene, tmp_path / "again.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        assert container.duration == pytest.approx(5_000_000, abs=50_000)
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        container.seek(0)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    drawn, (samples, _) = render_frames(scene), render_audio(scene)
    assert shown.shape == drawn.shape
    assert np.abs(shown.astype(int) - drawn).mean() < 5
    assert np.corrcoef(heard[: len(samples)], samples)[0, 1] > 0.9


def test_a_world_is_a_video_folder(tmp_path):
    assert write_world(tmp_path, "val", 2, seed=9, workers=1) == 2
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == ["clip-00000.mp4", "clip-00001.mp4"]
    visible = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert visible == ["clip-00000.mp4", "clip-00001.mp4", "metadata.jsonl"]
    assert rows[1]["captions"] == describe(sample_scene("val", 1, seed=9))
    assert all(set(pair) == {"question", "answer", "about"} for row in rows for pair in row["qa"])
    assert {pair["about"] for row in rows for pair in row["qa"]} <= {"sight", "sound", "both"}


def test_a_world_loads_with_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    for split in ("train", "test"):
        write_world(tmp_path / "world" / split, split, 2, seed=9, workers=1)
    data = datasets.load_dataset("videofolder", data_dir=str(tmp_path / "world"), cache_dir=str(tmp_path / "cache"))
    assert data.num_rows == {"train": 2, "test": 2}
    assert data["test"].remove_columns("video")[1]["captions"] == describe(sample_scene("test", 1, seed=9))


def test_a_run_that_stops_leaves_no_half_files_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def die(scene):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        write_world(tmp_path, "train", 1, seed=2, workers=1)
        (tmp_path / "metadata.jsonl").unlink()
        context.setattr(render_module, "render_frames", die)
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path, "train", 3, seed=2, workers=1)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["clip-00000.mp4"]
    assert write_world(tmp_path, "train", 3, seed=2, workers=1) == 2
    assert write_world(tmp_path, "train", 3, seed=2, workers=1) == 0
    assert len(list(tmp_path.glob("[!.]*"))) == 4
    assert not list(tmp_path.glob(".*.partial"))


def test_two_runs_do_not_write_to_one_folder(tmp_path, capsys):
    with FileLock(tmp_path / ".world.lock"):
        assert main(["world", str(tmp_path), "--count", "1", "--workers", "1"]) == 1
    assert "another run" in capsys.readouterr().err
    assert main(["world", str(tmp_path), "--count", "1", "--workers", "1"]) == 0


def test_several_workers_write_the_same_files(tmp_path):
    write_world(tmp_path / "one", "train", 3, seed=2, workers=1)
    write_world(tmp_path / "two", "train", 3, seed=2, workers=2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_directory_holds_one_world(tmp_path):
    write_world(tmp_path, "train", 1, seed=2, workers=1)
    for split, seed in (("test", 2), ("train", 3)):
        with pytest.raises(ValueError, match="choose another directory"):
            write_world(tmp_path, split, 1, seed=seed, workers=1)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "mine.mp4").touch()
    with pytest.raises(ValueError, match="choose an empty directory"):
        write_world(tmp_path / "films", "train", 1, seed=2, workers=1)


def test_a_lesson_asks_all_questions_of_one_kind_about_the_clips_that_have_them(tmp_path):
    write_world(tmp_path, "train", 3, seed=2, workers=1, things=2, about="both")
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    scenes = [sample_scene("train", index, seed=2) for index in range(100)]
    chosen = [
        scene for scene in scenes if len(scene.things) == 2 and any(q["about"] == "both" for q in questions(scene))
    ]
    assert [row["captions"] for row in rows] == [describe(scene) for scene in chosen[:3]]
    for row, scene in zip(rows, chosen, strict=False):
        asked = [pair for pair in questions(scene) if pair["about"] == "both"]
        assert row["qa"][: len(asked)] == asked
        assert {pair["about"] for pair in row["qa"]} == {"both"}
    with pytest.raises(ValueError, match="choose another directory"):
        write_world(tmp_path, "train", 3, seed=2, workers=1)
    with pytest.raises(ValueError, match="1 or 2 things"):
        write_world(tmp_path / "out", "train", 1, seed=2, things=3)
    with pytest.raises(ValueError, match="sight, sound, both, order, time"):
        write_world(tmp_path / "out", "train", 1, seed=2, about="taste")


def test_a_lesson_about_time_asks_for_the_moment_of_all_that_has_one():
    star, ring = Thing("small", "plain", "red", "star"), Thing("large", "plain", "blue", "ring")
    turns = Scene("sky", (star, ring), (Act("spin", "first"), Act("up", "last", 1)), (Sound("bell", "last"),), 0)
    assert [(pair["question"], pair["answer"]) for pair in questions(turns, "time")] == [
        ("at what moment do we see that the star spins?", "first"),
        ("at what moment do we see that the ring rises?", "last"),
        ("at what moment do we hear that a bell rings?", "last"),
    ]
    sounds = (Sound("bell", "middle"), Sound("rain", "throughout", bed=True))
    event = Scene("sky", (star, ring), (Act("appear", "early", 1),), sounds, 0)
    assert [(pair["question"], pair["answer"]) for pair in questions(event, "time")] == [
        ("at what moment do we see that the ring appears?", "first"),
        ("at what moment do we hear that a bell rings?", "later"),
    ]


def test_a_lesson_about_order_asks_which_of_two_is_active_in_each_half():
    star, ring = Thing("small", "plain", "red", "star"), Thing("large", "plain", "blue", "ring")
    turns = Scene("sky", (star, ring), (Act("spin", "first"), Act("up", "last", 1)), (), 0)
    assert [(pair["question"], pair["answer"]) for pair in questions(turns, "order")] == [
        ("which shape moves first?", "star"),
        ("which shape is active first?", "star"),
        ("what color is the active shape first?", "red"),
        ("which shape is active last?", "ring"),
        ("what color is the active shape last?", "blue"),
    ]
    assert questions(Scene("sky", (star,), (Act("spin", "first"),), (), 0), "order") == []


def test_command_refuses_lessons_of_portraits(tmp_path, capsys):
    assert main(["world", str(tmp_path / "out"), "--portraits", "--about", "sight"]) == 2
    assert "leave them out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count, workers", [(0, 1), (1, 0)])
def test_counts_below_one_are_an_error(tmp_path, count, workers):
    with pytest.raises(ValueError, match="at least 1"):
        write_world(tmp_path / "out", "train", count, seed=2, workers=workers)
    assert not (tmp_path / "out").exists()


def test_command_writes_a_world_and_reports_it(tmp_path, capsys):
    arguments = [
        "world",
        str(tmp_path / "out"),
        "--split",
        "test",
        "--count",
        "1",
        "--seed",
        "3",
        "--workers",
        "1",
        "--json",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "directory": str(tmp_path / "out"),
        "split": "test",
        "seed": 3,
        "clips": 1,
        "rendered": 1,
    }
    (tmp_path / "out" / "clip-00001.mp4").touch()  # of a larger world, which the metadata named until now
    assert main([argument for argument in arguments if argument != "--json"]) == 0
    assert "0 of them rendered now. 1 more are there from before, which" in capsys.readouterr().out
    assert main(["world", str(tmp_path / "out"), "--split", "val", "--count", "1"]) == 1
    assert "choose another directory" in capsys.readouterr().err


# --- Portraits --------------------------------------------------------------------------------------------------------


def test_a_portrait_shows_its_thing_in_its_color():
    for index in range(64):
        portrait = sample_portrait(index, seed=0)
        picture = draw_portrait(portrait)
        assert picture.shape == (FRAME_SIZE, FRAME_SIZE, 3)
        assert np.array_equal(picture, draw_portrait(sample_portrait(index, seed=0)))
        colored = np.abs(picture - np.array(RGB[portrait.things[0].color], float)).max(axis=2) < 30
        assert colored.mean() > 0.0025  # a small striped ring is the least of all


def test_eight_neighbours_are_all_shapes_in_one_color_before_one_background():
    families = [[sample_portrait(8 * family + member, seed=5) for member in range(8)] for family in range(100)]
    for family in families:
        assert {portrait.things[0].shape for portrait in family} == set(SHAPES)
        assert len({(portrait.things[0].color, portrait.background) for portrait in family}) == 1
    assert len({(family[0].things[0].color, family[0].background) for family in families}) > 40
    assert len({family[0].things[0].shape for family in families}) == 8
    assert len({(portrait.things[0].size, portrait.things[0].texture) for portrait in families[0] + families[1]}) > 2


def test_portraits_are_a_folder_with_five_true_captions_each(tmp_path):
    assert (
        main(["world", str(tmp_path / "portraits"), "--portraits", "--count", "20", "--workers", "1", "--json"]) == 0
    )
    samples = read_folder(tmp_path / "portraits")
    assert len(samples) == 20
    for index, sample in enumerate(samples):
        portrait, thing = sample_portrait(index, seed=0), sample_portrait(index, seed=0).things[0]
        assert len(set(sample.captions)) == 5
        for caption in sample.captions:
            said = set(caption.split())
            assert said >= {thing.color, thing.shape}
            assert bool(said & set(SIZE_WORDS[thing.size]))
            assert thing.texture == "plain" or said & {thing.texture, PATTERN_WORDS[thing.texture]}
            assert any(place in caption for place in PLACE_WORDS[portrait.background])
        answers = {question.text: question.answers[0] for question in sample.questions}
        assert answers[f"what color is the {thing.shape}?"] == thing.color
        assert answers[f"which shape is {thing.color}?"] == thing.shape
        assert answers[f"is the {thing.shape} small or large?"] == thing.size
        assert answers["what is the background?"] == portrait.background
        (shape,) = (text.split()[3].strip("?") for text in answers if text.startswith("is there a "))
        assert answers[f"is there a {shape}?"] == ("yes" if shape == thing.shape else "no")
    with Image.open(samples[3].video) as image:
        assert np.array_equal(np.asarray(image), draw_portrait(sample_portrait(3, seed=0)))


def test_portraits_do_not_go_where_something_is(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    assert main(["world", str(tmp_path), "--portraits"]) == 1
    assert "not empty" in capsys.readouterr().err
    with pytest.raises(ValueError, match="count=0"):
        write_portraits(tmp_path / "none", count=0, seed=0)
