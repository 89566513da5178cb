// How messages show tensors: as Python does, so that both sides of an operator say the same.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <stdexcept>
#include <string>

#include "sizes.h"

// The headers of torch 2.11 and 2.12 have it by its older name alone.
#if !defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif

namespace stone::launch {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error("stone::" + message); }

inline std::string show(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    case ScalarType::Bool:
      return "bool";
    case ScalarType::BFloat16:
      return "bfloat16";
    default:
      return torch::headeronly::toString(dtype);
  }
}

template <class Shape>
std::string show_sizes(const Shape& sizes) {
  std::string text = "[";
  for (const int64_t size : sizes) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

inline std::string show_shape(const Tensor& x) { return show_sizes(x.sizes()); }

inline std::string show_device(const Tensor& x) {
  return x.is_cpu() ? "cpu" : "cuda:" + std::to_string(x.get_device_index());
}

inline std::string show_number(double value) {
  std::string text(32, '\0');
  text.resize(std::snprintf(text.data(), text.size(), "%g", value));
  return text;
}

}  // namespace stone::launch
