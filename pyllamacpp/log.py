"""The package's logger. The library says things here and nowhere else."""

from __future__ import annotations

import logging

logger = logging.getLogger("pyllamacpp")


def turn_on() -> None:
    """Lets messages of level INFO through, to stderr unless logging is configured otherwise."""
    logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("pyllamacpp: %(message)s"))
        logger.addHandler(handler)
