"""What ComfyUI itself says of the pack when it starts."""

from __future__ import annotations

import re

from tests.comfy_host import ComfyHost, Listener

NODES = {"SD3LocalModel", "SD3LocalPrompt", "SD3LocalSampler", "SD3LocalPicture", "SD3LocalDelivery"}


def test_the_pack_is_imported_without_a_failure(host: ComfyHost) -> None:
    assert "IMPORT FAILED" not in host.log()
    assert "Cannot import" not in host.log()


def test_the_pack_costs_less_than_half_a_second_of_the_start(host: ComfyHost) -> None:
    line = re.search(rf"^\s*([\d.]+) seconds: .*{re.escape(host.pack_folder)}$", host.log(), re.MULTILINE)
    assert line, host.log_end(60)
    assert float(line.group(1)) < 0.5


def test_its_nodes_are_there_whatever_its_folder_is_called(host: ComfyHost) -> None:
    info = host.object_info()
    assert info.keys() >= NODES
    for name in NODES:
        assert info[name]["python_module"] == f"custom_nodes.{host.pack_folder}"


def test_a_prompt_of_the_host_s_own_nodes_runs_and_is_heard_of(host: ComfyHost) -> None:
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "batch_size": 2, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "loads"}},
    }
    with Listener(host) as heard:
        run = host.run(prompt, client_id=heard.client_id)
        heard.wait_for(lambda: bool(heard.of("execution_success")))
    assert (run.status, run.error, len(run.images)) == ("success", None, 2)
    assert host.view(run.images[0]).startswith(b"\x89PNG")
    assert heard.of("execution_start")[0]["prompt_id"] == run.prompt_id


def test_a_prompt_that_is_not_valid_is_refused_in_words(host: ComfyHost) -> None:
    run = host.run({"2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}})
    assert run.status == "refused"
    assert run.error == "SaveImage: Required input is missing: images"
