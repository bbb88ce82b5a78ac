"""Meta's own checkpoints: LLaMA 1 to 3.3 and Code Llama, one shard or up to 16.

A folder holds consolidated.00.pth, consolidated.01.pth, ..., params.json and, often, checklist.chk.
Each shard has its piece of every matrix; heads are never cut. Meta's order of rows within a head is
also that of GGUF's llama, so nothing is permuted.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyllamacpp.errors import FileError, FormatError, UnsupportedError
from pyllamacpp_convert.joined import (
    Replicated,
    SideBySide,
    Stacked,
    Vector,
    are_equal,
    rope_factors,
)
from pyllamacpp_convert.source import Checkpoint, Rows
from pyllamacpp_convert.torch_pickle import TorchTensor, read_tensors
from pyllamacpp_convert.writer import Value

MOST_SHARDS = 16
_SHARD = re.compile(r"consolidated\.(\d+)\.pth")

# Meta's names within a layer: GGUF's, and the dimension on which pieces are joined (None: each
# shard has the whole).
_LAYER: dict[str, tuple[str, int | None]] = {
    "attention_norm": ("attn_norm", None),
    "attention.wq": ("attn_q", 0),
    "attention.wk": ("attn_k", 0),
    "attention.wv": ("attn_v", 0),
    "attention.wo": ("attn_output", 1),
    "ffn_norm": ("ffn_norm", None),
    "feed_forward.w1": ("ffn_gate", 0),
    "feed_forward.w3": ("ffn_up", 0),
    "feed_forward.w2": ("ffn_down", 1),
}
_IGNORED = re.compile(r"(.*\.)?rope\.freqs")


def is_meta(folder: Path) -> bool:
    """Whether the folder holds such a checkpoint, or part of one."""
    return any(_SHARD.fullmatch(path.name) for path in folder.iterdir())


def open_meta(
    folder: Path,
    *,
    ctx: int | None = None,
    rope_scale_factor: float | None = None,
    checksum: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Checkpoint:
    """Opens the shards of a folder as one model.

    ctx and rope_scale_factor: what no file says, see `convert`. checksum: verify checklist.chk if
    it is there; `progress` is called with bytes read and bytes in all.

    Raises FormatError when shards are missing, damaged or of different models, UnsupportedError
    for other models than these, FileError when something cannot be read.
    """
    shards = _find_shards(folder)
    params_path = folder / "params.json"
    params = _read_params(params_path)
    files = [*shards, params_path]
    if checksum and (checklist := folder / "checklist.chk").is_file():
        _verify(checklist, progress)
        files.append(checklist)
    pieces = [_weights_of(path) for path in shards]
    for path, tensors in zip(shards[1:], pieces[1:], strict=True):
        if difference := tensors.keys() ^ pieces[0].keys():
            raise FormatError(
                f"{path.name} and {shards[0].name} are not of one model: only one of them has "
                f"{min(difference)}"
            )
    return _Reader(folder, params, pieces, files, ctx, rope_scale_factor).checkpoint()


def _find_shards(folder: Path) -> list[Path]:
    found = {int(m[1]): path for path in folder.iterdir() if (m := _SHARD.fullmatch(path.name))}
    n = max(found) + 1
    if n > MOST_SHARDS:
        raise FormatError(f"{folder}: {found[n - 1].name} is there, but no model has {n} shards")
    missing = [f"consolidated.{i:02}.pth" for i in range(n) if i not in found]
    if missing:
        raise FormatError(
            f"{folder}: {found[n - 1].name} is there, but not {', '.join(missing)}: fetch it"
        )
    return [found[i] for i in range(n)]


def _read_params(path: Path) -> dict[str, Any]:
    try:
        params = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileError(f"{path} is missing: it comes with the weights") from None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from error
    if isinstance(params, dict) and isinstance(params.get("model"), dict):
        params = params["model"]
    if not isinstance(params, dict):
        raise FormatError(f"{path} is not an object")
    for key in ("quantization_args", "lora_args", "vision_model", "moe_args"):
        if params.get(key):
            raise UnsupportedError(
                f"{path} has {key}: only plain 16- or 32-bit text models can be converted"
            )
    if any(key.startswith("vision_") for key in params):
        raise UnsupportedError(f"{path} is a vision model's, which cannot be converted")
    return params


def _verify(checklist: Path, progress: Callable[[int, int], None] | None) -> None:
    """Compares each file of an md5sum list with its sum."""
    try:
        lines = checklist.read_text("utf-8", "replace").split("\n")
    except OSError as error:
        raise FileError(f"cannot read {checklist}: {error.strerror or error}") from error
    sums: dict[Path, str] = {}
    for line in filter(str.strip, lines):
        parts = re.fullmatch(r"([0-9a-fA-F]{32}) [ *](?:\./)?([^/\\]+)", line.strip())
        if not parts:
            raise FormatError(f"{checklist}: {line!r:.80} is not a line of md5sum")
        sums[checklist.parent / parts[2]] = parts[1].lower()
    for path in sums:
        if not path.is_file():
            raise FormatError(f"{checklist} lists {path.name}, which is missing: fetch it")
    total, done = sum(path.stat().st_size for path in sums), 0

    def digest(path: Path) -> str:
        nonlocal done
        hasher = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                hasher.update(block)
                done += len(block)
                if progress is not None:
                    progress(min(done, total), total)
        return hasher.hexdigest()

    try:
        # Two at a time: one reads while the other counts.
        with ThreadPoolExecutor(2) as pool:
            for path, found in zip(sums, pool.map(digest, sums), strict=True):
                if found != sums[path]:
                    raise FormatError(
                        f"{path.name} is damaged: its md5 is {found}, checklist.chk has "
                        f"{sums[path]}; fetch it again (--no-checksum skips this)"
                    )
    except OSError as error:
        raise FileError(f"cannot read the files of {checklist}: {error}") from error


def _weights_of(path: Path) -> dict[str, TorchTensor]:
    tensors = read_tensors(path)
    return {name: t for name, t in tensors.items() if not _IGNORED.fullmatch(name)}


@dataclass
class _Reader:
    """The shards of one model on their way to a `Checkpoint`."""

    folder: Path
    params: Mapping[str, Any]
    pieces: Sequence[Mapping[str, TorchTensor]]
    files: list[Path]
    ctx: int | None
    rope_scale_factor: float | None

    def checkpoint(self) -> Checkpoint:
        self.notes: list[str] = []
        self.used: set[str] = set()
        n_layers, n_heads = self._count("n_layers"), self._count("n_heads")
        self.dim = self._whole("norm").shape[-1]
        stated = self.params.get("dim")
        if stated != self.dim or self.dim % n_heads:
            raise FormatError(
                f"{self.folder}: params.json says dim {stated} and {n_heads} heads, but the "
                f"weights have dim {self.dim}: it is another model's"
            )
        head_dim = self.dim // n_heads
        copies = self._key_copies(head_dim)
        tensors: dict[str, Rows] = {"token_embd.weight": self._embedding()}
        n_vocab = tensors["token_embd.weight"].shape[0]
        for layer in range(n_layers):
            for name, (target, axis) in _LAYER.items():
                n = copies if name in ("attention.wk", "attention.wv") else 1
                tensors[f"blk.{layer}.{target}.weight"] = self._joined(
                    f"layers.{layer}.{name}.weight", axis, n
                )
        tensors["output_norm.weight"] = self._whole("norm")
        self._add_output(tensors)
        self._refuse_the_rest(n_layers)
        n_kv_heads = tensors["blk.0.attn_k.weight"].shape[0] // head_dim
        n_ff = tensors["blk.0.ffn_gate.weight"].shape[0]
        self._check_shapes(tensors, n_layers, n_heads, n_kv_heads, n_ff, n_vocab)
        self._compare(n_kv_heads, n_ff, n_vocab)
        theta, eps = self._real("rope_theta", 10000.0), self._real("norm_eps", 1e-5)
        factor = self._scale_factor(n_layers)
        if factor is not None:
            tensors["rope_freqs.weight"] = Vector(rope_factors(head_dim, theta, factor))
        metadata: dict[str, Value] = {
            "general.architecture": "llama",
            "general.name": _name(self.folder),
            "llama.vocab_size": n_vocab,
            "llama.context_length": self._context(theta, n_vocab, factor),
            "llama.embedding_length": self.dim,
            "llama.block_count": n_layers,
            "llama.feed_forward_length": n_ff,
            "llama.attention.head_count": n_heads,
            "llama.attention.head_count_kv": n_kv_heads,
            "llama.attention.layer_norm_rms_epsilon": eps,
            "llama.rope.dimension_count": head_dim,
            "llama.rope.freq_base": theta,
        }
        kind = f"Meta, {len(self.pieces)} shard{'s' if len(self.pieces) > 1 else ''}"
        return Checkpoint(self.folder, kind, metadata, tensors, self.files, n_vocab, self.notes)

    def _count(self, key: str) -> int:
        value = self.params.get(key)
        if type(value) is not int or not 0 < value < 1 << 16:
            raise FormatError(f"{self.folder / 'params.json'}: {key} is {value!r:.40}, not a count")
        return value

    def _real(self, key: str, otherwise: float) -> float:
        value = self.params.get(key, otherwise)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise FormatError(
                f"{self.folder / 'params.json'}: {key} is {value!r:.40}, not a positive number"
            )
        return float(value)

    def _pieces_of(self, name: str) -> list[TorchTensor]:
        self.used.add(name)
        try:
            pieces = [tensors[name] for tensors in self.pieces]
        except KeyError:
            raise FormatError(
                f"{self.folder}: {name} is missing: params.json is another model's, or the "
                "download is not whole"
            ) from None
        for i, piece in enumerate(pieces):
            if (piece.dtype, piece.shape) != (pieces[0].dtype, pieces[0].shape):
                raise FormatError(
                    f"{name} is {_described(pieces[0])} in shard 0 and {_described(piece)} in "
                    f"shard {i}: the shards are of different models"
                )
        return pieces

    def _whole(self, name: str) -> Rows:
        return self._joined(f"{name}.weight", None)

    def _joined(self, name: str, axis: int | None, copies: int = 1) -> Rows:
        pieces: list[Rows] = list(self._pieces_of(name))
        if len(pieces[0].shape) != (1 if axis is None else 2):
            raise FormatError(f"{self.folder}: {name} has {len(pieces[0].shape)} dimensions")
        if copies > 1:
            groups = zip(*(iter(pieces),) * copies, strict=True)
            pieces = [Replicated(name, list(group)) for group in groups]
        if len(pieces) == 1:
            return pieces[0]
        if axis is None:
            return Replicated(name, pieces)
        return Stacked(pieces) if axis == 0 else SideBySide(pieces)

    def _embedding(self) -> Rows:
        """Joined on the columns up to LLaMA 2, on the rows since LLaMA 3."""
        name = "tok_embeddings.weight"
        columns = self._pieces_of(name)[0].shape[-1]
        return self._joined(name, 0 if columns == self.dim else 1)

    def _key_copies(self, head_dim: int) -> int:
        """How many shards in a row hold the same heads of keys: 2 where shards outnumber heads."""
        name, n = "layers.0.attention.wk.weight", len(self.pieces)
        pieces = self._pieces_of(name)
        if n % 2 or pieces[0].shape[0] != head_dim:
            return 1
        pairs = zip(pieces[::2], pieces[1::2], strict=True)
        if not all(are_equal(a, b) for a, b in pairs):
            return 1
        self.notes.append("each two shards hold the same keys and values, which are stored once")
        return 2

    def _add_output(self, tensors: dict[str, Rows]) -> None:
        if "output.weight" not in self.pieces[0]:
            return
        output = self._joined("output.weight", 0)
        if are_equal(output, tensors["token_embd.weight"]):
            self.notes.append("the output matrix is the embedding, which is stored once")
        else:
            tensors["output.weight"] = output

    def _refuse_the_rest(self, n_layers: int) -> None:
        rest = sorted(self.pieces[0].keys() - self.used)
        if rest:
            beyond = any(name.startswith(f"layers.{n_layers}.") for name in rest)
            raise (FormatError if beyond else UnsupportedError)(
                f"{self.folder} has a tensor {rest[0]} that a LLaMA of {n_layers} layers has not"
                + (": params.json is another model's" if beyond else "")
            )

    def _check_shapes(
        self,
        tensors: Mapping[str, Rows],
        n_layers: int,
        n_heads: int,
        n_kv_heads: int,
        n_ff: int,
        n_vocab: int,
    ) -> None:
        dim, head_dim = self.dim, self.dim // n_heads
        kv_dim = n_kv_heads * head_dim
        expected = {
            "attn_norm": (dim,),
            "attn_q": (dim, dim),
            "attn_k": (kv_dim, dim),
            "attn_v": (kv_dim, dim),
            "attn_output": (dim, dim),
            "ffn_norm": (dim,),
            "ffn_gate": (n_ff, dim),
            "ffn_up": (n_ff, dim),
            "ffn_down": (dim, n_ff),
        }
        shapes = {
            f"blk.{i}.{part}.weight": shape
            for i in range(n_layers)
            for part, shape in expected.items()
        }
        shapes |= {"token_embd.weight": (n_vocab, dim), "output.weight": (n_vocab, dim)}
        for name, rows in tensors.items():
            if rows.shape != shapes.get(name, rows.shape):
                raise FormatError(
                    f"{self.folder}: {name} is {_times(rows.shape)} when the shards are joined, "
                    f"expected {_times(shapes[name])}: a shard is missing, or params.json is "
                    "another model's"
                )
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise FormatError(
                f"{self.folder}: {n_heads} heads cannot share {n_kv_heads} of keys and values: a "
                "shard is missing, or params.json is another model's"
            )

    def _compare(self, n_kv_heads: int, n_ff: int, n_vocab: int) -> None:
        """Notes what params.json says otherwise than the weights, which count."""
        stated = self.params.get("n_kv_heads") or self.params["n_heads"]
        if stated != n_kv_heads:
            self.notes.append(
                f"params.json says {stated} heads of keys and values, the weights have {n_kv_heads}"
            )
        by_formula = _feed_forward(self.params, self.dim)
        if by_formula not in (None, n_ff):
            self.notes.append(
                f"params.json gives a feed-forward of {by_formula}, the weights have {n_ff}"
            )
        if self.params.get("vocab_size") not in (None, -1, n_vocab):
            self.notes.append(
                f"params.json says {self.params['vocab_size']} tokens, the embedding has {n_vocab}"
            )

    def _scale_factor(self, n_layers: int) -> float | None:
        if not self.params.get("use_scaled_rope") and self.rope_scale_factor is None:
            return None
        # Meta's files do not say; LLaMA 3.2 of 1B and 3B were trained with 32, all others with 8.
        small = (self.dim, n_layers) in {(2048, 16), (3072, 28)}
        factor = self.rope_scale_factor or (32.0 if small else 8.0)
        given = (
            "as given" if self.rope_scale_factor else "as LLaMA 3.2" if small else "as LLaMA 3.1"
        )
        self.notes.append(f"scaled positions with factor {factor:g}, {given}")
        return factor

    def _context(self, theta: float, n_vocab: int, factor: float | None) -> int:
        if self.ctx is not None:
            return self.ctx
        name = str(self.folder.resolve().parent.name + " " + self.folder.resolve().name)
        dtype = self._pieces_of("norm.weight")[0].dtype
        if factor is not None:
            ctx, known = 131072, "LLaMA 3.1"
        elif n_vocab >= 128000:
            ctx, known = 8192, "LLaMA 3"
        elif theta == 1e6:
            ctx, known = 16384, "Code Llama"
        elif dtype == "bf16" or re.search(r"llama-?2", name, re.IGNORECASE):
            ctx, known = 4096, "Llama 2"
        else:
            ctx, known = 2048, "LLaMA 1"
        self.notes.append(
            f"a context of {ctx} tokens, as {known} has it; the files do not say (--ctx N)"
        )
        return ctx


def _feed_forward(params: Mapping[str, Any], dim: int) -> int | None:
    """The feed-forward's width by Meta's formula; None where params.json does not give it."""
    multiplier, multiple = params.get("ffn_dim_multiplier") or 1, params.get("multiple_of")
    if type(multiple) is not int or multiple < 1 or type(multiplier) not in (int, float):
        return None
    width = multiplier * int(8 * dim / 3)
    return multiple * math.ceil(int(width) / multiple) if width < 1 << 30 else None


def _name(folder: Path) -> str:
    """What the model is called: LLaMA 1's folders are named by size alone."""
    name = folder.resolve().name
    return f"LLaMA {name}" if re.fullmatch(r"\d+B", name) else name


def _described(tensor: TorchTensor) -> str:
    return f"{tensor.dtype} {_times(tensor.shape)}"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
