// A call of an operator from Python that skips what the general way spends on parsing: tensors as they are, Python
// numbers as operands, bounds of the dtype as options. It answers for the plain case alone, and says so otherwise.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <Python.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "recorded.h"

namespace stone::calls {

// A number of the row that Python may give as one: which sign it may have.
enum class Number { kAny, kPositive };

class Call {
 public:
  // `numbers` are the last positional operands; `bounds` are options that the dtype of the first operand decides, for
  // every dtype that it may have, or for none where nothing is to be decided.
  Call(const std::string& name, std::vector<Number> numbers,
       const std::vector<std::pair<at::ScalarType, std::vector<std::pair<std::string, double>>>>& bounds);

  // The result, a new reference; Py_NotImplemented where the call is not plain: a tensor subclass, a mode, a transform,
  // a forward-mode derivative, or an operand that is refused with a message elsewhere. Throws what the operator throws.
  PyObject* operator()(PyObject* const* arguments, size_t count, PyObject* keywords);

 private:
  // The options at the bounds of a dtype, in the order of the schema.
  struct Bounded {
    at::ScalarType dtype;
    Options options;
  };

  std::optional<at::Tensor> number(size_t index, PyObject* given);
  Options options_of(at::ScalarType dtype, PyObject* const* given, PyObject* keywords) const;

  Differentiable operator_;
  size_t operands_;
  std::vector<bool> optional_;  // of the operands
  std::vector<Number> numbers_;
  std::vector<std::string> labels_;  // of the options
  Options defaults_;
  std::vector<Bounded> bounded_;
  // The last number of each operand and its tensor: most programs have one curvature.
  std::vector<std::pair<double, at::Tensor>> kept_;
};

}  // namespace stone::calls
