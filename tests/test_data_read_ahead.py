# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import itertools
import threading

import pytest

from modeling_valor.data.read_ahead import read_ahead


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
