"""From a checkpoint's folder to one quantized GGUF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp_convert.huggingface import is_huggingface, open_huggingface
from pyllamacpp_convert.importance import read_importance
from pyllamacpp_convert.meta import is_meta, open_meta
from pyllamacpp_convert.metadata import Value
from pyllamacpp_convert.mixture import (
    FLOAT_TYPES,
    choose_types,
    file_type_named,
    is_quantizable,
)
from pyllamacpp_convert.pipeline import Job, Progress, ProgressCallback
from pyllamacpp_convert.plan import Plan, quantization_metadata, refuse_target, write_plan
from pyllamacpp_convert.source import Checkpoint
from pyllamacpp_convert.vocab import find_vocab, read_vocab
from pyllamacpp_convert.writer import TensorSpec


def plan_conversion(
    source: str | os.PathLike[str],
    file_type: str = "q4_k_m",
    *,
    vocab: str | os.PathLike[str] | None = None,
    ctx: int | None = None,
    rope_scale_factor: float | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    pure: bool = False,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    checksum: bool = True,
    progress: ProgressCallback | None = None,
) -> Plan:
    """Opens the checkpoint, verifies its checksums and decides what its GGUF will hold.

    Arguments and errors as those of `convert`.
    """
    file_type = file_type_named(file_type)
    importance = read_importance(Path(imatrix)) if imatrix is not None else None
    folder = Path(source)
    checkpoint = _open(folder, ctx, rope_scale_factor, checksum, progress)
    vocab_path = find_vocab(folder, None if vocab is None else Path(vocab))
    words = read_vocab(vocab_path, folder, checksum=checksum)
    metadata = checkpoint.metadata | words.metadata(checkpoint.n_vocab)
    arch = metadata["general.architecture"]
    dtypes, fallbacks = choose_types(
        file_type,
        [(name, rows.shape) for name, rows in checkpoint.tensors.items()],
        n_layers=_number(metadata, f"{arch}.block_count"),
        n_heads=_number(metadata, f"{arch}.attention.head_count"),
        n_kv_heads=_number(metadata, f"{arch}.attention.head_count_kv"),
        pure=pure,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        has_importance=importance is not None,
    )
    jobs, without = [], []
    for name, rows in checkpoint.tensors.items():
        columns = None
        if importance is not None and dtypes[name] not in FLOAT_TYPES:
            columns = importance.of(name, rows.shape[-1])
            if columns is None and is_quantizable(name, rows.shape):
                without.append(name)
        jobs.append(Job(TensorSpec(name, rows.shape, dtypes[name]), rows, columns))
    return Plan(
        [*checkpoint.files, *words.files, *([importance.path] if importance else [])],
        file_type,
        metadata | quantization_metadata(file_type, importance),
        jobs,
        fallbacks,
        without,
        [f"{folder.resolve().name}: {checkpoint.kind}", *checkpoint.notes, *words.notes],
    )


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    file_type: str = "q4_k_m",
    *,
    vocab: str | os.PathLike[str] | None = None,
    ctx: int | None = None,
    rope_scale_factor: float | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    pure: bool = False,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    n_threads: int | None = None,
    split_max_bytes: int | None = None,
    verify: bool = False,
    resume: bool = False,
    checksum: bool = True,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Converts a folder of Meta's (1 to 16 shards) or of Hugging Face's to one quantized GGUF.

    Weights go from the source to their type in one pass, a band of rows at a time: memory does not
    grow with the model, and there is no 16-bit file in between. The file has its name only when all
    of it is written and read back; an interrupted run leaves `TARGET.part`, for `resume`.

    Args:
        source: The folder with the weights; what kind it is shows in its files.
        target: The GGUF's path.
        file_type: A key of `mixture.FILE_TYPES`.
        vocab: The tokenizer's file or folder; by default looked for beside the weights and above.
        ctx: Tokens of context the model was made for, which Meta's files do not say.
        rope_scale_factor: Of LLaMA 3.1's scaled positions, which Meta's files do not say.
        imatrix: A file of `pyllamacpp imatrix` or llama-imatrix: columns that matter more get less
            error.
        pure: Every matrix in the base type, no mixture.
        tensor_types: (regex, type): matrices whose name matches get the type.
        output_type: Of the output matrix.
        embedding_type: Of the embedding.
        n_threads: That quantize; by default what this machine or container has.
        split_max_bytes: Write several files with at most so many bytes of tensors each.
        verify: Read every tensor back and compare it with its source, not only two rows of each.
        resume: Go on with an interrupted run of the same sources and options.
        checksum: Verify checklist.chk and tokenizer_checklist.chk where they are.
        force: Replace `target`.
        progress: Told how far it is.

    Returns:
        The files, several if it was split.

    Raises:
        FormatError: A file of the source is damaged, or they do not belong together.
        UnsupportedError: The model is of a kind this package has no engine for.
        FileError: Something cannot be read or written.
        InvalidArgumentError: An argument is wrong, or `target` is there.
    """
    refuse_target([], Path(target), force=force)
    plan = plan_conversion(
        source,
        file_type,
        vocab=vocab,
        ctx=ctx,
        rope_scale_factor=rope_scale_factor,
        imatrix=imatrix,
        pure=pure,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        checksum=checksum,
        progress=progress,
    )
    return write_plan(
        plan,
        Path(target),
        n_threads=n_threads,
        split_max_bytes=split_max_bytes,
        verify=verify,
        resume=resume,
        progress=progress,
    )


def _open(
    folder: Path,
    ctx: int | None,
    rope_scale_factor: float | None,
    checksum: bool,
    progress: ProgressCallback | None,
) -> Checkpoint:
    if not folder.exists():
        raise FileError(f"{folder} does not exist")
    if not folder.is_dir():
        advice = "; pyllamacpp quantize takes GGUF files" if folder.suffix == ".gguf" else ""
        raise InvalidArgumentError(f"{folder} is a file; name the folder that holds it{advice}")
    if is_meta(folder):

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(Progress("checksums", done, total))

        return open_meta(
            folder,
            ctx=ctx,
            rope_scale_factor=rope_scale_factor,
            checksum=checksum,
            progress=report,
        )
    if is_huggingface(folder):
        return open_huggingface(folder, ctx=ctx)
    raise FormatError(
        f"{folder} holds no checkpoint: neither Meta's consolidated.*.pth and params.json nor "
        "Hugging Face's config.json and *.safetensors or *.bin"
    )


def _number(metadata: dict[str, Value], key: str) -> int:
    value = metadata[key]
    assert isinstance(value, int)
    return value
