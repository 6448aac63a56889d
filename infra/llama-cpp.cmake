# llama-cpp-python switches llama.cpp's common code on, which only its programs use and which takes longer to compile than the
# library. A variable of this name goes before the switch in CMake's cache.
set(LLAMA_BUILD_COMMON OFF)
