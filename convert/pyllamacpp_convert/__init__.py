"""Checkpoints in: Meta and Hugging Face folders to one quantized GGUF file; GGUF files to others.

>>> from pyllamacpp_convert import convert, quantize_gguf
>>> convert("LLaMA/13B", "llama-13b-q4_k_m.gguf", "q4_k_m")
>>> quantize_gguf("model-f16.gguf", "model-q5_k_m.gguf", "q5_k_m")
"""

from pyllamacpp_convert.convert import convert, plan_conversion
from pyllamacpp_convert.merge import merge_lora, plan_merge
from pyllamacpp_convert.pipeline import Progress
from pyllamacpp_convert.plan import Plan
from pyllamacpp_convert.quantize import plan_quantization, quantize_gguf

__all__ = [
    "Plan",
    "Progress",
    "convert",
    "merge_lora",
    "plan_conversion",
    "plan_merge",
    "plan_quantization",
    "quantize_gguf",
]
