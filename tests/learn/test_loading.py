import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitocore.errors import ContractError
from mitocore.learn import fit as fitting
from mitocore.learn.checkpoint import load_weights
from mitocore.learn.loading import Share, TrainingData
from mitocore.learn.prefetch import Prefetched
from mitocore.training import TrainingPlan

Planned = Callable[..., TrainingPlan]


def preparing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "crops"]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.integers(0, 5))
def test_processes_share_the_samples_that_one_would_take(ranks: int, batch: int, done: int, steps: int) -> None:
    first, last = done * batch * ranks, (done + steps) * batch * ranks
    shares = [list(Share(first, last, batch, rank, ranks)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {steps}
    together = [sorted(number for one in step for number in one) for step in zip(*shares, strict=True)]
    assert together == list(Share(first, last, batch * ranks))


def test_what_is_prefetched_comes_in_order_and_its_thread_ends() -> None:
    assert list(Prefetched(range(20))) == list(range(20))
    walk: Iterator[int] = iter(Prefetched(range(10**9)))
    assert [next(walk), next(walk)] == [0, 1]
    assert preparing() == ["crops"]
    walk.close()  # type: ignore[attr-defined] # it is a generator
    assert preparing() == []


def test_an_error_while_prefetching_reaches_the_one_who_waits() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    walk = iter(Prefetched(broken()))
    assert next(walk) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(walk)
    assert preparing() == []


def test_a_training_that_prefetches_gives_the_same_weights(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 4, "validate_every": 2}
    plain = load_weights(fitting.fit(planned({**settings, "folder": "plain"})).last)

    class Ahead(TrainingData):
        def train_dataloader(self) -> Prefetched:
            return Prefetched(super().train_dataloader())

    monkeypatch.setattr(fitting, "TrainingData", Ahead)
    ahead = load_weights(fitting.fit(planned({**settings, "folder": "ahead"})).last)
    assert all((plain[name] == ahead[name]).all() for name in plain)
    assert preparing() == []


def test_an_error_of_a_loader_process_keeps_its_place_and_its_hint(planned: Planned) -> None:
    plan = planned({"workers": 1, "steps": 2}, augment=["tiny/shrinking"])
    with pytest.raises(ContractError, match="changes shapes") as caught:
        fitting.fit(plan)
    assert caught.value.hint == "mend Shrinking.apply"
    assert "Traceback" not in str(caught.value)
