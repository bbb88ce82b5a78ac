"""Models by name: what can be fetched, where it lies, and how a name becomes a path."""

from .resolve import resolve_model

__all__ = ["resolve_model"]
