"""Values of a GGUF's metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gguf


@dataclass(frozen=True)
class Typed:
    """A metadata value of a stated type; `item_type` is that of an array's items."""

    value: Any
    type: gguf.GGUFValueType
    item_type: gguf.GGUFValueType | None = None


Value: TypeAlias = (
    bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float] | Typed
)
