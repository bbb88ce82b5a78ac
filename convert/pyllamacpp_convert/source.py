"""What a reader of checkpoints gives the converter: tensors by their GGUF names, read by ranges."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from pyllamacpp_convert.metadata import Value

# float16, float32, or uint16 holding bfloat16; of a quantized type uint8 [rows][row bytes].
Stored = npt.NDArray[Any]


class Rows(Protocol):
    """A matrix (or a vector, which is one row) that lies in one or several files.

    `dtype` is one of kernels.TYPE_IDS. Reading opens, reads ranges and closes: nothing is mapped,
    nothing is held.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first; a vector has one dimension."""
        ...

    @property
    def dtype(self) -> str:
        """How its weights are stored."""
        ...

    def read(self, first: int, last: int) -> Stored:
        """Rows [first, last) as they are stored, C order.

        Raises FileError or FormatError when the file cannot be read or ends too early.
        """
        ...


@dataclass
class Checkpoint:
    """A checkpoint as it will be in the GGUF, before any of its weights was read.

    path: the folder. metadata: GGUF keys of the architecture ("general.architecture",
    "llama.block_count", ...), without the tokenizer's. tensors: by GGUF name, in the order of the
    file, in GGUF's order of rows. files: everything that was or will be read. notes: one sentence
    each, for the user. n_vocab: rows of the embedding.
    """

    path: Path
    kind: str
    metadata: dict[str, Value]
    tensors: dict[str, Rows]
    files: list[Path]
    n_vocab: int
    notes: list[str] = field(default_factory=list)
