"""Work that goes on in a thread while the caller does other work."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.loading.fill import in_background


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_items_come_in_order_and_the_thread_ends() -> None:
    before = threads()
    with in_background(iter(range(100))) as ready:
        assert ready() == list(range(100))
    assert threads() == before


def test_it_works_beside_the_caller() -> None:
    reached = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        reached.set()
        yield 2

    with in_background(items()) as ready:
        assert reached.wait(10)
        assert ready() == [1, 2]


def test_an_error_reaches_the_caller_as_it_was_and_holds_no_items() -> None:
    before, error, kept = threads(), RequestError("invalidModel", "The file is damaged.", "model"), []

    def items() -> Iterator[torch.Tensor]:
        item = torch.zeros(3)
        kept.append(weakref.ref(item))
        yield item
        del item
        raise error

    gc.disable()
    try:
        with pytest.raises(RequestError) as caught, in_background(items()) as ready:
            ready()
        assert caught.value is error
        assert kept[0]() is None
    finally:
        gc.enable()
    assert threads() == before


def test_a_failed_body_stops_the_thread_after_the_item_at_hand() -> None:
    before, made, failed = threads(), [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(1_000_000):
            made.append(number)
            yield number
            failed.wait(10)

    def fail() -> None:
        failed.set()
        raise ImportError("No module named diffusers")

    with pytest.raises(ImportError, match="No module named diffusers"), in_background(items()):
        fail()
    assert threads() == before
    assert len(made) < 1_000_000


@pytest.mark.parametrize("inference", [True, False])
def test_tensors_are_made_as_in_the_callers_thread(inference: bool) -> None:
    def items() -> Iterator[torch.Tensor]:
        yield torch.ones(2).half()

    with torch.inference_mode(inference), torch.device("meta"), in_background(items()) as ready:
        [made] = ready()
    assert made.is_inference() == inference
    # The module is made on the meta device meanwhile, its values must not be.
    assert made.device.type == "cpu"
