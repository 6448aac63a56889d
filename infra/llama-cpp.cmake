# llama-cpp-python builds llama.cpp's common code, which only llama.cpp's programs use and which takes longer to compile than
# the library. A normal variable takes precedence over the cache entry of the same name.
set(LLAMA_BUILD_COMMON OFF)
