// The kernels of the row formulas, compiled once for each instruction set: see table.cpp.
#include "rows/formula_rows.h"
#include "rows/point_rows.h"
#include "stone/formulas.h"

namespace STONE_NAMESPACE {

namespace {

template <class Formula>
void forward(const RowArguments& a, int64_t begin, int64_t end) {
  using Layout = typename Formula::Layout;
  constexpr BlockFunctions values = {block_values<Formula, false>, block_values<Formula, true>,
                                     far_functions<Formula>()};
  switch (a.element) {
    case Element::kFloat32:
      return rows_forward<Layout, float>(a, Formula::kInfo, values, begin, end);
    case Element::kFloat64:
      return rows_forward<Layout, double>(a, Formula::kInfo, values, begin, end);
    case Element::kBFloat16:
      return rows_forward<Layout, BFloat16>(a, Formula::kInfo, values, begin, end);
    case Element::kFloat16:
      return rows_forward<Layout, Half>(a, Formula::kInfo, values, begin, end);
  }
}

template <class Formula>
void backward(const RowArguments& a, int64_t begin, int64_t end) {
  using Layout = typename Formula::Layout;
  constexpr bool with_grad = !Formula::kInfo.gives_number;
  constexpr int times = Slots<Formula>::kTimes;
  constexpr BlockFunctions gradients = {block_gradients<Formula, false>, block_gradients<Formula, true>,
                                        far_functions<Formula>()};
  switch (a.element) {
    case Element::kFloat32:
      return rows_backward<Layout, float, with_grad>(a, Formula::kInfo, times, gradients, begin, end);
    case Element::kFloat64:
      return rows_backward<Layout, double, with_grad>(a, Formula::kInfo, times, gradients, begin, end);
    case Element::kBFloat16:
      return rows_backward<Layout, BFloat16, with_grad>(a, Formula::kInfo, times, gradients, begin, end);
    case Element::kFloat16:
      return rows_backward<Layout, Half, with_grad>(a, Formula::kInfo, times, gradients, begin, end);
  }
}

void points_forward(const RowArguments& a, int64_t begin, int64_t end) {
  by_element(a.element, [&](auto zero) { point_forward<decltype(zero)>(a, begin, end); });
}

void points_backward(const RowArguments& a, int64_t begin, int64_t end) {
  by_element(a.element, [&](auto zero) { point_backward<decltype(zero)>(a, begin, end); });
}

// The formulas in their order, then point_of_distances.
template <class... Formulas>
struct Table {
  static constexpr RowKernels kernels[] = {{forward<Formulas>, backward<Formulas>}...,
                                           {points_forward, points_backward}};
};

template <class... Formulas>
constexpr const RowKernels* table_of(FormulaList<Formulas...>) {
  return Table<Formulas...>::kernels;
}

}  // namespace

extern const RowKernels* const kRowKernels;
const RowKernels* const kRowKernels = table_of(RowFormulas{});

}  // namespace STONE_NAMESPACE
