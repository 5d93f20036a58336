# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""One budget of time and memory for all that is read of a file."""

import functools
import itertools
import types

import numpy as np
import pytest
from PIL import Image

from helpers.media_files import picture, seconds_at_most
from modeling_valor import media_limits
from modeling_valor.media import (
    MediaError,
    MediaLimits,
    audio_info,
    iterate_frames,
    open_source,
    read_audio,
    read_frames,
)
from modeling_valor.media_limits import Budget


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever it is read."""
    seconds = itertools.count()
    monkeypatch.setattr(media_limits, "time", types.SimpleNamespace(monotonic=lambda: float(next(seconds))))


@pytest.fixture(scope="module")
def animation(folder) -> str:
    frames = [Image.fromarray(picture(number)) for number in range(40)]
    frames[0].save(folder / "long.gif", save_all=True, append_images=frames[1:], duration=50)
    return str(folder / "long.gif")


def test_a_file_has_one_budget_however_often_it_is_opened(video, clock):
    with open_source(video, read_seconds=1000) as file:
        readings = 0
        with pytest.raises(MediaError, match=r"video\.mp4 takes longer than the limit of 1000"):
            while readings < 1000:
                read_audio(file)
                readings += 1
    assert 2 <= readings < 1000
    with open_source(video, read_seconds=1000) as file:
        assert audio_info(file)


def test_a_budget_counts_nested_parts_once_and_its_own_message_comes_first(clock):
    budget = Budget("clip.mp4", MediaLimits(read_seconds=10))
    with budget.charged(), budget.charged():
        pass
    assert budget.seconds_left == 9
    with pytest.raises(MediaError, match="takes longer than the limit of 10 seconds"), budget.charged():
        for _ in range(20):
            budget.check_time()
    with pytest.raises(MediaError, match="takes longer"), budget.charged():
        raise MediaError("clip.mp4 cannot be read: a time limit of its decoder.")


def test_a_large_file_has_more_time():
    assert Budget("film.ts", MediaLimits(), 5 * 10**9).seconds_left == 105


def test_the_search_through_an_animation_ends(animation, clock):
    with open_source(animation, read_seconds=30) as file, pytest.raises(MediaError, match=r"long\.gif takes longer"):
        read_frames(file, 2)


def test_pictures_need_no_more_memory_than_the_limit(animation, tmp_path):
    size = 3 * 64 * 48
    with open_source(animation, read_bytes=4 * size) as file:
        assert read_frames(file, 4).frames.shape == (4, 3, 48, 64)
        with pytest.raises(MediaError, match=r"long\.gif needs .* for 5 pictures of 64 x 48, .*`read_bytes`"):
            read_frames(file, 5)
        assert len(list(iterate_frames(file, lambda available, _: available))) == 40  # one by one
    for number in range(5):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    with open_source(tmp_path, read_bytes=4 * size) as folder:
        assert read_frames(folder, 4).frames.shape == (4, 3, 48, 64)
        with pytest.raises(MediaError, match="5 pictures of 64 x 48"):
            read_frames(folder, 5)
    with open_source(
        tmp_path, read_bytes=9 * size
    ) as folder:  # a picture that is repeated counts as often as it is there
        assert read_frames(folder, 9).indices == [0, 1, 2, 3, 4, 4, 4, 4, 4]
        with pytest.raises(MediaError, match="10 pictures of 64 x 48"):
            read_frames(folder, 10)
    with open_source(tmp_path / "0.png", read_bytes=size - 1) as file, pytest.raises(MediaError, match="a picture of"):
        read_frames(file, 1)


@pytest.mark.parametrize(
    "name", ["hang_fragmented.mp4", "slow_apng.png", "resample_crash.mp4", "empty_audio_track.mp4"]
)
@pytest.mark.filterwarnings("ignore:.*as far as it goes")
def test_hostile_files_are_read_or_refused_within_the_budget(name, shared):
    """The budget is 5 seconds; the rest is for what was asked for, and for a machine that does other things too."""
    path = shared / "media/hostile" / name
    with seconds_at_most(20), open_source(path) as file:
        for read in (functools.partial(read_frames, num_frames=8), read_audio):
            try:
                read(file)
            except MediaError as error:
                assert name in str(error)


def test_an_animation_is_the_same_when_it_is_read_in_steps(animation):
    whole = Image.open(animation)
    for index, frame in zip([4, 14, 24, 34], read_frames(animation, 4).frames, strict=True):
        whole.seek(index)
        assert np.array_equal(frame.permute(1, 2, 0), whole.convert("RGB"))
