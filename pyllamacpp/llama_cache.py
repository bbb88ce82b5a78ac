"""Caches of evaluated texts, in memory or in files, that a `Llama` looks its prompts up in.

Nothing is pickled: entries are states as docs/formats.md has them.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _core
from .errors import FileError, FormatError, InvalidArgumentError, UnsupportedError
from .log import logger
from .state import (
    MOST_HEADER_BYTES,
    LlamaState,
    Origin,
    common_length,
    head_of,
    read_head,
    state_of,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# What an entry in memory takes beside its bytes, roughly.
_ENTRY_BYTES = 1024
_OWN_FILE = re.compile(r"[0-9a-f]{64}\.pyllstate")
_PART_FILE = re.compile(r"[0-9a-f]{64}\.[0-9a-z_]+\.pyllstate-part")
# Seconds after which a file that nobody has finished is given up.
_PART_LIFE = 3600


class BaseLlamaCache(ABC):
    """States by their tokens; what is looked up is the one that begins most alike.

    All methods may be called from several threads.
    """

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        """capacity_bytes: what all entries together take at most."""
        if isinstance(capacity_bytes, bool) or not isinstance(capacity_bytes, int):
            raise InvalidArgumentError(
                f"capacity_bytes must be an integer, found {capacity_bytes!r:.80}"
            )
        if capacity_bytes < 0:
            raise InvalidArgumentError(f"capacity_bytes must not be negative: {capacity_bytes}")
        self.capacity_bytes = capacity_bytes

    @property
    @abstractmethod
    def cache_size(self) -> int:
        """Bytes that the entries take."""

    @abstractmethod
    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        """The state that begins with the most of `key`, which stays. KeyError if none does."""

    @abstractmethod
    def __contains__(self, key: Sequence[int]) -> bool:
        """Whether a state begins with the first of `key`."""

    @abstractmethod
    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        """Keeps a state of `key`; older ones go where the room is needed."""

    def find(self, tokens: Sequence[int], origin: Origin) -> LlamaState | None:
        """The state of this origin that begins with the most of `tokens`."""
        try:
            state = self[tokens]
        except KeyError:
            return None
        return state if state.head.origin == origin else None

    def covers(self, tokens: Sequence[int], origin: Origin) -> bool:
        """Whether a state of this origin begins with all of `tokens`."""
        state = self.find(tokens, origin)
        return state is not None and common_length(tokens, state.input_ids) == len(tokens)


_Place = TypeVar("_Place")  # where a cache has a state


class _PrefixCache(BaseLlamaCache, Generic[_Place]):
    """What both caches do alike once they know where states are."""

    @abstractmethod
    def _best(self, tokens: Sequence[int], origin: Origin | None) -> tuple[int, _Place | None]:
        """How many of `tokens` a state begins with at most (None: of any origin), and which."""

    @abstractmethod
    def _read(self, place: _Place) -> LlamaState | None:
        """The state there; None where there is none any more, which `_best` then knows."""

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        state = self._find(key, None)
        if state is None:
            raise KeyError("no state begins like the key")
        return state

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._best(key, None)[0] > 0

    def find(self, tokens: Sequence[int], origin: Origin) -> LlamaState | None:
        """The state of this origin that begins with the most of `tokens`."""
        return self._find(tokens, origin)

    def covers(self, tokens: Sequence[int], origin: Origin) -> bool:
        """Whether a state of this origin begins with all of `tokens`; no state is read."""
        return self._best(tokens, origin)[0] == len(tokens)

    def _find(self, tokens: Sequence[int], origin: Origin | None) -> LlamaState | None:
        while True:
            _, place = self._best(tokens, origin)
            if place is None:
                return None
            state = self._read(place)
            if state is not None:
                return state


class LlamaRAMCache(_PrefixCache[tuple[Origin, bytes]]):
    """A cache in memory, which counts all bytes it holds."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        self._lock = threading.Lock()
        # By origin and tokens, the one used longest ago first.
        self._states: OrderedDict[tuple[Origin, bytes], LlamaState] = OrderedDict()

    @property
    def cache_size(self) -> int:
        """Bytes that the entries take."""
        with self._lock:
            return self._size()

    def _size(self) -> int:
        return sum(_bytes_in_memory(state) for state in self._states.values())

    def _best(
        self, tokens: Sequence[int], origin: Origin | None
    ) -> tuple[int, tuple[Origin, bytes] | None]:
        best, found = 0, None
        with self._lock:
            for key, state in self._states.items():
                if origin is None or key[0] == origin:
                    n = common_length(tokens, state.input_ids)
                    if n > best:
                        best, found = n, key
        return best, found

    def _read(self, place: tuple[Origin, bytes]) -> LlamaState | None:
        with self._lock:
            if place in self._states:
                self._states.move_to_end(place)
            return self._states.get(place)

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        _check_key(key, value)
        ids, origin = value.input_ids, value.head.origin
        with self._lock:
            for other in list(self._states):  # what begins the new text says nothing more
                if other[0] == origin and ids.tobytes().startswith(other[1]):
                    del self._states[other]
            if _bytes_in_memory(value) > self.capacity_bytes:
                return
            self._states[origin, ids.tobytes()] = value
            while self._size() > self.capacity_bytes:
                self._states.popitem(last=False)


LlamaCache = LlamaRAMCache


class LlamaDiskCache(_PrefixCache[Path]):
    """A cache in the files of a folder, which several processes may share."""

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] = ".cache/llama_cache",
        capacity_bytes: int = 2 << 30,
    ) -> None:
        """cache_dir: is made if it is not there. Raises FileError where it cannot be."""
        super().__init__(capacity_bytes)
        self.cache_dir = Path(cache_dir)
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{self.cache_dir}: cannot be a cache's folder: {error}") from error
        self._lock = threading.Lock()
        self._heads: dict[tuple[str, int, int], _FileHead | None] = {}

    @property
    def cache_size(self) -> int:
        """Bytes of the files, those of other processes among them."""
        return sum(size for _, size, _ in self._files())

    def _best(self, tokens: Sequence[int], origin: Origin | None) -> tuple[int, Path | None]:
        best, found = 0, None
        for path, head in self._known():
            if origin is None or head.origin == origin:
                n = common_length(tokens, head.tokens)
                if n > best:
                    best, found = n, path
        return best, found

    def _read(self, place: Path) -> LlamaState | None:
        try:
            state = LlamaState(place.read_bytes())
        except FormatError as error:
            logger.warning("%s: removed from the cache: %s", place, error)
            _remove(place)
        except FileNotFoundError:  # another process has removed it
            return None
        except OSError as error:
            logger.warning("%s: the cache's file cannot be read: %s", place, error)
        else:
            with suppress(OSError):
                os.utime(place)
            return state
        if place.exists():  # it cannot be removed either: it is not to be found again
            with self._lock:
                self._heads |= {key: None for key in self._heads if key[0] == place.name}
        return None

    def _known(self) -> list[tuple[Path, _FileHead]]:
        """The sound headers of the folder; each file is read once."""
        known: list[tuple[Path, _FileHead]] = []
        with self._lock:
            heads: dict[tuple[str, int, int], _FileHead | None] = {}
            for path, size, inode in self._files():
                key = (path.name, size, inode)
                heads[key] = self._heads[key] if key in self._heads else _file_head(path)
                head = heads[key]
                if head is not None:
                    known.append((path, head))
            self._heads = heads
        return known

    def _files(self) -> list[tuple[Path, int, int]]:
        """(path, size, inode) of the cache's own files, the one used longest ago first."""
        found: list[tuple[int, Path, int, int]] = []
        with suppress(FileNotFoundError), os.scandir(self.cache_dir) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if _OWN_FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        path = Path(entry.path)
                        found.append((status.st_mtime_ns, path, status.st_size, status.st_ino))
        return [(path, size, inode) for _, path, size, inode in sorted(found)]

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        """Keeps a state of `key`. Raises FileError where it cannot be written."""
        _check_key(key, value)
        size = value.llama_state_size
        if size > self.capacity_bytes:
            return
        ids, origin = value.input_ids, value.head.origin
        for path, head in self._known():  # what begins the new text says nothing more
            if head.origin == origin and common_length(ids, head.tokens) == len(head.tokens):
                _remove(path)
        self._shrink(self.capacity_bytes - size)
        words = f"{origin.model}/{origin.kv_layout}/{origin.computed_by}/".encode()
        name = hashlib.sha256(words + ids.tobytes()).hexdigest()
        part = self.cache_dir / f"{name}.{os.getpid()}_{threading.get_ident()}.pyllstate-part"
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            part.write_bytes(value.llama_state)
            part.replace(self.cache_dir / f"{name}.pyllstate")
        except OSError as error:
            raise FileError(f"{self.cache_dir}: a state cannot be kept: {error}") from error
        finally:
            _remove(part)
        self._shrink(self.capacity_bytes)  # others may have written meanwhile

    def _shrink(self, most: int) -> None:
        """Removes files until all take `most` bytes, and what processes that died have left."""
        files = self._files()
        total = sum(size for _, size, _ in files)
        for path, size, _ in files:
            if total <= most:
                break
            _remove(path)
            total -= size
        for part in self.cache_dir.glob("*.pyllstate-part"):
            with suppress(OSError):
                is_old = part.lstat().st_mtime < time.time() - _PART_LIFE
                if is_old and _PART_FILE.fullmatch(part.name):
                    _remove(part)


@dataclass(frozen=True)
class _FileHead:
    """What a file of the cache holds."""

    origin: Origin
    tokens: npt.NDArray[np.intc]


def _file_head(path: Path) -> _FileHead | None:
    """None where the file is not sound (what is no state at all is removed) or not readable."""
    import numpy as np

    try:
        with path.open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            data = file.read(MOST_HEADER_BYTES + 12)
            head, start = read_head(data, n_bytes, str(path))
            file.seek(start)
            ids = np.frombuffer(file.read(4 * head.n_tokens), "<i4")
    except FormatError as error:
        logger.warning("%s: removed from the cache: %s", path, error)
        _remove(path)
        return None
    except (OSError, UnsupportedError) as error:
        logger.warning("%s: the cache's file is not used: %s", path, error)
        return None
    return _FileHead(head.origin, ids)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _bytes_in_memory(state: LlamaState) -> int:
    return state.llama_state_size + 4 * state.n_tokens + _ENTRY_BYTES


def _check_key(key: Sequence[int], state: LlamaState) -> None:
    if not isinstance(state, LlamaState):
        raise InvalidArgumentError(f"a cache keeps LlamaState, found {type(state).__name__}")
    if common_length(key, state.input_ids) != min(len(key), state.n_tokens):
        raise InvalidArgumentError("the key is not of the tokens that the state holds")


class PromptCache:
    """A cache as the engine of one context uses it: trouble with it is a miss and a warning."""

    def __init__(self, cache: BaseLlamaCache, model: _core.Model, context: _core.Context) -> None:
        self._cache = cache
        self._context = context
        self._n_vocab = model.config.n_vocab
        self._origin = Origin.of(model, context)

    def load(self, sequence: int, tokens: Sequence[int]) -> None:
        """Puts what the cache has of `tokens` into a sequence, if that holds less of them."""
        import numpy as np

        try:
            state = self._cache.find(tokens, self._origin)
            if state is None or state.head.origin != self._origin:
                return
            held = np.array(self._context.tokens(sequence), dtype=np.intc)
            n = common_length(tokens, state.input_ids)
            if n > common_length(tokens, held):
                self._context.load(sequence, list(tokens[:n]), state.pages(n))
        except Exception as error:
            logger.warning("the prompt cache was not used: %s", error)

    def save(self, sequence: int) -> None:
        """Keeps the text of a sequence, unless the cache has it."""
        try:
            tokens = self._context.tokens(sequence)
            if not tokens:
                return
            if self._cache.covers(tokens, self._origin):
                return
            head = head_of(
                self._context,
                self._origin,
                len(tokens),
                n_vocab=self._n_vocab,
                n_scores=0,
                seed=-1,
            )
            self._cache[tokens] = state_of(self._context, sequence, head)
        except Exception as error:
            logger.warning("the text was not put into the prompt cache: %s", error)
