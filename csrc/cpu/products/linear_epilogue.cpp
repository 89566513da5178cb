// What follows the product in hyperbolic linear layers; compiled once for each instruction set, as table.cpp is.
#include "rows/add_time_rows.h"
#include "machine/by_element.h"
#include "kernels.h"
#include "rows/poincare_linear_rows.h"

namespace STONE_NAMESPACE {

namespace {

void poincare(const PoincareLinearArguments& arguments, int64_t begin, int64_t end) {
  by_element(arguments.element,
             [&](auto zero) { poincare_linear_forward<decltype(zero)>(arguments, begin, end); });
}

void poincare_backward(const PoincareLinearArguments& arguments, int64_t begin, int64_t end) {
  by_element(arguments.element,
             [&](auto zero) { poincare_linear_backward<decltype(zero)>(arguments, begin, end); });
}

void poincare_collect(const PoincareLinearArguments& arguments) {
  by_element(arguments.element, [&](auto zero) { collect_bias_gradient<decltype(zero)>(arguments); });
}

void add_time(const AddTimeArguments& arguments, int64_t begin, int64_t end) {
  by_element(arguments.element, [&](auto zero) { add_time_forward<decltype(zero)>(arguments, begin, end); });
}

void add_time_gradients(const AddTimeArguments& arguments, int64_t begin, int64_t end) {
  by_element(arguments.element, [&](auto zero) { add_time_backward<decltype(zero)>(arguments, begin, end); });
}

}  // namespace

extern const LinearEpilogueKernels kLinearEpilogue = {poincare, poincare_backward, poincare_collect, add_time,
                                                      add_time_gradients};

}  // namespace STONE_NAMESPACE
