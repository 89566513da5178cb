// A call whose gradient is wanted, recorded for backward without Python: for operators whose backward gives a gradient
// for each operand, which is summed over what broadcasting repeated.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <vector>

namespace stone::calls {

// Of the schema's keyword-only arguments, all of them; shared by the calls that have the same.
using Options = std::shared_ptr<const std::vector<c10::IValue>>;

struct Differentiable {
  c10::OperatorHandle forward;   // `stone::name_forward`, of which autograd knows nothing
  c10::OperatorHandle backward;  // `stone::name_backward`
};

// The result of one operator for operands and options.
at::Tensor run(const c10::OperatorHandle& op, at::ArrayRef<at::Tensor> operands, const Options& options);

// The same, on the tape; an operand that was left out is not defined. `op` must live as long as the program.
at::Tensor record(const Differentiable& op, const std::vector<at::Tensor>& operands, const Options& options);

}  // namespace stone::calls
