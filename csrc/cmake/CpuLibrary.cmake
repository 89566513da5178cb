# libstonefx_cpu: launchers on the stable ABI, and the kernels once for each instruction set.
set(stone_isa_objects)

function(stone_instruction_set name)
  add_library(stone_${name} OBJECT csrc/cpu/table.cpp csrc/cpu/butterfly/butterfly.cpp csrc/cpu/rows/formula_table.cpp
                                   csrc/cpu/pairs/cdist_table.cpp csrc/cpu/pairs/hyperplanes.cpp
                                   csrc/cpu/products/linear_epilogue.cpp csrc/cpu/products/take.cpp)
  target_include_directories(stone_${name} PRIVATE csrc/include csrc/cpu)
  target_compile_definitions(stone_${name} PRIVATE STONE_NAMESPACE=stone::${name})
  target_compile_options(stone_${name} PRIVATE ${STONE_CPU_FLAGS} ${ARGN})
  set(stone_isa_objects ${stone_isa_objects} $<TARGET_OBJECTS:stone_${name}> PARENT_SCOPE)
endfunction()

stone_instruction_set(baseline)
set(STONE_X86 OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(STONE_X86 ON)
  stone_instruction_set(avx2 -mavx2 -mfma)
  stone_instruction_set(avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512)
endif()

add_library(stonefx_cpu MODULE csrc/cpu/launch.cpp csrc/cpu/pairs/cdist_launch.cpp csrc/cpu/pairs/hyperplane_launch.cpp
            csrc/cpu/kernels.cpp csrc/cpu/machine/isa.cpp ${stone_isa_objects})
target_include_directories(stonefx_cpu PRIVATE csrc/include csrc/cpu csrc/launch)
target_include_directories(stonefx_cpu SYSTEM PRIVATE ${STONE_TORCH_INCLUDES})
target_compile_definitions(
  stonefx_cpu PRIVATE TORCH_TARGET_VERSION=${STONE_TORCH_TARGET} $<$<BOOL:${STONE_X86}>:STONE_X86>)
target_compile_options(stonefx_cpu PRIVATE -O2 -Wall -Wextra)
# torch is not loaded globally: the library must itself name libtorch_cpu as needed to find its symbols.
target_link_directories(stonefx_cpu PRIVATE "${STONE_TORCH_LIBRARY_DIR}")
if(APPLE)
  target_link_libraries(stonefx_cpu PRIVATE torch_cpu)
else()
  target_link_libraries(stonefx_cpu PRIVATE -Wl,--no-as-needed torch_cpu -Wl,--as-needed)
endif()
install(TARGETS stonefx_cpu LIBRARY DESTINATION stonefx)
