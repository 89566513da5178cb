// Entries of rows in another order; compiled once for each instruction set, as table.cpp is.
#include "machine/by_element.h"
#include "kernels.h"
#include "products/take_rows.h"

namespace STONE_NAMESPACE {

namespace {

void rows(const TakeArguments& arguments, int64_t begin, int64_t end, void* copy) {
  by_element(arguments.element, [&](auto zero) {
    take_rows<decltype(zero)>(arguments, begin, end, static_cast<decltype(zero)*>(copy));
  });
}

int64_t plan_bytes(Element element, int64_t count) {
  int64_t bytes = 0;
  by_element(element, [&](auto zero) {
    bytes = count / kLanes<decltype(zero)> * static_cast<int64_t>(sizeof(MergeStep<decltype(zero)>));
  });
  return bytes;
}

bool plan(const TakeArguments& arguments, int64_t split, void* memory) {
  bool fits = false;
  by_element(arguments.element,
             [&](auto zero) { fits = plan_merge<decltype(zero)>(arguments, split, memory); });
  return fits;
}

}  // namespace

extern const TakeKernels kTake = {rows, plan_bytes, plan, kVectorBytes};

}  // namespace STONE_NAMESPACE
