# libstonefx_cuda: built where nvcc is found and torch is a CUDA build; STONEFX_CUDA=1 demands it, =0 leaves it out.
# STONEFX_CUDA_ARCHITECTURES: such as "80-real;90". The default is the cards that are here; where there is none, machine
# code for 8.0 and 9.0 and PTX of 9.0 for what follows. Every architecture more takes minutes on few cores.
set(STONE_CUDA_COMPILER "")
set(STONE_CUDA_ARCHITECTURES)

set(stone_cuda "auto")
if(DEFINED ENV{STONEFX_CUDA} AND NOT "$ENV{STONEFX_CUDA}" STREQUAL "")
  set(stone_cuda "$ENV{STONEFX_CUDA}")
endif()
if(NOT stone_cuda MATCHES "^(0|1|auto)$")
  message(FATAL_ERROR "STONEFX_CUDA must be 0, 1 or auto, got ${stone_cuda}")
endif()

find_program(STONE_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
if(stone_cuda STREQUAL "1" AND NOT STONE_NVCC)
  message(FATAL_ERROR "STONEFX_CUDA=1, but nvcc is not found: install the CUDA toolkit and put nvcc on PATH (or set "
                      "CUDA_HOME), or unset STONEFX_CUDA to build for the CPU alone")
endif()
if(stone_cuda STREQUAL "0" OR NOT STONE_NVCC OR (stone_cuda STREQUAL "auto" AND NOT STONE_TORCH_HAS_CUDA))
  message(STATUS "stonefx: no CUDA library (STONEFX_CUDA=${stone_cuda}, nvcc: ${STONE_NVCC}, "
                 "torch has CUDA: ${STONE_TORCH_HAS_CUDA})")
  return()
endif()

set(STONE_CUDA_ARCHITECTURES "80-real;90")
if(STONE_TORCH_CARDS)
  set(STONE_CUDA_ARCHITECTURES ${STONE_TORCH_CARDS})
endif()
if(DEFINED ENV{STONEFX_CUDA_ARCHITECTURES} AND NOT "$ENV{STONEFX_CUDA_ARCHITECTURES}" STREQUAL "")
  set(STONE_CUDA_ARCHITECTURES "$ENV{STONEFX_CUDA_ARCHITECTURES}")
endif()
message(STATUS "stonefx: CUDA library for ${STONE_CUDA_ARCHITECTURES}")
set(CMAKE_CUDA_COMPILER "${STONE_NVCC}")
set(CMAKE_CUDA_ARCHITECTURES "${STONE_CUDA_ARCHITECTURES}")
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(STONE_CUDA_COMPILER "nvcc ${CMAKE_CUDA_COMPILER_VERSION}")
set(CMAKE_CUDA_STANDARD 20)

add_library(stonefx_cuda MODULE csrc/cuda/launch.cpp csrc/cuda/expmap0.cu csrc/cuda/logmap0.cu
                                csrc/cuda/mobius_add.cu csrc/cuda/poincare.cu csrc/cuda/lorentz.cu
                                csrc/cuda/poincare_geodesics.cu csrc/cuda/lorentz_geodesics.cu
                                csrc/cuda/klein.cu csrc/cuda/conversions.cu csrc/cuda/sphere.cu
                                csrc/cuda/cdist.cu csrc/cuda/float_cdist.cu csrc/cuda/hyperplanes.cu
                                csrc/cuda/linear_epilogue.cu
                                csrc/cuda/butterfly.cu csrc/cuda/point_of_distances.cu csrc/cuda/take.cu)
set_target_properties(stonefx_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
                                              SKIP_BUILD_RPATH ON)
target_include_directories(stonefx_cuda PRIVATE csrc/include csrc/cuda csrc/launch)
target_include_directories(stonefx_cuda SYSTEM PRIVATE ${STONE_TORCH_INCLUDES} ${CUDAToolkit_INCLUDE_DIRS})
target_compile_definitions(stonefx_cuda PRIVATE TORCH_TARGET_VERSION=${STONE_TORCH_TARGET} USE_CUDA)
target_compile_options(stonefx_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v> $<$<COMPILE_LANGUAGE:CXX>:-O2
                                            -Wall -Wextra>)

# The library must name libtorch_cuda as needed; a CPU build of torch has none, and an empty one of that name serves.
target_link_directories(stonefx_cuda PRIVATE "${STONE_TORCH_LIBRARY_DIR}")
if(EXISTS "${STONE_TORCH_LIBRARY_DIR}/libtorch_cuda.so")
  set(stone_torch_cuda torch_cuda)
else()
  file(WRITE "${CMAKE_BINARY_DIR}/torch_cuda_stub.cpp" "")
  add_library(stone_torch_cuda_stub SHARED "${CMAKE_BINARY_DIR}/torch_cuda_stub.cpp")
  set_target_properties(stone_torch_cuda_stub PROPERTIES OUTPUT_NAME torch_cuda)
  set(stone_torch_cuda stone_torch_cuda_stub)
endif()
target_link_libraries(stonefx_cuda PRIVATE CUDA::cudart_static -Wl,--no-as-needed torch_cpu ${stone_torch_cuda}
                                           -Wl,--as-needed)
install(TARGETS stonefx_cuda LIBRARY DESTINATION stonefx)
