"""pyllamacpp plan"""

from __future__ import annotations

import itertools
import json

import click

from .. import _core
from ..loading import GpuLayers, Repack
from ..lora import adapter_bytes
from .group import ExampleCommand
from .options import (
    batch_option,
    context_option,
    gpu_option,
    json_option,
    kv_type_options,
    op_offload_option,
    parse_size,
    repack_option,
)
from .runtime import DEFAULT_CTX, find_model


@click.command(
    "plan",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp plan smollm2-135m",
        "pyllamacpp plan model.gguf --ctx 32768 --ram 16G",
        "pyllamacpp plan model.gguf --ctx 2048 --vram 4G",
        "pyllamacpp plan model.gguf --lora alpaca-lora",
        "pyllamacpp plan model.gguf --ctx 131072 --type-k q8_0 --type-v q8_0 --json",
    ],
)
@click.argument("model", required=False)
@click.option("-m", "--model", "model_option", metavar="MODEL", help="The same as MODEL.")
@context_option
@click.option(
    "--ram",
    metavar="SIZE",
    callback=parse_size,
    help="Pretend that this much memory is available, e.g. 16G.  [default: what there is]",
)
@click.option(
    "--vram",
    metavar="SIZE",
    callback=parse_size,
    help="Pretend a GPU with this much free memory, e.g. 4G.  [default: the GPU there is]",
)
@click.option(
    "--lora",
    "adapters",
    metavar="PATH",
    multiple=True,
    help="A LoRA adapter beside it, GGUF or a folder as PEFT saves it; may be repeated.",
)
@gpu_option
@op_offload_option
@batch_option
@kv_type_options
@repack_option
@json_option
def command(
    model: str | None,
    model_option: str | None,
    ctx: int | None,
    ram: int | None,
    vram: int | None,
    adapters: tuple[str, ...],
    n_gpu_layers: GpuLayers,
    op_offload: bool,
    batch: int,
    type_k: str,
    type_v: str,
    repack: Repack,
    as_json: bool,
) -> None:
    """Show what MODEL would take of this machine's memory, from its header alone.

    Weights are laid out anew in memory where all fits with a tenth to spare, else run from the
    file's map, which the system may drop and read again. Keys, values and working memory must fit:
    loading refuses what does not, and says what would. Exit code 1 if it does not fit.

    With --vram or -ngl the last layers go to a GPU, as many as fit beside their keys and values and
    its working memory with a tenth (256 MiB at least) to spare; one that does not fit whole may
    leave its feed-forward part to the CPU. With --op-offload the GPU and the CPU are measured,
    which takes a second and some memory, to say from how many tokens on a batch streams weights.
    """
    if model is not None and model_option is not None:
        raise click.UsageError("Give MODEL once.")
    path = str(find_model(model if model is not None else model_option))
    n_adapter_bytes = sum(map(adapter_bytes, adapters))
    if vram is not None and n_gpu_layers == 0:
        n_gpu_layers = "auto"

    def plan_for(n_ctx: int, *, op_offload: bool) -> _core.MemoryPlan:
        return _core.plan_memory(
            path,
            n_ctx=n_ctx,
            n_batch=batch,
            type_k=type_k,
            type_v=type_v,
            repack=repack,
            available=ram or 0,
            n_gpu_layers=-1 if n_gpu_layers == "auto" else n_gpu_layers,
            gpu_available=vram or 0,
            adapters=n_adapter_bytes,
            op_offload=op_offload,
        )

    n_ctx = ctx or 0
    if ctx is None:  # without measuring
        n_ctx = min(plan_for(0, op_offload=False).n_ctx, DEFAULT_CTX)
    plan = plan_for(n_ctx, op_offload=op_offload)
    if as_json:
        click.echo(json.dumps(_object(plan), indent=2))
    else:
        click.echo(_page(plan, type_k, type_v))
    _core.require_fit(path, plan)


_STREAMING_NAMES = [
    "rows",
    "scratch",
    "weight_bytes",
    "row_ops",
    "upload_bytes_per_second",
    "gpu_ops_per_second",
    "cpu_ops_per_second",
    "note",
]


def _object(plan: _core.MemoryPlan) -> dict[str, object]:
    names = [
        "mapped",
        "packed",
        "kv",
        "scratch",
        "adapters",
        "own",
        "available",
        "n_ctx",
        "n_batch",
    ]
    names += ["most_ctx", "most_ctx_q8_0", "repack", "fits", "fits_in_memory"]
    gpu_names = [
        "n_layers",
        "n_cpu_ffn",
        "weights",
        "kv",
        "scratch",
        "total",
        "usable",
        "available",
        "obstacle",
    ]
    gpu = {name: getattr(plan.gpu, name) for name in gpu_names}
    gpu["streaming"] = {name: getattr(plan.gpu.streaming, name) for name in _STREAMING_NAMES}
    parts = [
        {
            "layer": None if i == len(plan.parts) - 1 else i // 2,
            "part": "head" if i == len(plan.parts) - 1 else ("attention", "feed_forward")[i % 2],
            "on": _device(part),
            "weights": part.weights,
            "kv": part.kv,
        }
        for i, part in enumerate(plan.parts)
    ]
    return {name: getattr(plan, name) for name in names} | {"gpu": gpu, "parts": parts}


def _device(part: _core.PartPlan) -> str:
    return "gpu" if part.on_gpu else "cpu"


def _part_rows(plan: _core.MemoryPlan) -> list[tuple[str, int, str]]:
    """Layers that are alike in a row together."""

    def look(layer: int) -> tuple[tuple[bool, int, int], ...]:
        return tuple((p.on_gpu, p.weights, p.kv) for p in plan.parts[2 * layer : 2 * layer + 2])

    rows = []
    for _, alike in itertools.groupby(range(len(plan.parts) // 2), look):
        layers = list(alike)
        attention, ffn = plan.parts[2 * layers[0] : 2 * layers[0] + 2]
        first = f"attention {_mib(attention.weights)}, keys and values {_mib(attention.kv)}"
        second = f"feed-forward {_mib(ffn.weights)}"
        if attention.on_gpu == ffn.on_gpu:
            note = f"{_device(attention).upper()}: {first}, {second}"
        else:
            note = f"{_device(attention).upper()}: {first}; {_device(ffn).upper()}: {second}"
        name = f"layer {layers[0]}"
        if len(layers) > 1:
            name = f"layers {layers[0]} - {layers[-1]}"
            note += " each"
        n_bytes = len(layers) * (attention.weights + attention.kv + ffn.weights)
        rows.append((name, n_bytes, note))
    return [*rows, ("head", plan.parts[-1].weights, _device(plan.parts[-1]).upper())]


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f}"


def _streaming_words(streaming: _core.StreamingPlan) -> str:
    """From how many tokens on prompts stream weights, and why; nothing if nobody asked."""
    if not (streaming.rows or streaming.note):
        return ""
    words = "no weights streamed"
    if streaming.rows:
        words = f"{_mib(streaming.scratch)} to stream weights from {streaming.rows} tokens on"
    if streaming.upload_bytes_per_second:
        words += (
            f"; measured: upload {streaming.upload_bytes_per_second / 1e9:.2f} GB/s, products "
            f"{streaming.gpu_ops_per_second / 1e9:,.0f} Gop/s, on the CPU "
            f"{streaming.cpu_ops_per_second / 1e9:,.0f}"
        )
    return f"{words}; {streaming.note}" if streaming.note else words


def _page(plan: _core.MemoryPlan, type_k: str, type_v: str) -> str:
    gpu = plan.gpu
    kv_per_token = plan.kv / plan.n_ctx
    types = type_k if type_k == type_v else f"{type_k}, {type_v}"
    rows = [
        ("weights in memory", plan.packed, "laid out for the kernels"),
        ("weights from the file", plan.mapped, "mapped: can be dropped and read again"),
        ("keys and values", plan.kv, f"{plan.n_ctx} tokens of {kv_per_token:,.0f} bytes, {types}"),
        ("working memory", plan.scratch, f"batches of {plan.n_batch}, {plan.n_threads} threads"),
        *([("LoRA adapters", plan.adapters, "as float32")] if plan.adapters else []),
        ("must fit", plan.own, ""),
        ("available", plan.available, ""),
    ]
    if gpu.obstacle:
        rows.append(("on the GPU", 0, gpu.obstacle))
    elif gpu.available:
        layers = f"the last {gpu.n_layers} layers; the head is one" if gpu.n_layers else "none fits"
        if gpu.n_cpu_ffn:
            layers += f"; {gpu.n_cpu_ffn} of them without their feed-forward part"
        rows += [
            ("GPU: weights", gpu.weights, layers),
            ("GPU: keys and values", gpu.kv, ""),
            ("GPU: working memory", gpu.scratch, _streaming_words(gpu.streaming)),
            ("GPU: must fit", gpu.total, ""),
            ("GPU: available", gpu.available, f"{gpu.usable / 2**20:,.1f} MiB of it to be used"),
        ]
    rows += _part_rows(plan)
    lines = [f"{name:<22} {n_bytes / 2**20:>12,.1f} MiB  {note}" for name, n_bytes, note in rows]
    if plan.fits and not plan.fits_in_memory:
        verdict = "fits, slowly: the weights are read from the file again and again"
    else:
        verdict = "fits" if plan.fits else "does not fit"
    if not gpu.n_layers:
        verdict += f"; the largest context that would: {plan.most_ctx:,} tokens"
    lines.append(verdict)
    return "\n".join(line.rstrip() for line in lines)
