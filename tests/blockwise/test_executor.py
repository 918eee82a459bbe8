import threading
import time

import pytest

from mitocore import DataError, RunError
from mitocore.blockwise.executor import InProcess, Threads, drive


@pytest.fixture(params=[0, 1, 4], ids=["in-process", "one-thread", "four-threads"])
def executor(request):
    executor = Threads(request.param) if request.param else InProcess()
    yield executor
    executor.close()


class Flaky:
    """Fails the first `times` calls with each of some items."""

    def __init__(self, times, *items):
        self.left = dict.fromkeys(items, times)
        self.calls = []

    def __call__(self, item):
        self.calls.append(item)
        if self.left.get(item, 0):
            self.left[item] -= 1
            raise OSError(f"no luck with {item}")
        return item * item


def test_every_item_is_computed_once_and_committed_with_its_result(executor):
    committed = []
    work = Flaky(0)
    drive(executor, work, range(20), commit=committed.extend)
    assert sorted(committed) == [(item, item * item) for item in range(20)]
    assert sorted(work.calls) == list(range(20))


def test_a_block_that_fails_twice_and_then_works_is_forgiven(executor):
    committed = []
    work = Flaky(2, 3, 5)
    drive(executor, work, range(8), commit=committed.extend, retries=2)
    assert sorted(committed) == [(item, item * item) for item in range(8)]
    assert [work.calls.count(item) for item in range(8)] == [1, 1, 1, 3, 1, 3, 1, 1]


def test_a_block_that_always_fails_is_named_and_the_rest_is_kept(executor):
    committed = []
    with pytest.raises(RunError, match="block 3 failed 3 times: OSError") as caught:
        drive(executor, Flaky(99, 3), range(6), commit=committed.extend, retries=2)
    assert caught.value.exit_code == 8
    assert "run again" in caught.value.hint
    assert {0, 1, 2} <= dict(committed).keys()


def test_an_error_the_user_can_fix_is_never_tried_again(executor):
    calls = []

    def work(item):
        calls.append(item)
        if item == 1:
            raise DataError("no such file")
        return item

    committed = []
    with pytest.raises(DataError, match="no such file"):
        drive(executor, work, range(100), commit=committed.extend, retries=5)
    assert calls.count(1) == 1
    assert len(calls) < 100
    assert sorted(item for item, _ in committed) == sorted(set(calls) - {1})


def test_once_cancelled_nothing_new_is_started_and_what_runs_is_committed(executor):
    started, committed = [], []

    def work(item):
        started.append(item)
        return item

    with pytest.raises(KeyboardInterrupt):
        drive(executor, work, range(1000), commit=committed.extend, cancelled=lambda: len(started) >= 5)
    assert 5 <= len(started) < 1000
    assert sorted(committed) == [(item, item) for item in sorted(started)]


def test_an_interruption_inside_an_item_keeps_what_others_finished():
    committed = []

    def work(item):
        if item == 4:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        drive(InProcess(), work, range(9), commit=committed.extend)
    assert [item for item, _ in committed] == [0, 1, 2, 3]


def test_items_in_flight_never_cost_more_than_the_budget():
    lock, held, peak = threading.Lock(), [0], [0]

    def work(item):
        with lock:
            held[0] += item
            peak[0] = max(peak[0], held[0])
        time.sleep(0.002)
        with lock:
            held[0] -= item
        return item

    executor, committed = Threads(4), []
    drive(executor, work, [3, 4, 5, 20, 1, 2, 3, 6], commit=committed.extend, cost=float, budget=10)
    executor.close()
    assert sorted(item for item, _ in committed) == [1, 2, 3, 3, 4, 5, 6, 20]
    assert peak[0] == 20  # the one that is larger than the budget ran alone


def test_a_failed_item_of_an_ordered_pass_is_tried_again_before_the_next():
    work = Flaky(1, 2)
    drive(InProcess(), work, range(5), commit=lambda _: None)
    assert work.calls == [0, 1, 2, 2, 3, 4]


def test_commits_are_grouped_by_time_and_the_last_group_is_not_forgotten():
    groups = []
    drive(InProcess(), abs, range(50), commit=groups.append, every=3600)
    assert [len(group) for group in groups] == [50]
    groups.clear()
    drive(InProcess(), abs, range(50), commit=groups.append, every=0)
    assert [len(group) for group in groups] == [1] * 50


def test_nothing_to_do_commits_nothing(executor):
    drive(executor, abs, [], commit=lambda _: pytest.fail("nothing was finished"))
