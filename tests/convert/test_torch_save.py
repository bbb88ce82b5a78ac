"""Files really made by torch.save (tests/data/make_torch.py)."""

from pathlib import Path

import numpy as np
from checkpoints import bfloat16
from pyllamacpp_convert.torch_pickle import read_tensors

DATA = Path(__file__).parents[1] / "data" / "torch"
VALUES = np.arange(60, dtype=np.float32) / 8 - 3


def test_views_of_one_storage() -> None:
    tensors = read_tensors(DATA / "shared_f16.pth")
    half = VALUES.astype(np.float16)
    expected = {
        "layers.0.wq.weight": half[:20].reshape(4, 5),
        "layers.0.wk.weight": half[20:].reshape(4, 10),
        "layers.0.turned.weight": half[:20].reshape(4, 5).T,
        "layers.0.columns.weight": half.reshape(6, 10)[:, 3:5],
        "norm.weight": half[None, 7:16],
    }
    assert list(tensors) == list(expected)
    for name, rows in expected.items():
        assert tensors[name].dtype == "f16"
        np.testing.assert_array_equal(tensors[name].read(0, len(rows)), rows)


def test_bfloat16() -> None:
    tensors = read_tensors(DATA / "bf16.pth")
    assert {t.dtype for t in tensors.values()} == {"bf16"}
    np.testing.assert_array_equal(tensors["w"].read(2, 5), bfloat16(VALUES).reshape(6, 10)[2:5])
    np.testing.assert_array_equal(tensors["b"].read(0, 1), bfloat16(VALUES[None, :4]))


def test_a_nested_state_dict_without_what_is_no_weight() -> None:
    tensors = read_tensors(DATA / "nested_f32.pth")
    assert list(tensors) == ["weight", "bias"]
    np.testing.assert_array_equal(tensors["weight"].read(0, 3), VALUES[:15].reshape(3, 5))


def test_a_parameter() -> None:
    tensors = read_tensors(DATA / "parameter.bin")
    assert list(tensors) == ["weight"]
    np.testing.assert_array_equal(tensors["weight"].read(1, 2), VALUES[None, 5:10])
