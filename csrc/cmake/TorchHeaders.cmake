# Where the headers and libraries of the interpreter's torch lie. find_package(Torch) is not used: it demands a CUDA
# toolkit for a CUDA wheel, and links far more than the stable ABI.
execute_process(
  COMMAND
    "${Python_EXECUTABLE}" -c
    "import torch, torch.utils.cpp_extension as e; print(torch.__version__, int(torch.version.cuda is not None), e.library_paths()[0], *e.include_paths(), sep='\\n')"
  OUTPUT_VARIABLE stone_torch_facts
  ERROR_VARIABLE stone_torch_error
  RESULT_VARIABLE stone_torch_failed
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(stone_torch_failed)
  message(
    FATAL_ERROR
      "stonefx needs torch to build, and ${Python_EXECUTABLE} cannot import it. Install torch, then build without "
      "isolation, so that the build sees it:\n    pip install --no-build-isolation .\n${stone_torch_error}")
endif()
# The cards of this machine, such as 90-real.
execute_process(
  COMMAND
    "${Python_EXECUTABLE}" -c
    "import torch; cards = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}; print(*(f'{a}{b}-real' for a, b in sorted(cards)), sep=';')"
  OUTPUT_VARIABLE STONE_TORCH_CARDS
  ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
string(REPLACE "\n" ";" stone_torch_facts "${stone_torch_facts}")
list(POP_FRONT stone_torch_facts STONE_TORCH_VERSION STONE_TORCH_HAS_CUDA STONE_TORCH_LIBRARY_DIR)
set(STONE_TORCH_INCLUDES ${stone_torch_facts})
if(STONE_TORCH_VERSION VERSION_LESS "2.11")
  message(FATAL_ERROR "stonefx needs torch 2.11 or later to build, found ${STONE_TORCH_VERSION}: pip install -U torch")
endif()
message(STATUS "stonefx: headers of torch ${STONE_TORCH_VERSION}")
