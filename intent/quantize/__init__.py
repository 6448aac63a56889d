"""Quantize a 16-bit checkpoint: to GPTQ for GPUs (`gptq.py`) and to GGUF for CPUs (`gguf.py`).

The functions read and write local folders. This package knows nothing of Ray or storage.
"""
