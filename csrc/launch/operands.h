// From tensors to what kernels take: contiguous memory, element types, broadcasting and results.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include "checks.h"
#include "huge_pages.h"
#include "stone/storage.h"
#include "stone/types.h"

namespace stone::launch {

inline Tensor dense(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }

inline Element element(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return Element::kFloat32;
    case ScalarType::Double:
      return Element::kFloat64;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    default:
      return Element::kFloat16;
  }
}

inline size_t element_size(ScalarType dtype) {
  return dtype == ScalarType::Double ? 8 : (dtype == ScalarType::Float ? 4 : 2);
}

// Gradients of the curvature are float64 for float64 rows and float32 for all others.
inline ScalarType compute_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline int64_t product(const Sizes& sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    count *= size;
  }
  return count;
}

inline Tensor new_tensor(const Sizes& sizes, ScalarType dtype, const Tensor& like) {
  Sizes strides = sizes;
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= sizes[d] > 1 ? sizes[d] : 1;
  }
  int32_t device_type = 0;
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), device_type, like.get_device_index(),
      &handle));
  const Tensor result(handle);
  if (result.is_cpu()) {
    ask_for_huge_pages(result.mutable_data_ptr(), product(sizes) * static_cast<int64_t>(element_size(dtype)));
  }
  return result;
}

inline Sizes with_last(Sizes batch, int64_t last) {
  batch.push_back(last);
  return batch;
}

inline Sizes batch_of(const Tensor& x) {
  const auto sizes = x.sizes();
  return Sizes(sizes.begin(), sizes.end() - 1);
}

// The rows of each operand, a contiguous [*its batch, last] tensor (0-dim: one row), along the common batch. With
// `trailing` 2 they are [*its batch, rows, columns], and matrices are counted.
inline RowMap map_rows(const char* name, const Sizes& batch, const Tensor* const* operands, size_t count,
                       size_t trailing = 1) {
  RowMap map{1, {1}, {}};
  const size_t depth = batch.size();
  int64_t strides[kMaxOperands][kMaxDimensions];
  for (size_t o = 0; o < count; ++o) {
    const auto sizes = operands[o]->sizes();
    const size_t own = sizes.size() < trailing ? 0 : sizes.size() - trailing;
    int64_t step = 1;
    for (size_t d = 0; d < depth; ++d) {
      const int64_t size = d < own ? sizes[own - 1 - d] : 1;
      strides[o][depth - 1 - d] = size == 1 ? 0 : step;
      step *= size;
    }
  }
  bool first = true;
  for (size_t d = 0; d < depth; ++d) {
    if (batch[d] == 1) {
      continue;
    }
    bool merges = !first;
    for (size_t o = 0; merges && o < count; ++o) {
      merges = map.stride[o][map.depth - 1] == strides[o][d] * batch[d];
    }
    if (!merges && !first && ++map.depth > kMaxDepth) {
      fail(std::string(name) + ": the batch dimensions of the operands broadcast in more than " +
           std::to_string(kMaxDepth) + " alternating groups, got batch " + show_sizes(batch) +
           "; expand one operand to it with .expand(...).contiguous()");
    }
    map.extent[map.depth - 1] = merges ? map.extent[map.depth - 1] * batch[d] : batch[d];
    for (size_t o = 0; o < count; ++o) {
      map.stride[o][map.depth - 1] = strides[o][d];
    }
    first = false;
  }
  return map;
}

inline RowMap map_rows(const char* name, const Sizes& batch, std::initializer_list<const Tensor*> operands,
                       size_t trailing = 1) {
  return map_rows(name, batch, operands.begin(), operands.size(), trailing);
}

// The curvature for kernels on the device of `rows`; `c` is contiguous. A 0-dim one on the CPU becomes a number.
inline Curvature curvature(const Tensor& c, const Tensor& rows) {
  const Curvature in_memory{c.const_data_ptr(), element(c), 0.0};
  if (!c.is_cpu() || rows.is_cpu()) {
    return in_memory;
  }
  double value = 0.0;
  switch (in_memory.element) {
    case Element::kFloat64:
      value = *static_cast<const double*>(in_memory.data);
      break;
    case Element::kFloat32:
      value = *static_cast<const float*>(in_memory.data);
      break;
    case Element::kBFloat16:
      value = portable::load(*static_cast<const BFloat16*>(in_memory.data));
      break;
    case Element::kFloat16:
      value = portable::load(*static_cast<const Half*>(in_memory.data));
      break;
  }
  return {nullptr, in_memory.element, value};
}

}  // namespace stone::launch
