"""What happens when memory runs out, and what streaming leaves behind."""

from __future__ import annotations

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.placement import is_out_of_memory, when_full

FULL = RequestError("insufficientMemory", "full", "width")


def failing(*errors: Exception | None):
    """Work that raises each error in turn, or tells which try it was."""
    left = list(errors)
    tried: list[bool] = []

    def work(cheaper: bool) -> str:
        tried.append(cheaper)
        error = left.pop(0)
        if error is not None:
            raise error
        return "done"

    return work, tried


def test_work_that_fits_is_done_once():
    work, tried = failing(None)
    assert when_full(work, lambda: FULL) == ("done", False)
    assert tried == [False]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
    ],
    ids=lambda error: type(error).__name__ + str(error)[:3],
)
def test_work_that_does_not_fit_is_done_once_more_in_its_cheaper_form(error):
    work, tried = failing(error, None)
    assert is_out_of_memory(error)
    assert when_full(work, lambda: FULL) == ("done", True)
    assert tried == [False, True]


def test_when_the_cheaper_form_does_not_fit_either_the_error_says_so():
    work, tried = failing(torch.OutOfMemoryError("a"), torch.OutOfMemoryError("b"))
    with pytest.raises(RequestError, match="full") as caught:
        when_full(work, lambda: FULL)
    assert tried == [False, True]
    assert caught.value.__context__ is None, "the first errors' tracebacks would keep the memory filled"


def test_other_errors_pass_untouched():
    work, tried = failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        when_full(work, lambda: FULL)
    assert tried == [False]


def test_the_torch_allocator_s_own_refusal_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46, dtype=torch.float64)
    assert is_out_of_memory(caught.value)
