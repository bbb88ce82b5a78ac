"""Checkpoints in: Meta and Hugging Face folders to one GGUF file.

Here so far: `torch_pickle` reads the tensors of `torch.save` files without executing or loading
them, `writer` writes a GGUF in row bands. The converter itself comes with a later release.
"""
