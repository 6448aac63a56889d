# llama-cpp-python builds llama.cpp's common code, which only llama.cpp's programs use and which takes longer to compile than
# the library. A normal variable takes precedence over the cache entry of the same name.
set(LLAMA_BUILD_COMMON OFF)

# On a CPU with AMX, llama.cpp sets up the tiles from a structure on the stack. GCC's `_tile_loadconfig` names only its first eight
# bytes as read, so GCC removes the writes to the others, and the next AMX instruction ends the process ("illegal instruction").
# These flags keep the writes (ggml-org/llama.cpp pull request 26954).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-fno-tree-dse -fno-dse)
endif()
