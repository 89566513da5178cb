// butterfly and hyper_butterfly; compiled once for each instruction set, as table.cpp is.
#include "butterfly/butterfly_gradient_rows.h"
#include "machine/by_element.h"
#include "kernels.h"

namespace STONE_NAMESPACE {

namespace {

int64_t scratch_bytes(const ButterflyArguments& arguments, bool backward) {
  const auto bytes = [&](auto zero) {
    using C = decltype(zero);
    const ButterflyPlan plan = butterfly_plan<C>(arguments);
    const int64_t entries = backward ? gradient_scratch_entries<C>(plan, arguments.dim)
                                                      : block_lines<C>(plan, arguments.dim, 2) * plan.width;
    return entries * static_cast<int64_t>(sizeof(C));
  };
  return arguments.element == Element::kFloat64 ? bytes(double()) : bytes(float());
}

void arrange(const ButterflyArguments& arguments) {
  by_element(arguments.element, [&](auto zero) { arrange_weight<decltype(zero)>(arguments); });
}

void forward(const ButterflyArguments& arguments, int64_t begin, int64_t end, void* scratch) {
  by_element(arguments.element,
             [&](auto zero) { butterfly_forward<decltype(zero)>(arguments, begin, end, scratch); });
}

void backward(const ButterflyArguments& arguments, int64_t begin, int64_t end, void* scratch) {
  by_element(arguments.element,
             [&](auto zero) { butterfly_backward<decltype(zero)>(arguments, begin, end, scratch); });
}

void collect(const ButterflyArguments& arguments) {
  by_element(arguments.element, [&](auto zero) { collect_weight_gradient<decltype(zero)>(arguments); });
}

}  // namespace

extern const ButterflyKernels kButterfly = {scratch_bytes, arrange, forward, backward, collect};

}  // namespace STONE_NAMESPACE
