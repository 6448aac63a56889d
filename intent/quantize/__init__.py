"""Turn a 16-bit checkpoint into the variants that classify: `gptq.py` for GPUs, `gguf.py` for CPUs.

Folders in, folders out. Knows nothing of Ray or storage.
"""
