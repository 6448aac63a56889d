"""From a 16-bit checkpoint to the variants that classify: `gptq.py` for GPUs, `gguf.py` for CPUs.

Knows nothing of Ray or storage: folders in, folders out.
"""
