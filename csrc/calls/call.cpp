#include "call.h"

#include <ATen/Dispatch.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/ops/full.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cmath>

namespace stone::calls {

namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

// What a dense tensor has, and nothing that would change what the operator does with it.
const DispatchKeySet kPlain = DispatchKeySet({DispatchKey::Dense, DispatchKey::ADInplaceOrView}) |
                              c10::autograd_dispatch_keyset | c10::autocast_dispatch_keyset;

// A key set is what and where; this asks for the first alone.
bool has_any(DispatchKeySet keys) { return (keys.raw_repr() & ~c10::full_backend_mask) != 0; }

// Whether modes, transforms, tracers or guards of this thread would see the call, or keep autograd from it. Inference
// mode does so too, and with it gradients are off: nothing is lost.
bool is_observed() {
  const c10::impl::LocalDispatchKeySet local = c10::impl::tls_local_dispatch_key_set();
  const DispatchKeySet always({DispatchKey::BackendSelect, DispatchKey::ADInplaceOrView});
  const bool without_autograd =
      has_any(local.excluded_ & c10::autograd_dispatch_keyset) && !c10::InferenceMode::is_enabled();
  return has_any(local.included_ - always) || without_autograd || at::impl::torch_function_mode_enabled();
}

bool is_plain(const at::Tensor& x) {
  return (x.is_cpu() || x.is_cuda()) && !has_any(x.key_set() - kPlain) && !x._fw_grad(0).defined();
}

// Whether it is a curvature that the long way refuses: one number in the host's memory, which costs nothing to read.
bool is_refused(const at::Tensor& c) {
  if (c.dim() != 0 || !c.is_cpu() || !c.is_floating_point()) {
    return false;
  }
  double value = 0.0;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, c.scalar_type(), "curvature",
                                  [&] { value = static_cast<double>(*c.const_data_ptr<scalar_t>()); });
  return value <= 0.0 || std::isinf(value);
}

std::vector<std::string> option_labels(const c10::FunctionSchema& schema) {
  std::vector<std::string> labels;
  for (const c10::Argument& argument : schema.arguments()) {
    if (argument.kwarg_only()) {
      labels.push_back(argument.name());
    }
  }
  return labels;
}

size_t position(const std::vector<std::string>& labels, const std::string& label) {
  return static_cast<size_t>(std::find(labels.begin(), labels.end(), label) - labels.begin());
}

c10::OperatorHandle find(const std::string& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(("stone::" + name).c_str(), "");
}

}  // namespace

Call::Call(const std::string& name, std::vector<Number> numbers,
           const std::vector<std::pair<at::ScalarType, std::vector<std::pair<std::string, double>>>>& bounds)
    : operator_{find(name + "_forward"), find(name + "_backward")},
      numbers_(std::move(numbers)),
      labels_(option_labels(operator_.forward.schema())),
      kept_(numbers_.size()) {
  const auto& arguments = operator_.forward.schema().arguments();
  operands_ = arguments.size() - labels_.size();
  for (size_t i = 0; i < operands_; ++i) {
    optional_.push_back(arguments[i].type()->kind() == c10::TypeKind::OptionalType);
  }
  std::vector<c10::IValue> defaults;
  for (size_t i = operands_; i < arguments.size(); ++i) {
    TORCH_CHECK(arguments[i].default_value().has_value(), "stone::", name, ": ", arguments[i].name(), " has no default");
    defaults.push_back(*arguments[i].default_value());
  }
  defaults_ = std::make_shared<const std::vector<c10::IValue>>(defaults);
  for (const auto& [dtype, values] : bounds) {
    std::vector<c10::IValue> options = defaults;
    for (const auto& [label, value] : values) {
      const size_t at = position(labels_, label);
      TORCH_CHECK(at < labels_.size(), "stone::", name, " has no option ", label);
      options[at] = value;
    }
    bounded_.push_back({dtype, std::make_shared<const std::vector<c10::IValue>>(std::move(options))});
  }
}

PyObject* Call::operator()(PyObject* const* arguments, size_t count, PyObject* keywords) {
  if (count != operands_ || is_observed()) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  std::vector<at::Tensor> operands;
  operands.reserve(count);
  const size_t vectors = count - numbers_.size();
  bool wants_gradient = false;
  for (size_t i = 0; i < count; ++i) {
    if (THPVariable_CheckExact(arguments[i])) {
      operands.push_back(THPVariable_Unpack(arguments[i]));
      const bool positive = i >= vectors && numbers_[i - vectors] == Number::kPositive;
      if (!is_plain(operands.back()) || (positive && is_refused(operands.back()))) {
        Py_RETURN_NOTIMPLEMENTED;
      }
      wants_gradient = wants_gradient || operands.back().requires_grad();
    } else if (Py_IsNone(arguments[i]) && optional_[i]) {
      operands.emplace_back();
    } else {
      std::optional<at::Tensor> operand = i < vectors ? std::nullopt : number(i - vectors, arguments[i]);
      if (!operand || !operands.front().is_cpu()) {
        Py_RETURN_NOTIMPLEMENTED;
      }
      operands.push_back(*std::move(operand));
    }
  }
  const Options options = options_of(operands.front().scalar_type(), arguments + count, keywords);
  if (!options) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  at::Tensor result;
  {
    pybind11::gil_scoped_release release;
    result = wants_gradient && at::GradMode::is_enabled() ? record(operator_, operands, options)
                                                          : run(operator_.forward, operands, options);
  }
  return THPVariable_Wrap(std::move(result));
}

std::optional<at::Tensor> Call::number(size_t index, PyObject* given) {
  double value = 0.0;
  if (PyFloat_CheckExact(given)) {
    value = PyFloat_AS_DOUBLE(given);
  } else if (PyLong_CheckExact(given)) {
    value = PyLong_AsDouble(given);
    if (PyErr_Occurred() != nullptr) {
      PyErr_Clear();
      return std::nullopt;
    }
  } else {
    return std::nullopt;
  }
  if (!std::isfinite(value) || (numbers_[index] == Number::kPositive && !(value > 0.0))) {
    return std::nullopt;
  }
  auto& [last, tensor] = kept_[index];
  // Compared as bits: 0.0 and -0.0 are two numbers.
  if (!tensor.defined() || last != value || std::signbit(last) != std::signbit(value)) {
    // An inference tensor could not be saved for a later backward.
    const c10::InferenceMode off(false);
    tensor = at::full({}, value, at::TensorOptions(at::kDouble));
    last = value;
  }
  return tensor;
}

Options Call::options_of(at::ScalarType dtype, PyObject* const* given, PyObject* keywords) const {
  const auto bounded =
      std::find_if(bounded_.begin(), bounded_.end(), [&](const Bounded& b) { return b.dtype == dtype; });
  if (bounded == bounded_.end() && !bounded_.empty()) {
    return nullptr;
  }
  const Options& base = bounded_.empty() ? defaults_ : bounded->options;
  const Py_ssize_t count = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  if (count == 0) {
    return base;
  }
  std::vector<c10::IValue> options = *base;
  for (Py_ssize_t k = 0; k < count; ++k) {
    const char* label = PyUnicode_AsUTF8(PyTuple_GET_ITEM(keywords, k));
    const size_t at = label == nullptr ? labels_.size() : position(labels_, label);
    if (at < labels_.size() && options[at].isDouble() && PyFloat_CheckExact(given[k])) {
      options[at] = PyFloat_AS_DOUBLE(given[k]);
    } else if (at < labels_.size() && options[at].isBool() && PyBool_Check(given[k])) {
      options[at] = given[k] == Py_True;
    } else {
      PyErr_Clear();
      return nullptr;
    }
  }
  return std::make_shared<const std::vector<c10::IValue>>(std::move(options));
}

}  // namespace stone::calls
