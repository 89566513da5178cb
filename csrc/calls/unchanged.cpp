#include "unchanged.h"

#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <cstring>
#include <tuple>

namespace stone::calls {

namespace {

namespace py = pybind11;

constexpr size_t kWord = sizeof(uint64_t);
constexpr size_t kSamples = 16;

// The word at an address; memory shorter than a word is read as far as it goes.
uint64_t word(const char* at, size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, at, std::min(bytes, kWord));
  return value;
}

struct Holders {
  size_t tensors;
  Py_ssize_t variables;
};

// How many tensors hold some memory and how many variables its storage object; nothing where the object is gone.
std::optional<Holders> holders(const c10::Storage& memory, const py::object& reference) {
  const py::object storage = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(reference.ptr()));
  if (!storage) {
    throw py::error_already_set();
  }
  if (storage.is_none()) {
    return std::nullopt;
  }
  return Holders{memory.use_count(), Py_REFCNT(storage.ptr())};
}

const at::Tensor* unpack(PyObject* weight) {
  if (!THPVariable_Check(weight)) {
    return nullptr;
  }
  const at::Tensor& tensor = THPVariable_Unpack(weight);
  return tensor.has_storage() ? &tensor : nullptr;
}

bool is_itself(const Look& look, PyObject* weight) {
  if (look.itself.is_none()) {
    const py::object attributes = py::reinterpret_steal<py::object>(PyObject_GenericGetDict(weight, nullptr));
    if (!attributes) {
      throw py::error_already_set();
    }
    return attributes.is(look.attributes);
  }
  const py::object itself = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(look.itself.ptr()));
  if (!itself) {
    throw py::error_already_set();
  }
  return itself.ptr() == weight;
}

bool has_words(const Look& look) {
  // No exit at the first difference: the reads wait for memory side by side.
  const char* at = static_cast<const char*>(look.start);
  uint64_t differences = 0;
  for (size_t i = 0; i < look.words.size(); ++i) {
    differences |= word(at + i * look.step, look.bytes - i * look.step) ^ look.words[i];
  }
  return differences == 0;
}

bool is_as_it_was(const Look& look, PyObject* weight) {
  const at::Tensor* tensor = unpack(weight);
  if (tensor == nullptr || !is_itself(look, weight)) {
    return false;
  }
  const c10::TensorImpl* impl = tensor->unsafeGetTensorImpl();
  const c10::StorageImpl* memory = impl->unsafe_storage().unsafeGetStorageImpl();
  if (memory != look.memory || memory->data() != look.start || memory->nbytes() != look.bytes ||
      impl->storage_offset() != look.offset || !memory->resizable() ||
      impl->version_counter().current_version() != look.version) {
    return false;
  }
  const std::optional<Holders> held = holders(impl->unsafe_storage(), look.storage);
  return held && held->tensors == look.tensors && held->variables == look.variables && has_words(look);
}

Look look_at(PyObject* weight, const std::array<py::object, 3>& references) {
  const at::Tensor* tensor = unpack(weight);
  TORCH_CHECK_TYPE(tensor != nullptr, "expected tensors with memory of their own");
  const c10::TensorImpl* impl = tensor->unsafeGetTensorImpl();
  const c10::StorageImpl* memory = impl->unsafe_storage().unsafeGetStorageImpl();
  const std::optional<Holders> held = holders(impl->unsafe_storage(), references[2]);
  TORCH_CHECK_VALUE(held, "expected a weak reference to the storage object of each tensor, which lives as long as it");
  Look look;
  std::tie(look.attributes, look.itself, look.storage) = std::tie(references[0], references[1], references[2]);
  look.memory = memory;
  look.start = memory->data();
  look.bytes = memory->nbytes();
  look.offset = impl->storage_offset();
  look.version = impl->version_counter().current_version();
  look.tensors = held->tensors;
  look.variables = held->variables;
  if (memory->device_type() == c10::DeviceType::CPU && look.start != nullptr && look.bytes > 0) {
    const size_t words = std::max<size_t>(look.bytes / kWord, 1);
    look.step = std::max<size_t>(words / kSamples, 1) * kWord;
    const char* at = static_cast<const char*>(look.start);
    for (size_t offset = 0; offset < words * kWord; offset += look.step) {
      look.words.push_back(word(at + offset, look.bytes - offset));
    }
  }
  return look;
}

}  // namespace

Unchanged::Unchanged(const py::list& weights, const std::vector<std::array<py::object, 3>>& references) {
  TORCH_CHECK_VALUE(weights.size() == references.size(), "expected references for each of ", weights.size(),
                    " weights, got ", references.size());
  looks_.reserve(references.size());
  for (size_t i = 0; i < references.size(); ++i) {
    looks_.push_back(look_at(PyList_GET_ITEM(weights.ptr(), i), references[i]));
  }
}

bool Unchanged::operator()(const py::list& weights) const {
  if (weights.size() != looks_.size()) {
    return false;
  }
  for (size_t i = 0; i < looks_.size(); ++i) {
    if (!is_as_it_was(looks_[i], PyList_GET_ITEM(weights.ptr(), i))) {
      return false;
    }
  }
  return true;
}

}  // namespace stone::calls
