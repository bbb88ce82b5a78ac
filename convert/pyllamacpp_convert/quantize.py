"""A GGUF in, a GGUF of another type out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp_convert.gguf_file import GgufModel, read_gguf
from pyllamacpp_convert.importance import read_importance
from pyllamacpp_convert.metadata import Value
from pyllamacpp_convert.mixture import (
    FLOAT_TYPES,
    choose_types,
    file_type_named,
    is_quantizable,
)
from pyllamacpp_convert.pipeline import Job, ProgressCallback
from pyllamacpp_convert.plan import Plan, quantization_metadata, refuse_target, write_plan
from pyllamacpp_convert.writer import TensorSpec

# What the parts of a split file say of themselves, and what the writer decides for itself.
_NOT_COPIED = ("split.no", "split.count", "split.tensors.count", "general.alignment")

_ADVICE = (
    "quantizing twice loses more than once: give the f16 or f32 file, or --allow-requantize "
    "(from Python: allow_requantize=True)"
)


@dataclass(frozen=True)
class QuantizePlan(Plan):
    """n_bytes_before: of the source's tensors. n_copied: tensors that have their type already."""

    n_bytes_before: int
    n_copied: int


def plan_quantization(
    source: str | os.PathLike[str],
    file_type: str,
    *,
    pure: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    allow_requantize: bool = False,
) -> QuantizePlan:
    """Reads headers only; arguments and errors as those of `quantize_gguf`."""
    file_type = file_type_named(file_type)
    model = read_gguf(Path(source))
    importance = read_importance(Path(imatrix)) if imatrix is not None else None
    n_heads = model.needed("attention.head_count")
    dtypes, fallbacks = choose_types(
        file_type,
        [(name, tensor.shape) for name, tensor in model.tensors.items()],
        n_layers=model.needed("block_count"),
        n_heads=n_heads,
        n_kv_heads=model.number(f"{model.architecture}.attention.head_count_kv") or n_heads,
        pure=pure,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        has_importance=importance is not None,
    )
    jobs, copied, without = [], 0, []
    for name, tensor in model.tensors.items():
        dtype = dtypes[name]
        if tensor.dtype == dtype:
            copied += dtype not in FLOAT_TYPES
        elif not allow_requantize and not {tensor.dtype, dtype} & {*FLOAT_TYPES}:
            raise InvalidArgumentError(
                f"{tensor.path}: {name} is {tensor.dtype} already and would become {dtype}; "
                f"{_ADVICE}"
            )
        columns = None
        if importance is not None and dtype not in FLOAT_TYPES:
            columns = importance.of(name, tensor.shape[-1])
            if columns is None and is_quantizable(name, tensor.shape):
                without.append(name)
        jobs.append(Job(TensorSpec(name, tensor.shape, dtype), tensor, columns))
    metadata = copied_metadata(model) | quantization_metadata(file_type, importance)
    return QuantizePlan(
        [*model.files, *([importance.path] if importance else [])],
        file_type,
        metadata,
        jobs,
        fallbacks,
        without,
        [],
        sum(tensor.n_bytes for tensor in model.tensors.values()),
        copied,
    )


def quantize_gguf(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    file_type: str,
    *,
    pure: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    allow_requantize: bool = False,
    n_threads: int | None = None,
    force: bool = False,
    verify: bool = False,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> QuantizePlan:
    """Writes the model of a GGUF file with the types of `file_type`; returns what was written.

    Memory holds a few bands of rows, whatever the size of the model. `target` appears when it is
    complete and was read back.

    Args:
        source: A GGUF file, or the first of a split model.
        file_type: A key of `mixture.FILE_TYPES`, such as "q4_k_m".
        pure: Every matrix in the base type, no mixture.
        imatrix: A file of `pyllamacpp imatrix` or llama-imatrix: columns that matter more get less
            error.
        tensor_types: (regex, type): matrices whose name matches get the type.
        output_type: Of the output matrix.
        embedding_type: Of the embedding.
        allow_requantize: Quantize what is quantized already.
        n_threads: By default what this machine or container has.
        force: Replace `target`.
        verify: Compare every tensor with its source afterwards.
        resume: Go on with an interrupted run of the same source and options.
        progress: Told how far it is.

    Raises:
        InvalidArgumentError: A type or regex is wrong, `target` is there, or a tensor is quantized
            already.
        FileError: A file cannot be read or written.
        FormatError: `source` is damaged, or a weight is not finite.
    """
    source, target = Path(source), Path(target)
    plan = plan_quantization(
        source,
        file_type,
        pure=pure,
        imatrix=imatrix,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        allow_requantize=allow_requantize,
    )
    refuse_target(plan.sources, target, force=force)
    write_plan(plan, target, n_threads=n_threads, verify=verify, resume=resume, progress=progress)
    return plan


def copied_metadata(model: GgufModel) -> dict[str, Value]:
    """A file's metadata, without what its writer decides."""
    metadata: dict[str, Value] = {
        key: value
        for key, value in model.metadata.items()
        # The gguf package writes no empty arrays.
        if key not in _NOT_COPIED and value.value != []
    }
    metadata["general.architecture"] = model.architecture
    return metadata
