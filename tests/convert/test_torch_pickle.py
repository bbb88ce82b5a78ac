"""The reader of `torch.save` files: views of shared storages, and pickles that mean harm."""

import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from checkpoints import bfloat16
from hypothesis import given, settings
from hypothesis import strategies as st
from pyllamacpp_convert.torch_pickle import read_tensors
from torch_files import STORAGES, Call, Named, Persistent, dump, storage, tensor, write

from pyllamacpp.errors import FileError, FormatError


@pytest.mark.parametrize("dtype", STORAGES)
def test_views_of_one_storage(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal(60).astype(np.float32)
    array = bfloat16(values) if dtype == "<u2" else values.astype(dtype)
    shared = storage("0", array.dtype.str, array.size)
    state = {
        "rows": tensor(shared, 0, (4, 5), (5, 1)),
        "later": tensor(shared, 20, (4, 10), (10, 1)),
        "turned": tensor(shared, 0, (5, 4), (1, 5)),
        "columns": tensor(shared, 3, (6, 2), (10, 1)),
        "vector": tensor(shared, 7, (9,), (1,)),
    }
    found = read_tensors(write(tmp_path / "x.pth", dump(state), {"0": array}))
    assert list(found) == list(state)
    np.testing.assert_array_equal(found["rows"].read(0, 4), array[:20].reshape(4, 5))
    np.testing.assert_array_equal(found["rows"].read(1, 3), array[5:15].reshape(2, 5))
    np.testing.assert_array_equal(found["later"].read(0, 4), array[20:].reshape(4, 10))
    np.testing.assert_array_equal(found["turned"].read(1, 5), array[:20].reshape(4, 5).T[1:])
    np.testing.assert_array_equal(found["columns"].read(0, 6), array.reshape(6, 10)[:, 3:5])
    np.testing.assert_array_equal(found["vector"].read(0, 1), array[None, 7:16])


def test_nesting_parameters_and_other_values(tmp_path: Path) -> None:
    array = np.ones(4, "<f4")
    inner = tensor(storage("0", array.dtype.str, array.size), 0, (2, 2), (2, 1))
    parameter = Call(Named("torch._utils", "_rebuild_parameter"), inner, True, OrderedDict())
    state = {"model": {"w": parameter, "step": 7}, "epoch": [1, 2.5, None, True]}
    assert list(read_tensors(write(tmp_path / "x.pth", dump(state), {"0": array}))) == ["w"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(Named("os", "system"), "true"), "names os.system"),
        (Call(Named("builtins", "eval"), "1"), "names builtins.eval"),
        (Call(Named("torch", "load"), "x"), "names torch.load"),
        (Named("torch", "DoubleTensor"), "names torch.DoubleTensor"),
        ([1, 2], "holds no state dict"),
        ({"w": Persistent(("storage", 1, "0", "cpu", 4))}, "malformed"),
        ({(1, 2): 3}, "malformed"),
        (1 << 60, "holds no state dict"),
    ],
)
def test_hostile_pickles(value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=message):
        read_tensors(write(tmp_path / "x.pth", dump(value), {}))


@pytest.mark.parametrize(
    ("start", "shape", "strides"),
    [
        (0, (3, 2), (2, 1)),
        (1, (2, 2), (2, 1)),
        (0, (1 << 40, 2), (0, 1)),
        (0, (2, 2), (1 << 50, 1)),
        (-1, (2, 2), (2, 1)),
        (0, (2, 2), (-2, 1)),
        (0, (2, 2), (2,)),
        (0, (0, 2), (2, 1)),
        (0, (1, 2, 2), (4, 2, 1)),
        (0, (2.0, 2), (2, 1)),
    ],
)
def test_tensors_past_their_storage(start, shape, strides, tmp_path: Path) -> None:
    array = np.ones(4, "<f4")
    state = {"w": tensor(storage("0", array.dtype.str, array.size), start, shape, strides)}
    with pytest.raises(FormatError, match=r"x\.pth was refused"):
        read_tensors(write(tmp_path / "x.pth", dump(state), {"0": array}))


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    array = np.ones(4, "<f4")
    state = dump({"w": tensor(storage("0", array.dtype.str, array.size), 0, (4,), (1,))})
    whole = write(tmp_path / "whole.pth", state, {"0": array}).read_bytes()
    path = tmp_path / "x.pth"
    for data in (b"", b"PK", b"not a zip", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="not a torch zip file"):
            read_tensors(path)
    with pytest.raises(FormatError, match="data/0 is missing"):
        read_tensors(write(path, state, {}))
    with pytest.raises(FormatError, match="8 bytes, not 16"):
        read_tensors(write(path, state, {"0": array[:2]}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", state)
    with pytest.raises(FormatError, match="compressed or encrypted"):
        read_tensors(path)
    with pytest.raises(FileError, match="cannot read"):
        read_tensors(tmp_path / "missing.pth")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_any_bytes_are_read_or_refused(tmp_path_factory, noise, at, patch) -> None:
    """Random pickles, and a good one with bytes changed."""
    array = np.ones(4, "<f4")
    good = dump({"w": tensor(storage("0", array.dtype.str, array.size), 0, (2, 2), (2, 1))})
    at %= len(good)
    path = tmp_path_factory.getbasetemp() / "fuzz.pth"
    for data in (noise, good[:at] + patch + good[at + len(patch) :]):
        write(path, data, {"0": array})
        try:
            for view in read_tensors(path).values():
                assert view.read(0, 1).shape[0] == 1
        except FormatError as error:
            sentence = str(error)
            if str(path) not in sentence:
                raise


def test_tensors_that_are_no_weights_are_left_out(tmp_path: Path) -> None:
    positions = Persistent(("storage", Named("torch", "LongStorage"), "1", "cpu", 4))
    array = np.ones(4, "<f4")
    state = {
        "w": tensor(storage("0", "<f4", 4), 0, (2, 2), (2, 1)),
        "positions": tensor(positions, 0, (4,), (1,)),
    }
    path = write(tmp_path / "x.bin", dump(state), {"0": array, "1": np.arange(4)})
    assert list(read_tensors(path)) == ["w"]
