"""Tensors through the pipeline: types, bands, threads, damage, resuming."""

import errno
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import pytest
from pyllamacpp_convert import pipeline
from pyllamacpp_convert.pipeline import Job, Progress, write_gguf
from pyllamacpp_convert.source import Stored
from pyllamacpp_convert.writer import GgufStreamWriter, TensorSpec

from pyllamacpp import _core
from pyllamacpp.errors import FileError, FormatError
from pyllamacpp.kernels import TYPE_IDS, quantize

METADATA = {"general.architecture": "llama"}


@dataclass
class InMemory:
    """Rows that lie in an array; `reads` counts."""

    stored: Stored
    dtype: str
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def read(self, first: int, last: int) -> Stored:
        self.reads.append((first, last))
        return np.atleast_2d(self.stored)[first:last].copy()


def bfloat16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def floats(source: InMemory) -> np.ndarray:
    if source.dtype == "bf16":
        return (source.stored.astype(np.uint32) << 16).view(np.float32)
    return source.stored.astype(np.float32)


def sources() -> dict[str, InMemory]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return 0.02 * rng.standard_normal(shape)

    return {
        "a.weight": InMemory(normal(300, 256).astype(np.float16), "f16"),
        "b.weight": InMemory(bfloat16(normal(7, 512)), "bf16"),
        "c.weight": InMemory(normal(50, 256).astype(np.float32), "f32"),
        "norm.weight": InMemory(bfloat16(normal(256)), "bf16"),
    }


def jobs_of(tensors: dict[str, InMemory], dtype: str) -> list[Job]:
    return [
        Job(TensorSpec(name, s.shape, dtype if len(s.shape) == 2 else "f32"), s)
        for name, s in tensors.items()
    ]


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_BAND", 2048)


@pytest.mark.parametrize("dtype", TYPE_IDS)
def test_every_type(tmp_path: Path, dtype: str) -> None:
    tensors, path = sources(), tmp_path / "out.gguf"
    seen: list[Progress] = []
    files = write_gguf(
        path, METADATA, jobs_of(tensors, dtype), n_threads=3, identity={}, verify=True,
        progress=seen.append,
    )  # fmt: skip
    assert files == [path]
    assert list(tmp_path.iterdir()) == [path]
    found = {t.name: t.data.tobytes() for t in gguf.GGUFReader(path).tensors}
    for name, source in tensors.items():
        stored = dtype if source.stored.ndim == 2 else "f32"
        assert found[name] == quantize(stored, np.atleast_2d(floats(source))).tobytes()
    total = sum(s.stored.nbytes for s in tensors.values())
    for stage in ("convert", "verify"):
        done = [p.done for p in seen if p.stage == stage]
        assert done == sorted(done)
        assert done[-1] == total
    assert {p.total for p in seen} == {total}


def test_importance_reaches_the_quantizer(tmp_path: Path) -> None:
    tensors, path = sources(), tmp_path / "out.gguf"
    job = jobs_of(tensors, "q4_k")[0]
    importance = np.random.default_rng(1).random(256).astype(np.float32) ** 4
    write_gguf(path, METADATA, [Job(job.spec, job.source, importance)], n_threads=1, identity={})
    data = gguf.GGUFReader(path).tensors[0].data.tobytes()
    x = floats(tensors["a.weight"])
    assert data == quantize("q4_k", x, importance).tobytes() != quantize("q4_k", x).tobytes()


@pytest.mark.parametrize("name", ["a.weight", "b.weight", "c.weight"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, name: str, value: float) -> None:
    tensors = sources()
    stored = tensors[name].stored
    stored[5, 77] = bfloat16(np.array([value]))[0] if stored.dtype == np.uint16 else value
    for dtype in ("q8_0", "f16", tensors[name].dtype):
        with pytest.raises(FormatError, match=f"{name}: row 5, column 77 is not a finite number"):
            write_gguf(
                tmp_path / "out.gguf", METADATA, jobs_of(tensors, dtype), n_threads=2, identity={}
            )
        assert list(tmp_path.iterdir()) == []


def test_split(tmp_path: Path) -> None:
    tensors = sources()
    files = write_gguf(
        tmp_path / "big.gguf", METADATA | {"general.name": "split"}, jobs_of(tensors, "f16"),
        n_threads=2, identity={}, split_max_bytes=28_000,
    )  # fmt: skip
    assert [f.name for f in files] == [f"big-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == files
    model = _core.GgufFile(str(files[0]))
    assert {t.name for t in model.tensors} == set(tensors)
    assert model.metadata["general.name"] == "split"
    fields = gguf.GGUFReader(files[2]).fields
    assert fields["split.no"].types == [gguf.GGUFValueType.UINT16]
    assert fields["split.tensors.count"].types == [gguf.GGUFValueType.INT32]


def test_what_was_written_is_compared_with_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = GgufStreamWriter.write

    def damaging(self: GgufStreamWriter, name: str, row: int, data: bytes | memoryview) -> None:
        damaged = bytearray(data)
        if name == "a.weight" and row == 8:  # not the first row, not the last
            damaged[1] = 0x40  # the scale of the first block
        write(self, name, row, damaged)

    monkeypatch.setattr(GgufStreamWriter, "write", damaging)
    path, jobs = tmp_path / "out.gguf", jobs_of(sources(), "q4_0")
    with pytest.raises(FormatError, match=r"a\.weight does not read back .* error is"):
        write_gguf(path, METADATA, jobs, n_threads=2, identity={}, verify=True)
    assert list(tmp_path.iterdir()) == []


class Interrupt:
    """A source that is interrupted at its n-th read."""

    def __init__(self, source: InMemory, at: int) -> None:
        self.shape, self.dtype = source.shape, source.dtype
        self._source, self._left = source, at

    def read(self, first: int, last: int) -> Stored:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._source.read(first, last)


def test_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_JOURNAL_SECONDS", 0.0)
    path = tmp_path / "out.gguf"
    identity = {"type": "q4_0", "sources": [["a.pth", 1, 2]]}

    def run(tensors: dict[str, InMemory], *, resume: bool = True, **changed: object) -> None:
        write_gguf(
            path, METADATA, jobs_of(tensors, "q4_0"), n_threads=1, identity=identity | changed,
            resume=resume,
        )  # fmt: skip

    run(sources(), resume=False)
    whole = path.read_bytes()
    path.unlink()

    tensors = sources()
    with pytest.raises(KeyboardInterrupt):
        run(tensors | {"a.weight": Interrupt(tensors["a.weight"], 20)}, resume=False)
    left = {"out.gguf.part", "out.gguf.part.json"}
    assert {p.name for p in tmp_path.iterdir()} == left
    with pytest.raises(FormatError, match="cannot resume: type is q8_0 and was q4_0"):
        run(sources(), type="q8_0")
    assert {p.name for p in tmp_path.iterdir()} == left

    tensors = sources()
    run(tensors)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
    # What was done is not read again, but for the last look at the first row.
    assert tensors["a.weight"].reads[0][0] > 40
    assert tensors["a.weight"].reads[-2:] == [(0, 1), (299, 300)]


def test_resuming_without_a_past_begins(tmp_path: Path) -> None:
    path = tmp_path / "out.gguf"
    write_gguf(path, METADATA, jobs_of(sources(), "q4_0"), n_threads=1, identity={}, resume=True)
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "out.gguf.part.json").write_text("[]")
    with pytest.raises(FormatError, match=r"part\.json is damaged"):
        write_gguf(path, METADATA, [], n_threads=1, identity={}, resume=True)


def test_a_full_disk_leaves_what_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, jobs = tmp_path / "out.gguf", jobs_of(sources(), "f16")
    write_at, calls = GgufStreamWriter._write_at, itertools.count()

    def full(self: GgufStreamWriter, offset: int, data: bytes | memoryview) -> None:
        if next(calls) == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_at(self, offset, data)

    monkeypatch.setattr(GgufStreamWriter, "_write_at", full)
    with pytest.raises(FileError, match=rf"cannot write .*: {os.strerror(errno.ENOSPC)}"):
        write_gguf(path, METADATA, jobs, n_threads=2, identity={})
    assert not path.exists()
    write_gguf(path, METADATA, jobs, n_threads=2, identity={}, resume=True)
    assert list(tmp_path.iterdir()) == [path]

    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(FileError, match=r"needs 0\.00 GB and .* has 0\.00 GB free"):
        write_gguf(tmp_path / "more.gguf", METADATA, jobs, n_threads=2, identity={})


def test_memory_holds_a_few_bands(tmp_path: Path) -> None:
    """Reads run ahead of writes by a few bands only."""
    most, written = 0, itertools.count()
    write = GgufStreamWriter.write
    source = sources()["a.weight"]

    class Counting(GgufStreamWriter):
        def write(self, name: str, row: int, data: bytes | memoryview) -> None:
            nonlocal most
            most = max(most, len(source.reads) - next(written))
            write(self, name, row, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "GgufStreamWriter", Counting)
        write_gguf(
            tmp_path / "o.gguf", METADATA, [jobs_of({"a.weight": source}, "q2_k")[0]],
            n_threads=2, identity={},
        )  # fmt: skip
    assert 1 <= most <= 2 * 2 + 2
