# stonefx._C: facts about the build, readable without torch.
pybind11_add_module(_C MODULE csrc/module.cpp csrc/cpu/machine/isa.cpp csrc/cpu/machine/machine.cpp)
find_package(Threads REQUIRED)
target_link_libraries(_C PRIVATE Threads::Threads)
target_include_directories(_C PRIVATE csrc csrc/cpu)
string(REPLACE ";" " " stone_flags "${STONE_CPU_FLAGS}")
string(REPLACE ";" " " stone_architectures "${STONE_CUDA_ARCHITECTURES}")
target_compile_definitions(
  _C
  PRIVATE STONE_VERSION="${PROJECT_VERSION}"
          STONE_TORCH_VERSION="${STONE_TORCH_VERSION}"
          STONE_TORCH_TARGET="2.11"
          STONE_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
          STONE_FLAGS="${stone_flags}"
          STONE_CUDA_COMPILER="${STONE_CUDA_COMPILER}"
          STONE_CUDA_ARCHITECTURES="${stone_architectures}"
          $<$<BOOL:${STONE_X86}>:STONE_X86>)
install(TARGETS _C LIBRARY DESTINATION stonefx)
