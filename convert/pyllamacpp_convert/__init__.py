"""Checkpoints in: Meta and Hugging Face folders to one GGUF file.

The package reserves the place: readers, name maps and the writer come with the release that brings
`pyllamacpp convert`. It holds no function yet.
"""
