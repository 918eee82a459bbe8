import threading
import time
from concurrent.futures import BrokenExecutor, Future

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


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ValueError("boom"), "a bug in the step? --traceback shows where"),
        (TimeoutError("the network is slow"), "run again to resume"),
        (MemoryError(), "smaller blocks"),
    ],
)
def test_the_hint_about_a_block_that_fails_depends_on_whether_trying_again_may_help(executor, error, hint):
    def work(_item):
        raise error

    with pytest.raises(RunError) as caught:
        drive(executor, work, [0], commit=lambda _: None, retries=1)
    assert caught.value.hint.startswith(hint)


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


class Mortal:
    """Computes all in flight a moment later; an item of `deadly` takes the others along, as often as it says."""

    sharing = "processes"

    def __init__(self, workers, **deadly):
        self.workers, self.deadly, self.flying, self.broken, self.alone = workers, deadly, [], False, []

    def submit(self, call, item):
        future = Future()
        if self.broken:
            future.set_exception(BrokenExecutor())
            return future
        self.flying.append((future, call, item))
        threading.Timer(0.01, self._land).start()
        return future

    def _land(self):
        flying, self.flying = self.flying, []
        if len(flying) == 1:
            self.alone.append(flying[0][2])
        deadly = [item for _, _, item in flying if self.deadly.get(item, 0)]
        self.deadly |= {item: self.deadly[item] - 1 for item in deadly}
        self.broken = self.broken or bool(deadly)
        for future, call, item in flying:
            if self.broken:
                future.set_exception(BrokenExecutor())
            else:
                future.set_result(call(item))

    def reset(self):
        assert not self.flying
        self.broken = False

    def close(self):
        pass


def test_what_flew_with_a_deadly_item_is_tried_alone_and_not_blamed():
    executor, committed = Mortal(2, c=1), []
    drive(executor, str.upper, "abcdefgh", commit=committed.extend, retries=0)
    assert sorted(committed) == [(item, item.upper()) for item in "abcdefgh"]
    assert "c" in executor.alone


def test_only_a_deadly_item_is_given_up_and_all_who_were_suspected_before_it_are_kept():
    executor, committed = Mortal(2, b=9), []
    with pytest.raises(RunError, match="block b failed 3 times: its worker process was killed"):
        drive(executor, str.upper, "abcdefgh", commit=committed.extend, retries=2)
    assert executor.deadly["b"] in (5, 6)  # once among others, if it had started, and three times alone
    assert committed == [("a", "A")]


def test_two_deadly_items_of_one_group_are_both_forgiven():
    executor, committed = Mortal(3, a=2, e=2), []
    drive(executor, str.upper, "abcdefghijkl", commit=committed.extend, retries=2)
    assert sorted(committed) == [(item, item.upper()) for item in "abcdefghijkl"]
