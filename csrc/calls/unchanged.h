// What weights looked like once, and whether they look so still: `stonefx.unchanged` says what is compared and why.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/utils/pybind.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace stone::calls {

// One weight, as far as that shows without reading all of it. Owns references to Python objects, none to its memory.
struct Look {
  pybind11::object attributes;  // of the weight, or None
  pybind11::object itself;      // a weak reference to the weight, where its attributes cannot stand for it
  pybind11::object storage;     // a weak reference to its storage object

  const c10::StorageImpl* memory = nullptr;
  const void* start = nullptr;
  size_t bytes = 0;
  int64_t offset = 0;
  uint32_t version = 0;
  size_t tensors = 0;       // that hold the memory
  Py_ssize_t variables = 0;  // that hold the storage object

  // Some words, `step` bytes apart; none where the memory is not the host's.
  size_t step = 0;
  std::vector<uint64_t> words;
};

class Unchanged {
 public:
  // `references`: for each of `weights`, its attributes or a weak reference to it, and one to its storage object.
  Unchanged(const pybind11::list& weights, const std::vector<std::array<pybind11::object, 3>>& references);

  // Whether these are the weights it was made of, in the same order, and look as they did.
  bool operator()(const pybind11::list& weights) const;

 private:
  std::vector<Look> looks_;
};

}  // namespace stone::calls
