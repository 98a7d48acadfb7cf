"""The exception that carries what is wrong with a request."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from sd3_local.pipelines.errors import Fault, RequestError


def test_one_fault_keeps_what_it_was_made_of():
    error = RequestError("invalidSteps", "steps is 0; it must be at least 1.", "steps", min=1, type="integer")
    assert error.faults == (
        Fault("invalidSteps", "steps is 0; it must be at least 1.", "steps", {"min": 1, "type": "integer"}),
    )
    assert isinstance(error, ValueError)


def test_a_message_that_names_its_parameter_stands_alone():
    assert str(RequestError("invalidSteps", "steps is 0.", "steps")) == "steps is 0."


def test_a_message_that_does_not_is_headed_by_it():
    assert str(RequestError("invalidModel", "The file is cut short.", "model")) == "model: The file is cut short."


def test_a_fault_of_no_parameter_is_its_message():
    assert str(RequestError("invalidRequest", "The request is null.")) == "The request is null."


def test_several_faults_are_told_line_by_line_in_their_order():
    faults = [
        Fault("missingModel", "lora[0].model is missing.", "lora[0].model"),
        Fault("invalidSteps", "steps is 0.", "steps", {"min": 1}),
    ]
    error = RequestError.of(fault for fault in faults)
    assert error.faults == tuple(faults)
    assert str(error) == "lora[0].model is missing.\nsteps is 0."


def test_of_needs_a_fault():
    with pytest.raises(IndexError):
        RequestError.of([])


def test_a_fault_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fault("invalidSteps", "steps is 0.", "steps").code = "missingSteps"


def test_an_error_crosses_a_process_with_all_its_faults():
    error = RequestError.of([Fault("a", "b", "c", {"min": 1}), Fault("d", "e", "f")])
    assert pickle.loads(pickle.dumps(error)).faults == error.faults
