"""The logits a `Llama` has kept, one row per evaluated token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Scores:
    """Rows of logits, float32 [n_ctx, n_vocab].

    The array is made at its first use, and the system backs only the rows that are written.
    """

    def __init__(self, n_ctx: int, n_vocab: int) -> None:
        self._shape = (n_ctx, n_vocab)
        self._rows: npt.NDArray[np.float32] | None = None

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        """All rows, float32 [n_ctx, n_vocab]; those never written are zero."""
        if self._rows is None:
            import numpy as np

            self._rows = np.zeros(self._shape, dtype=np.float32)
        return self._rows

    def store(self, end: int, logits: npt.NDArray[np.float32]) -> None:
        """Writes logits [n, n_vocab] as the n rows before row `end`."""
        self.rows[end - len(logits) : end] = logits
