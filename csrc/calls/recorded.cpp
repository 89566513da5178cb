#include "recorded.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

namespace stone::calls {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

torch::jit::Stack stack_of(at::ArrayRef<at::Tensor> operands, at::ArrayRef<c10::IValue> options) {
  torch::jit::Stack stack;
  stack.reserve(operands.size() + options.size() + 1);
  for (const at::Tensor& operand : operands) {
    stack.emplace_back(operand);
  }
  stack.insert(stack.end(), options.begin(), options.end());
  return stack;
}

at::Tensor sum_to(const at::Tensor& gradient, const at::Tensor& like) {
  const at::Tensor summed =
      gradient.sizes() == like.sizes() ? gradient : gradient.sum_to_size(like.sizes());
  return summed.to(like.options());
}

struct Recorded : torch::autograd::Function<Recorded> {
  static at::Tensor forward(AutogradContext* context, const Differentiable* op, at::TensorList operands,
                            const Options& options) {
    context->saved_data["backward"] = static_cast<int64_t>(reinterpret_cast<intptr_t>(&op->backward));
    context->saved_data["options"] = c10::ivalue::Tuple::create(*options);
    context->save_for_backward(operands.vec());
    at::AutoDispatchBelowADInplaceOrView below;
    return run(op->forward, operands, options);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto& op = *reinterpret_cast<const c10::OperatorHandle*>(
        static_cast<intptr_t>(context->saved_data["backward"].toInt()));
    const auto options = context->saved_data["options"].toTuple();
    const variable_list operands = context->get_saved_variables();
    torch::jit::Stack stack = stack_of(grads, {});
    for (const at::Tensor& operand : operands) {
      stack.emplace_back(operand);
    }
    stack.insert(stack.end(), options->elements().begin(), options->elements().end());
    if (at::GradMode::is_enabled()) {
      op.callBoxed(stack);
    } else {
      at::AutoDispatchBelowAutograd below;
      op.callBoxed(stack);
    }
    // None for the operator itself and for the options.
    variable_list gradients(operands.size() + 2);
    for (size_t i = 0; i < operands.size(); ++i) {
      if (context->needs_input_grad(i)) {
        gradients[1 + i] = sum_to(stack[i].toTensor(), operands[i]);
      }
    }
    return gradients;
  }
};

}  // namespace

at::Tensor run(const c10::OperatorHandle& op, at::ArrayRef<at::Tensor> operands, const Options& options) {
  torch::jit::Stack stack = stack_of(operands, *options);
  op.callBoxed(stack);
  return std::move(stack.front()).toTensor();
}

at::Tensor record(const Differentiable& op, const std::vector<at::Tensor>& operands, const Options& options) {
  return Recorded::apply(&op, at::TensorList(operands), options);
}

}  // namespace stone::calls
