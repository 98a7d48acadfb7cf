"""Reading files of tensors: what comes out, what stays on the disk, and one clear sentence for each kind of damage."""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.loading import checkpoint
from sd3_local.pipelines.loading.checkpoint import read_table

from tests.checkpoints import write_tensors

CONTENT = {
    "half": torch.linspace(-1, 1, 6, dtype=torch.float16).view(2, 3),
    "single": torch.tensor(3.5),
    "brain": torch.arange(5, dtype=torch.bfloat16),
    "eight": torch.tensor([[1.5, -448.0]]).to(torch.float8_e4m3fn),
    "range": torch.tensor([57344.0, 0.25]).to(torch.float8_e5m2),
    "bytes": torch.tensor([0, 255, 7], dtype=torch.uint8),
    "empty": torch.empty(0, 4),
}


def header_of(data: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> Path:
    header, data = header_of(path.read_bytes())
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def refusal(path: Path) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read_table(path, "model")
    [fault] = caught.value.faults
    assert fault.parameter == "model"
    assert path.name in fault.message
    return caught.value


@pytest.mark.parametrize("pad", [8, 1])
def test_tensors_come_back_as_written(tmp_path: Path, pad: int) -> None:
    table = read_table(write_tensors(tmp_path / "a.safetensors", CONTENT, pad), "model")
    assert list(table) == list(CONTENT)
    for name, value in CONTENT.items():
        entry = table[name]
        assert (entry.dtype, entry.shape) == (value.dtype, tuple(value.shape))
        assert (entry.numel, entry.nbytes) == (value.numel(), value.numel() * value.itemsize)
        assert torch.equal(entry.read().float(), value.float())


def test_files_of_the_safetensors_library_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file({name: value for name, value in CONTENT.items()}, path, metadata={"format": "pt"})
    table = read_table(path, "model")
    assert set(table) == set(CONTENT)
    assert torch.equal(table["half"].read(), CONTENT["half"])


def test_tensors_are_views_of_one_mapping_that_lives_as_long_as_they_do(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a.safetensors", CONTENT)
    table = read_table(path, "model")
    # Other tests of this process may hold files of their own.
    before = set(checkpoint._mappings)
    first, second = table["half"].read(), table["half"].read()
    assert first.data_ptr() == second.data_ptr()
    (own,) = set(checkpoint._mappings) - before
    del first
    gc.collect()
    assert torch.equal(second, CONTENT["half"])
    del second
    gc.collect()
    assert own not in checkpoint._mappings


def test_a_file_that_takes_another_s_place_at_the_same_instant_is_not_taken_for_it(tmp_path: Path) -> None:
    """Clocks that date files tick every few milliseconds: training tools that save a short file are faster."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.zeros(4)})
    date = path.stat().st_mtime_ns
    old = read_table(path, "model")["x"].read()
    write_tensors(tmp_path / "b.safetensors", {"x": torch.ones(4)})
    (tmp_path / "b.safetensors").replace(path)
    os.utime(path, ns=(date, date))
    assert torch.equal(read_table(path, "model")["x"].read(), torch.ones(4))
    assert torch.equal(old, torch.zeros(4))


def test_writing_to_a_tensor_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a.safetensors", CONTENT)
    before = path.read_bytes()
    read_table(path, "model")["half"].read().zero_()
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="Asks Linux for its memory.")
def test_a_file_larger_than_the_memory_is_mapped(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with open("/proc/swaps") as swaps:
        swap = sum(int(line.split()[2]) * 1024 for line in swaps.readlines()[1:])
    count = 2 * (memory + swap)
    header = json.dumps({"hole": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + count)
    tensor = read_table(path, "model")["hole"].read()
    assert tensor.shape == (count,) and tensor[-1] == 0


def test_a_file_that_changed_after_it_was_chosen_is_refused(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a.safetensors", CONTENT)
    entry = read_table(path, "vae")["half"]
    write_tensors(path, {"half": torch.zeros(9)})
    with pytest.raises(RequestError, match=r"a\.safetensors.*has changed since it was chosen"):
        entry.read()


def test_a_type_that_torch_has_no_name_for_is_listed_without_one(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a.safetensors", CONTENT)
    with_header(path, lambda header: header["bytes"].update(dtype="F4_E2M1"))
    entry = read_table(path, "model")["bytes"]
    assert entry.dtype is None and entry.type_name == "F4_E2M1"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(tmp_path / "gone.safetensors")
    assert error.faults[0].code == "missingModel"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"GGUF" + bytes(60), "GGUF file, which is not supported"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"\n<html><head></head>", "is a web page"),
        (b"\x07\x03\x00\x00\x00\x00\x00\x00" + b"xyz" * 50, "is not a safetensors file"),
        (b"abc", "is not a safetensors file"),
        ((100 * 2**30).to_bytes(8, "little") + b'{"a":' + bytes(64), "its header claims 107,374,182,400 bytes"),
        ((2**64 - 1).to_bytes(8, "little") + b"{" + bytes(64), "its header claims 18,446,744,073,709,551,615 bytes"),
        ((5000).to_bytes(8, "little") + b'{"a":' + bytes(64), "cut short: its header alone needs 5,008 bytes"),
        ((8).to_bytes(8, "little") + b'{"a": 1!' + bytes(64), "its header is not JSON"),
        ((100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995, "its header is not JSON"),
        ((9).to_bytes(8, "little") + b'{"\xff\xfe": 1}', "its header is not JSON"),
    ],
)
def test_what_is_no_safetensors_file_is_refused_by_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert reason in str(refusal(path))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = write_tensors(tmp_path / "whole.safetensors", CONTENT).read_bytes()
    for length in range(len(whole)):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:length])
        refusal(path)
    path.write_bytes(whole[:-3])
    assert f"3 of {len(whole):,} bytes are missing" in str(refusal(path))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "F32"},
        {"dtype": 7},
        {"dtype": None},
        {"shape": [2, 4]},
        {"shape": [-2, -3]},
        {"shape": [2.0, 3.0]},
        {"shape": [True, 6]},
        {"shape": [1] * 9},
        {"shape": "six"},
        {"shape": None},
        {"shape": [10**4000, 0]},
        {"data_offsets": [12, 0]},
        {"data_offsets": [0]},
        {"data_offsets": [0, 12, 24]},
        {"data_offsets": [-12, 0]},
        {"data_offsets": [0.0, 12.0]},
        {"data_offsets": "0-12"},
    ],
)
def test_an_impossible_entry_is_refused_by_name(tmp_path: Path, change: dict[str, object]) -> None:
    path = write_tensors(tmp_path / "a.safetensors", CONTENT)
    with_header(path, lambda header: header["half"].update(change))
    if change == {"shape": [10**4000, 0]}:
        assert "damaged" in str(refusal(path))
    else:
        assert 'the tensor "half" no possible type, shape or place' in str(refusal(path))


@pytest.mark.parametrize("entry", [7, None, [], "F16", {}])
def test_an_entry_that_is_no_entry_is_refused(tmp_path: Path, entry: object) -> None:
    path = write_tensors(tmp_path / "a.safetensors", CONTENT)
    with_header(path, lambda header: {**header, "half": entry})
    assert 'the tensor "half"' in str(refusal(path))


@pytest.mark.parametrize("header", [[], 7, "text", None])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, header: object) -> None:
    path = tmp_path / "a.safetensors"
    text = b"{" if header is None else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(32))
    refusal(path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a.safetensors", {"one": torch.zeros(4), "two": torch.zeros(4)})
    with_header(path, lambda header: header["two"].update(data_offsets=[8, 24]))
    assert '"one" and "two" overlap' in str(refusal(path))


def test_a_folder_is_refused_as_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    refusal(folder)


@settings(deadline=None)
@given(data=st.binary(max_size=400), keep=st.integers(0, 8))
def test_any_bytes_give_a_table_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, keep: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    path.write_bytes((len(data)).to_bytes(8, "little")[:keep] + data)
    try:
        read_table(path, "model")
    except RequestError as error:
        assert "a.safetensors" in str(error)


class Bomb:
    """A pickle of this object runs a command in whoever unpickles it without care."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.witness),))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model.safetensors"])
def test_tensors_of_a_pickle_are_mapped_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save({"state_dict": {"weight": torch.arange(6.0).view(2, 3)}, "epoch": 3}, path)
    table = read_table(path, "model")
    assert list(table) == ["weight"]
    assert table["weight"].shape == (2, 3) and table["weight"].dtype == torch.float32
    assert torch.equal(table["weight"].read(), torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, name: str) -> None:
    path, witness = tmp_path / name, tmp_path / "witness"
    torch.save({"weight": torch.zeros(2), "bomb": Bomb(witness)}, path)
    error = refusal(path)
    assert "refused before anything in it ran" in str(error)
    assert error.faults[0].code == "unsupportedModel"
    assert not witness.exists()
    # The bomb is live: the test would see it go off.
    torch.load(path, weights_only=False)
    assert witness.is_dir()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    path, witness = tmp_path / "model.pt", tmp_path / "witness"
    path.write_bytes(pickle.dumps({"bomb": Bomb(witness)}, protocol=protocol))
    assert "cannot be read safely" in str(refusal(path))
    assert not witness.exists()


def test_a_pickle_of_the_old_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    assert "old or damaged form" in str(refusal(path))


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(4000)}, path)
    whole = path.read_bytes()
    for length in range(4, len(whole), 501):
        path.write_bytes(whole[:length])
        refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    assert "damaged pickle" in str(refusal(path))
    torch.save([torch.zeros(3)], path)
    assert "without named tensors" in str(refusal(path))
