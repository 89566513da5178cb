# stonefx._calls: what happens at every call, made cheap. It takes tensors out of Python objects, which torch's stable
# ABI does not offer, so it serves the release of torch that it is built with; stonefx.native looks at that before it loads it.
pybind11_add_module(_calls MODULE csrc/calls/module.cpp csrc/calls/call.cpp csrc/calls/recorded.cpp
                    csrc/calls/unchanged.cpp)
target_include_directories(_calls SYSTEM PRIVATE ${STONE_TORCH_INCLUDES})
target_compile_options(_calls PRIVATE -O2 -Wall -Wextra)
target_link_directories(_calls PRIVATE "${STONE_TORCH_LIBRARY_DIR}")
target_link_libraries(_calls PRIVATE torch_python torch_cpu c10)
install(TARGETS _calls LIBRARY DESTINATION stonefx)
