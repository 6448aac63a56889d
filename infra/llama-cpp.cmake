# llama-cpp-python switches llama.cpp's common code on, which only its programs use and which takes longer to compile than the
# library. A variable of this name goes before the switch in CMake's cache.
set(LLAMA_BUILD_COMMON OFF)

# On a CPU with AMX, llama.cpp sets up the tiles from a structure on the stack. GCC's `_tile_loadconfig` names only its first eight
# bytes as read, so GCC removes the writes to the others, and the next AMX instruction ends the process ("illegal instruction").
# These flags keep the writes (ggml-org/llama.cpp pull request 26954).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-fno-tree-dse -fno-dse)
endif()
