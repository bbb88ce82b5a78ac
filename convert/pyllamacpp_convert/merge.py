"""A GGUF model and LoRA adapters in, one GGUF model out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.kernels import Floats
from pyllamacpp_convert.adapters import read_adapter
from pyllamacpp_convert.gguf_file import GgufModel, read_gguf
from pyllamacpp_convert.mixture import FILE_TYPES, FLOAT_TYPES
from pyllamacpp_convert.peft import LowRank
from pyllamacpp_convert.pipeline import Job, ProgressCallback
from pyllamacpp_convert.plan import Plan, refuse_target, write_plan
from pyllamacpp_convert.quantize import copied_metadata, plan_quantization
from pyllamacpp_convert.writer import TensorSpec

# Rows of a product that are computed together, wherever a band begins: a matrix product's last bit
# may depend on its size.
_ROWS = 16


@dataclass(frozen=True)
class LowRankSum:
    """The sum of changes scale * b a of one matrix, added in float64 and rounded once."""

    changes: Sequence[LowRank]

    def add_to(self, floats: Floats, first: int) -> Floats:
        """As pipeline.Addend."""
        last = first + len(floats)
        total = floats.astype(np.float64)
        for change in self.changes:
            a = change.scale * change.a.astype(np.float64)
            for block in range(first // _ROWS * _ROWS, last, _ROWS):
                product = change.b[block : block + _ROWS].astype(np.float64) @ a
                begin, end = max(block, first), min(block + _ROWS, last)
                total[begin - first : end - first] += product[begin - block : end - block]
        # What no float32 holds becomes infinite, which the pipeline refuses.
        with np.errstate(over="ignore"):
            return total.astype(np.float32)


@dataclass(frozen=True)
class MergePlan(Plan):
    """adapters: each with its scale. n_merged: matrices that they change."""

    adapters: Sequence[tuple[Path, float]]
    n_merged: int

    def identity(self) -> dict[str, object]:
        """As that of Plan; the scales count too."""
        return super().identity() | {"adapters": [[str(p.resolve()), s] for p, s in self.adapters]}


Adapters = Sequence[tuple[str | os.PathLike[str], float]]


def plan_merge(
    source: str | os.PathLike[str],
    adapters: Adapters,
    *,
    file_type: str | None = None,
    allow_requantize: bool = False,
) -> MergePlan:
    """Reads the model's header and the adapters; arguments and errors as those of `merge_lora`."""
    if not adapters:
        raise InvalidArgumentError("no adapter was given to merge")
    model = read_gguf(Path(source))
    plan = (
        _unchanged(model)
        if file_type is None
        else plan_quantization(source, file_type, allow_requantize=allow_requantize)
    )
    changes: dict[str, list[LowRank]] = {}
    files = list(plan.sources)
    scales = [(Path(path), _scale(path, scale)) for path, scale in adapters]
    for path, scale in scales:
        found, read = read_adapter(path, model)
        files += read
        for matrix, change in found.items():
            # An adapter without effect leaves the stored bits alone.
            if scale:
                whole = replace(change, scale=scale * change.scale)
                changes.setdefault(matrix, []).append(whole)
    jobs = [
        replace(job, addend=LowRankSum(changes[job.spec.name])) if job.spec.name in changes else job
        for job in plan.jobs
    ]
    again = sum(not {model.tensors[name].dtype} & {*FLOAT_TYPES} for name in changes)
    notes = [*plan.notes]
    if again:
        notes.append(
            f"{again} matrices were quantized before and are quantized again; merging into the f16 "
            "or f32 file loses less"
        )
    return MergePlan(
        files,
        plan.file_type,
        plan.metadata,
        jobs,
        plan.fallbacks,
        plan.without_importance,
        notes,
        scales,
        len(changes),
    )


def merge_lora(
    source: str | os.PathLike[str],
    adapters: Adapters,
    target: str | os.PathLike[str],
    *,
    file_type: str | None = None,
    allow_requantize: bool = False,
    n_threads: int | None = None,
    force: bool = False,
    verify: bool = False,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> MergePlan:
    """Writes the model with the adapters' changes added to its weights; returns what was written.

    Weights that change become float32, `scale * b a` of each adapter is added in float64, and the
    sum is stored in the matrix's own type, or that of `file_type`. Everything else is kept bit for
    bit: metadata, and without `file_type` the tensors that no adapter names. Memory holds the
    adapters and a few bands of rows of the model. `target` appears when it is complete and was
    read back.

    Args:
        source: A GGUF file, or the first of a split model.
        adapters: (path, scale): GGUF adapters, or folders as PEFT saves them.
        file_type: A key of `mixture.FILE_TYPES`; by default each tensor keeps its type.
        allow_requantize: With `file_type`: quantize what is quantized already.
        n_threads: By default what this machine or container has.
        force: Replace `target`.
        verify: Compare every tensor with its source afterwards.
        resume: Go on with an interrupted run of the same files, scales and options.
        progress: Told how far it is.

    Raises:
        InvalidArgumentError: No adapter, a scale that is not finite, a wrong type, or `target` is
            there.
        FileError: A file cannot be read or written.
        FormatError: A file is damaged, no LoRA adapter or made for another model, or a weight is
            not finite.
        UnsupportedError: An adapter changes something else than the layers' matrices; names it.
    """
    target = Path(target)
    plan = plan_merge(source, adapters, file_type=file_type, allow_requantize=allow_requantize)
    refuse_target(plan.sources, target, force=force)
    write_plan(plan, target, n_threads=n_threads, verify=verify, resume=resume, progress=progress)
    return plan


def _unchanged(model: GgufModel) -> Plan:
    """Every tensor as it is."""
    number = model.number("general.file_type")
    names = (name for name, file_type in FILE_TYPES.items() if file_type.number == number)
    jobs = [Job(TensorSpec(name, t.shape, t.dtype), t) for name, t in model.tensors.items()]
    metadata = copied_metadata(model)
    return Plan(model.files, next(names, "types as before"), metadata, jobs, [], [], [])


def _scale(path: str | os.PathLike[str], scale: float) -> float:
    if not math.isfinite(scale):
        raise InvalidArgumentError(f"{path}: its scale is {scale}, expected a finite number")
    return float(scale)
