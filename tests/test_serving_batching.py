# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Items of a queue share batches, and each has its own result or error."""

import asyncio
import threading

import pytest

from modeling_valor.serving.batching import BatchQueue


@pytest.fixture
def held():
    """A queue whose thread is held until `release` is called."""
    queue = BatchQueue("test", max_batch=4)
    gate = threading.Event()
    begun = threading.Event()

    def hold(items):
        begun.set()
        gate.wait(30)
        return items

    queue.submit("hold", hold, None)
    assert begun.wait(30)
    queue.sizes.clear()
    yield queue, gate.set
    gate.set()
    queue.stop()


def test_what_is_alike_goes_together_oldest_first_and_each_gets_its_own(held):
    queue, release = held
    batches = []

    def double(items):
        batches.append(items)
        return [2 * item for item in items]

    keys = "abacaaaa"
    futures = [queue.submit(key, double, (key, place)) for place, key in enumerate(keys)]
    assert queue.waiting == 8 and queue.running == 1
    release()
    assert [future.result(30) for future in futures] == [2 * (key, place) for place, key in enumerate(keys)]
    assert [[place for _, place in batch] for batch in batches] == [[0, 2, 4, 5], [1], [3], [6, 7]]
    assert list(queue.sizes) == [4, 1, 1, 2]


def test_a_failure_is_that_of_its_own_item(held):
    queue, release = held

    def invert(items):
        return [1 / item for item in items]

    futures = [queue.submit("key", invert, item) for item in (1, 0, 4)]
    lonely = [queue.submit("no retry", invert, item, retry=False) for item in (1, 0)]
    release()
    assert futures[0].result(30) == 1 and futures[2].result(30) == 0.25
    for future in (futures[1], *lonely):
        with pytest.raises(ZeroDivisionError):
            future.result(30)


def test_a_batch_that_loses_results_fails_instead_of_mixing_them_up(held):
    queue, release = held
    future = queue.submit("key", lambda items: [], "item")
    release()
    with pytest.raises(RuntimeError, match="1 items have 0 results"):
        future.result(30)


def test_what_nobody_waits_for_is_not_begun(held):
    queue, release = held
    done = []

    def keep(items):
        done.extend(items)
        return items

    async def give_up():
        waiting = asyncio.ensure_future(queue.call("key", keep, "gone"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(give_up())
    future = queue.submit("key", keep, "kept")
    release()
    assert future.result(30) == "kept" and done == ["kept"]


def test_an_item_waits_for_others_while_the_batch_is_not_full():
    queue = BatchQueue("test", max_batch=2, max_wait=30)
    first = queue.submit("key", lambda items: items, 1)
    second = queue.submit("key", lambda items: items, 2)
    assert (first.result(20), second.result(20)) == (1, 2)  # long before the 30 seconds
    assert list(queue.sizes) == [2]
    queue.stop()


def test_a_stopped_queue_takes_nothing_and_cancels_what_waits(held):
    queue, _ = held
    future = queue.submit("key", lambda items: items, 1)
    queue.stop()
    assert future.cancelled()
    with pytest.raises(RuntimeError, match="stopping"):
        queue.submit("key", lambda items: items, 1)
