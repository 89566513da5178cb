#include "recorded.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <iterator>

namespace stone::calls {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// An operand that was left out is not defined.
void push(torch::jit::Stack& stack, at::ArrayRef<at::Tensor> operands) {
  for (const at::Tensor& operand : operands) {
    stack.push_back(operand.defined() ? c10::IValue(operand) : c10::IValue());
  }
}

torch::jit::Stack stack_of(at::ArrayRef<at::Tensor> operands, at::ArrayRef<c10::IValue> options) {
  torch::jit::Stack stack;
  stack.reserve(operands.size() + options.size() + 1);
  push(stack, operands);
  stack.insert(stack.end(), options.begin(), options.end());
  return stack;
}

at::Tensor sum_to(const at::Tensor& gradient, const at::Tensor& like) {
  const at::Tensor summed =
      gradient.sizes() == like.sizes() ? gradient : gradient.sum_to_size(like.sizes());
  return summed.to(like.options());
}

struct Recorded : torch::autograd::Function<Recorded> {
  // `given` are the operands that were not left out: autograd looks at no others.
  static at::Tensor forward(AutogradContext* context, const Differentiable* op, at::TensorList /*given*/,
                            const variable_list* operands, const Options& options) {
    context->saved_data["backward"] = static_cast<int64_t>(reinterpret_cast<intptr_t>(&op->backward));
    context->saved_data["options"] = c10::ivalue::Tuple::create(*options);
    context->save_for_backward(*operands);
    at::AutoDispatchBelowADInplaceOrView below;
    return run(op->forward, *operands, options);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto& op = *reinterpret_cast<const c10::OperatorHandle*>(
        static_cast<intptr_t>(context->saved_data["backward"].toInt()));
    const auto options = context->saved_data["options"].toTuple();
    const variable_list operands = context->get_saved_variables();
    torch::jit::Stack stack = stack_of(grads, {});
    push(stack, operands);
    stack.insert(stack.end(), options->elements().begin(), options->elements().end());
    if (at::GradMode::is_enabled()) {
      op.callBoxed(stack);
    } else {
      at::AutoDispatchBelowAutograd below;
      op.callBoxed(stack);
    }
    variable_list gradients{at::Tensor()};  // none for `op`
    size_t given = 0;
    for (size_t i = 0; i < operands.size(); ++i) {
      if (operands[i].defined()) {
        const bool wanted = context->needs_input_grad(given++);
        gradients.push_back(wanted ? sum_to(stack[i].toTensor(), operands[i]) : at::Tensor());
      }
    }
    gradients.resize(gradients.size() + 2);  // none for `operands` and `options`
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
  std::vector<at::Tensor> given;
  std::copy_if(operands.begin(), operands.end(), std::back_inserter(given),
               [](const at::Tensor& operand) { return operand.defined(); });
  return Recorded::apply(&op, at::TensorList(given), &operands, options);
}

}  // namespace stone::calls
