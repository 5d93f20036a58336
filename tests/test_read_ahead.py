# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import itertools
import threading

import pytest
import torch

from modeling_valor.read_ahead import map_ahead, read_ahead, reading_threads


class Source:
    """The numbers from 0 on, with an error in the place of `broken`; it notes what it has made and whether it is closed."""

    def __init__(self, count: int = 50, broken: int | None = None):
        self.made, self.closed, self.threads = 0, False, set()
        self.later = threading.Event()
        self.count, self.broken = count, broken

    def numbers(self):
        try:
            for number in range(self.count):
                self.threads.add(threading.get_ident())
                if number == self.broken:
                    raise ValueError("broken")
                self.made += 1
                if number == 3:
                    self.later.set()
                yield number
        finally:
            self.closed = True


def test_items_are_made_in_order_while_one_is_at_work():
    source = Source()
    ahead = read_ahead(source.numbers(), 3)
    assert next(ahead) == 0
    assert source.later.wait(timeout=60)  # nobody has asked for 3 yet
    assert list(ahead) == list(range(1, 50))
    assert source.closed and len(source.threads) == 1 and threading.get_ident() not in source.threads


def test_no_more_items_are_held_than_was_said():
    source = Source()
    for taken, _ in enumerate(read_ahead(source.numbers(), 2), start=1):
        assert source.made <= taken + 2


def test_an_error_comes_in_its_place():
    source, taken = Source(broken=4), []
    with pytest.raises(ValueError, match="broken"):
        taken.extend(read_ahead(source.numbers(), 10))
    assert taken == [0, 1, 2, 3] and source.closed


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_whoever_stops_early_leaves_no_thread(how):
    source, before = Source(), threading.active_count()
    ahead = read_ahead(source.numbers(), 2)
    assert list(itertools.islice(ahead, 3)) == [0, 1, 2]
    if how == "close":
        ahead.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            ahead.throw(KeyboardInterrupt)
    assert source.closed and threading.active_count() == before and source.made <= 5


def test_nothing_to_read():
    assert list(read_ahead(Source(count=0).numbers(), 1)) == []


# --- Of a function ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_their_inputs(threads):
    """The first input is finished last: others wait for it, and it for them."""
    others, before = threading.Event(), torch.get_num_threads()
    own, used = threading.get_ident(), set()

    def work(number):
        used.add(threading.get_ident())
        assert torch.get_num_threads() == 1
        if number == 0 and threads > 1:
            assert others.wait(timeout=60)
        elif number == 2:
            others.set()
        return number**2

    assert list(map_ahead(work, range(20), 4, threads)) == [number**2 for number in range(20)]
    assert own not in used and len(used) <= threads and torch.get_num_threads() == before


def test_inputs_are_taken_by_the_caller_and_no_more_than_was_said():
    taken = []

    def inputs():
        for number in range(20):
            taken.append(threading.get_ident())
            yield number

    for received, _ in enumerate(map_ahead(str, inputs(), 3, 2), start=1):
        assert len(taken) <= received + 3
    assert set(taken) == {threading.get_ident()}


def test_an_error_comes_in_its_place_and_ends_the_work():
    done, received, before = [], [], threading.active_count()

    def work(number):
        if number == 3:
            raise ValueError("broken")
        done.append(number)
        return number

    with pytest.raises(ValueError, match="broken"):
        received.extend(map_ahead(work, range(1000), 4, 2))
    assert received == [0, 1, 2] and len(done) < 10 and threading.active_count() == before


@pytest.mark.parametrize("first", [0, 6])
def test_an_error_of_the_inputs_comes_in_its_place(first):
    def inputs():
        yield from range(first)
        raise ValueError("broken")

    received = []
    with pytest.raises(ValueError, match="broken"):
        received.extend(map_ahead(str, inputs(), 4, 2))
    assert received == list(map(str, range(first)))


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_whoever_stops_a_map_leaves_no_thread(how):
    done, before = [], threading.active_count()
    results = map_ahead(done.append, range(1000), 4, 2)
    next(results)
    if how == "close":
        results.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt)
    assert threading.active_count() == before and len(done) <= 6


def test_a_model_on_the_cpu_leaves_one_thread_to_read(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert reading_threads(torch.device("cpu")) == 1
    assert reading_threads(torch.device("cuda")) == 4
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert reading_threads(torch.device("cuda")) == 1
