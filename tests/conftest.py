"""Makes the checkout importable as `sd3_local`, the name by which tests know the pack, and provides ComfyUI."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# Read when torch is first imported: many-threaded torch stalls on a machine that others use too.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.comfy_host import ComfyHost, comfyui_folder  # noqa: E402
from tests.comfy_inside import import_comfy  # noqa: E402
from tools.pack import import_pack  # noqa: E402

import_pack()

# How fast examples are made depends on what else the machine does, and says nothing about the pack.
settings.register_profile("shared machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


def pytest_runtest_setup() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """ComfyUI's package `comfy`, imported into this process for comparisons: on the CPU, without a server.

    Its neighbours (`comfy.sd`, `comfy.samplers`, `nodes`, `folder_paths`) are imported by the tests that need them.
    """
    try:
        comfy = import_comfy(tmp_path_factory.mktemp("comfy"))
    except FileNotFoundError as error:
        pytest.fail(str(error))
    yield comfy
    sys.path.remove(str(comfyui_folder()))


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    """A running ComfyUI that has this pack under a folder name which is no Python name, driven as a browser would."""
    with ComfyHost(tmp_path_factory.mktemp("host"), pack_folder="my-pack.v2~test") as running:
        yield running
