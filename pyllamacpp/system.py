"""What llama-cpp-python's functions say of the machine and the build."""

from __future__ import annotations

from . import _core


def llama_print_system_info() -> bytes:
    """The kernel tiers that this machine can run, and which one does."""
    tiers = ", ".join(_core.isa_tiers())
    return f"pyllamacpp {_core.version}: kernels {_core.isa()} of {tiers}".encode()


def llama_supports_mmap() -> bool:
    """Files are mapped."""
    return True


def llama_supports_mlock() -> bool:
    """Memory is not locked."""
    return False


def llama_supports_gpu_offload() -> bool:
    """Whether `n_gpu_layers` finds a GPU here that PYLLAMACPP_DEVICE allows."""
    return _core.chosen_gpu(_core.list_gpus()) is not None
