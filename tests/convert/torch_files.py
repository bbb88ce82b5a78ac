"""Files as torch.save lays them out, written without torch: a zip of stored entries, `data.pkl`
with persistent ids for storages, `data/KEY` with their bytes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

STORAGES = {"<f2": "HalfStorage", "<u2": "BFloat16Storage", "<f4": "FloatStorage"}


class Named:
    """Pickles as the name of something in a module, which need not exist."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as NAME(*arguments)."""

    def __init__(self, name: Named, *arguments: object) -> None:
        self.name, self.arguments = name, arguments


class Persistent:
    """Pickles as a persistent id."""

    def __init__(self, identity: object) -> None:
        self.identity = identity


class Pickler(pickle._Pickler):  # the one in Python: it lets a name be written as such
    def persistent_id(self, value: object) -> object:
        return value.identity if isinstance(value, Persistent) else None

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, Named):
            self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.name)
            self.save(value.arguments)
            self.write(b"R")
        else:
            super().save(value, save_persistent_id)


def dump(value: object) -> bytes:
    out = io.BytesIO()
    Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def storage(key: str, dtype: str, n: int) -> Persistent:
    """`n` values of a numpy dtype ("<u2" is bfloat16)."""
    return Persistent(("storage", Named("torch", STORAGES[dtype]), key, "cpu", n))


def tensor(of: Persistent, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Call:
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, of, start, shape, strides, False, OrderedDict())


def write(path: Path, data: bytes, storages: Mapping[str, np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path


def save(path: Path, tensors: Mapping[str, np.ndarray], shared: object = None) -> Path:
    """Writes a state dict; with `shared`, a function of a name, tensors for which it gives the same
    are views of one storage.
    """
    groups: dict[object, list[str]] = {}
    for name in tensors:
        groups.setdefault(shared(name) if callable(shared) else name, []).append(name)
    state: dict[str, Call] = {}
    storages = {}
    for key, names in enumerate(groups.values()):
        flat = np.concatenate([tensors[name].reshape(-1) for name in names])
        storages[str(key)] = flat
        start = 0
        for name in names:
            shape = tensors[name].shape
            strides = tuple(int(np.prod(shape[i + 1 :], dtype=int)) for i in range(len(shape)))
            of = storage(str(key), flat.dtype.str, flat.size)
            state[name] = tensor(of, start, shape, strides)
            start += tensors[name].size
    ordered = OrderedDict((name, state[name]) for name in tensors)
    return write(path, dump(ordered), storages)


def save_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "<f2") -> Path:
    """A state dict of zeros that are holes on the disk, with ZIP64 sizes where they need it."""
    sizes = {name: int(np.prod(shape, dtype=int)) for name, shape in shapes.items()}
    state: OrderedDict[str, Call] = OrderedDict()
    for name, shape in shapes.items():
        of = storage(name, dtype, sizes[name])
        state[name] = tensor(of, 0, shape, (shape[1], 1) if len(shape) == 2 else (1,))
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", dump(state))
        for name, n in sizes.items():
            info = zipfile.ZipInfo(f"archive/data/{name}")
            with archive.open(info, "w", force_zip64=True):
                begin = file.tell()
            # The directory is told the size that the local header leaves open.
            info.file_size = info.compress_size = n * np.dtype(dtype).itemsize
            file.seek(begin + info.file_size)
            archive.start_dir = file.tell()
    return path
