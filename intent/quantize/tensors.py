"""Show the progress of llama.cpp's quantizer from the line that it logs for each tensor."""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager

from intent.progress import Report

LINE = re.compile(rb"\[ *(\d+)/ *(\d+)\]")


@contextmanager
def reported(report: Report) -> Iterator[None]:
    """Report each tensor that is quantized in the block."""
    import llama_cpp

    from intent.engine.gguf import _silence

    def read(level: int, text: bytes, data) -> None:
        if match := LINE.match(text):
            number, total = map(int, match.groups())
            # llama.cpp logs the line before it quantizes the tensor.
            report(number - 1, total, "tensor", "")

    callback, silence = llama_cpp.llama_log_callback(read), _silence()
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield
    finally:
        llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
