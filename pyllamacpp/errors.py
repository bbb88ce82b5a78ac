"""The one family of exceptions. Each message is a sentence that says what was found and expected.

This module imports nothing of the package: the C++ extension looks its classes up here.
"""


class PyllamacppError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidArgumentError(PyllamacppError, ValueError):
    """An argument is out of range or does not fit the model."""


class FormatError(PyllamacppError, ValueError):
    """A file is not what it claims to be: truncated, inconsistent or malformed."""


class FileError(PyllamacppError, OSError):
    """A file cannot be opened, read or written."""


class ModelFileError(FileError, ValueError):
    """A model that was asked for is missing, unreadable or not a file.

    Also a `ValueError`, which is what users of llama-cpp-python catch.
    """


class OutOfMemoryError(PyllamacppError, MemoryError):
    """Memory for weights, cache or work buffers could not be had."""


class UnsupportedError(PyllamacppError, ValueError):
    """Something valid that this release cannot do."""


class ContextFullError(PyllamacppError, ValueError):
    """More tokens than the context window holds."""


class NotEnabledError(PyllamacppError, RuntimeError):
    """A method that must be asked for when the model is loaded was not."""


class CancelledError(PyllamacppError):
    """A running evaluation was cancelled from another thread."""


class DeviceError(PyllamacppError, RuntimeError):
    """The GPU or its driver failed."""
