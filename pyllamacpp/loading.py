"""Loads a model with a context, after the plan of its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from . import _core
from .errors import OutOfMemoryError
from .log import logger

Repack = Literal["auto", "never"]
# The last layers of a model that run on the GPU, the head being one; -1: all; "auto": what fits.
GpuLayers = int | Literal["auto"]
# Metadata in place of a file's, by key.
MetaOverrides = Mapping[str, bool | int | float | str]

# Texts at a time for each n_ctx tokens of cache; what bounds them is the memory they take.
MOST_SEQUENCES = 64


def load(
    path: str,
    *,
    n_ctx: int = 0,
    n_batch: int = 512,
    n_threads: int = 0,
    n_threads_batch: int = 0,
    type_k: str = "f16",
    type_v: str = "f16",
    repack: Repack = "auto",
    shrink: bool = False,
    n_parallel: int = 1,
    max_sequences: int | None = None,
    rope: _core.RopeOverrides | None = None,
    overrides: MetaOverrides | None = None,
    n_gpu_layers: GpuLayers = 0,
    main_gpu: int = 0,
    progress: Callable[[float], bool | None] | None = None,
    warn: Callable[[str], None] = logger.warning,
    adapters: int = 0,
    op_offload: bool = False,
) -> tuple[_core.Model, _core.Context]:
    """The model and a context, if they fit into the memory there is.

    n_ctx: 0 is the model's own. shrink: take the largest context that fits instead of refusing.
    n_parallel: how many texts of n_ctx tokens the cache has room for at a time.
    max_sequences: of the context; None: as many as serve n_parallel texts well.
    rope: settings in place of the file's. overrides: metadata in place of the file's.
    n_gpu_layers: as many of them as fit; `warn` is told if that is fewer, except for "auto".
    main_gpu: number of the GPU, unless PYLLAMACPP_DEVICE names one.
    progress: told the share of the weights that is loaded; False raises CancelledError.
    adapters: bytes of the LoRA adapters to be loaded, which must fit too.
    op_offload: prompts may stream the weights of layers on the CPU through the GPU, where that is
        measured to be faster; `warn` is told if the device has no memory for it after all.

    Raises OutOfMemoryError before anything is loaded, saying what would fit, and what loading
    raises. A model whose weights exceed memory runs from the file, slowly: a warning says so.
    """
    shape: dict[str, Any] = {
        "n_batch": n_batch,
        "n_threads": n_threads,
        "n_threads_batch": n_threads_batch,
        "type_k": type_k,
        "type_v": type_v,
        "n_parallel": n_parallel,
        "max_sequences": max_sequences or MOST_SEQUENCES * n_parallel,
        "rope": _core.RopeOverrides() if rope is None else rope,
    }
    wanted = -1 if n_gpu_layers == "auto" else n_gpu_layers
    own = dict(overrides or {})
    planned = {**shape, "overrides": own, "adapters": adapters, "op_offload": op_offload}
    while True:
        plan = _plan(path, n_ctx, repack, shrink, planned, wanted, main_gpu)
        try:
            loaded = _load(path, plan, shape, own, main_gpu, progress)
            break
        except OutOfMemoryError:
            # The device had less than it said.
            if plan.gpu.n_layers == 0:
                raise
            wanted = plan.gpu.n_layers * 3 // 4
    if n_gpu_layers != "auto":
        _warn_of_fewer(n_gpu_layers, loaded[0], plan, main_gpu, warn)
    if plan.gpu.streaming.rows and not loaded[1].stream_rows:
        warn(
            "op_offload: the GPU has no memory to stream weights through, and prompts are "
            "evaluated where their layers are"
        )
    return loaded


def _plan(
    path: str,
    n_ctx: int,
    repack: Repack,
    shrink: bool,
    shape: dict[str, Any],
    n_gpu_layers: int,
    main_gpu: int,
) -> _core.MemoryPlan:
    """The plan that `load` follows. Raises OutOfMemoryError where it does not fit."""
    gpu: dict[str, Any] = {"n_gpu_layers": n_gpu_layers, "main_gpu": main_gpu}
    plan = _core.plan_memory(path, n_ctx=n_ctx, repack=repack, **gpu, **shape)
    if shrink and not plan.fits and 0 < plan.most_ctx < plan.n_ctx:
        plan = _core.plan_memory(path, n_ctx=plan.most_ctx, repack=repack, **gpu, **shape)
    _core.require_fit(path, plan)
    return plan


def _load(
    path: str,
    plan: _core.MemoryPlan,
    shape: dict[str, Any],
    overrides: MetaOverrides,
    main_gpu: int,
    progress: Callable[[float], bool | None] | None,
) -> tuple[_core.Model, _core.Context]:
    if not plan.fits_in_memory:
        logger.warning(
            "%s: %.1f GiB of weights do not fit into the %.1f GiB available and are read from the "
            "file again and again, which is slow; a smaller quantization or model would not be",
            path,
            plan.mapped / 2**30,
            (plan.available - plan.own) / 2**30,
        )
    model = _core.Model(
        path,
        repack=plan.repack,
        n_threads=shape["n_threads"],
        n_gpu_layers=plan.gpu.n_layers,
        n_cpu_ffn=plan.gpu.n_cpu_ffn,
        main_gpu=main_gpu,
        progress=progress,
        overrides=overrides,
    )
    rows = plan.gpu.streaming.rows
    return model, _core.Context(model, n_ctx=plan.n_ctx, stream_rows=rows, **shape)


def _warn_of_fewer(
    asked: int,
    model: _core.Model,
    plan: _core.MemoryPlan,
    main_gpu: int,
    warn: Callable[[str], None],
) -> None:
    most = model.config.n_layers + 1
    wanted = most if asked < 0 else min(asked, most)
    if model.n_gpu_layers == wanted and not model.n_cpu_ffn:
        return
    if plan.gpu.obstacle:
        reason = plan.gpu.obstacle
    else:
        gpus = _core.list_gpus()
        chosen = _core.chosen_gpu(gpus, main_gpu)
        name = gpus[chosen].name if chosen is not None else "the GPU"
        reason = f"{name} has no memory for more"
    warn(f"n_gpu_layers={asked}: {placement(model)}, the rest on the CPU: {reason}")


def placement(model: _core.Model) -> str:
    """How much of a model runs on the GPU, in words."""
    words = f"{model.n_gpu_layers} of the {model.config.n_layers + 1} layers (the head is one)"
    if model.n_cpu_ffn:
        words += f", {model.n_cpu_ffn} of them without their feed-forward part,"
    return words + " run on the GPU"


def add_context(
    model: _core.Model,
    *,
    n_ctx: int = 0,
    **shape: Any,
) -> _core.Context:
    """Another context of a model that is loaded; the arguments are those of `load`.

    Raises OutOfMemoryError when its keys and values and working memory do not fit.
    """
    shape["max_sequences"] = MOST_SEQUENCES * shape["n_parallel"]
    plan = _core.plan_context(model, n_ctx=n_ctx, **shape)
    needer = f"a context of {plan.n_ctx} tokens needs"
    require_room(needer, plan.own, plan.available)
    require_room(needer, plan.gpu, plan.gpu_available, "the GPU's memory")
    return _core.Context(model, n_ctx=plan.n_ctx, **shape)


def require_room(needer: str, n_bytes: int, available: int, where: str = "memory") -> None:
    """Raises OutOfMemoryError unless so many bytes are available. needer: "... needs"."""
    if n_bytes > available:
        raise OutOfMemoryError(
            f"{needer} {n_bytes / 2**30:.2f} GiB of {where} and {available / 2**30:.2f} GiB are "
            "available"
        )
