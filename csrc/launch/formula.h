// The operators of row formulas: one launcher for all, which reads names, operands and guards from the formula.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <utility>

#include "operands.h"
#include "rows.h"
#include "stone/formulas.h"
#include "stone/point_of_distances.h"

namespace stone::launch {

// The batch that all row vectors broadcast to. Their last dimensions agree, but for a vector of which only the norm
// is used.
inline Sizes check_vectors(const RowFormulaInfo& info, bool separate, const Tensor* vectors) {
  for (int v = 0; v < info.vectors.size; ++v) {
    check_rows(info.name, info.vectors[v], vectors[v]);
  }
  Sizes batch = batch_of(vectors[0]);
  for (int v = 1; v < info.vectors.size; ++v) {
    const std::string labels = std::string(info.vectors[0]) + " and " + info.vectors[v];
    check_same_dtype(info.name, labels.c_str(), vectors[0], vectors[v]);
    check_same_device(info.name, labels.c_str(), vectors[0], vectors[v]);
    batch = broadcast_rows(info.name, labels, vectors[0], vectors[v], batch, !separate);
  }
  if (info.time_in && vectors[0].size(vectors[0].dim() - 1) == 0) {
    fail(std::string(info.name) + ": " + info.vectors[0] +
         " must have a time component and then the space components, got " + show_shape(vectors[0]));
  }
  return batch;
}

template <size_t vectors, size_t scalars, size_t guards>
struct RowCall {
  std::array<Tensor, vectors> vector;
  std::array<Tensor, scalars> scalar;
  Sizes batch;
  int64_t rows;
  RowArguments arguments{};

  RowCall(const RowFormulaInfo& info, bool separate, std::array<Tensor, vectors> vector_,
          std::array<Tensor, scalars> scalar_, const std::array<double, guards>& guard)
      : vector(std::move(vector_)), scalar(std::move(scalar_)) {
    batch = check_vectors(info, separate, vector.data());
    for (size_t s = 0; s < scalars; ++s) {
      check_curvature(info.name, scalar[s], batch, vector[0], info.scalars[s], info.vectors[0]);
    }
    for (size_t g = 0; g < guards; ++g) {
      check_options(info.name, {{info.guards[g], guard[g]}});
      arguments.guard[g] = guard[g];
    }
    rows = product(batch);
    const Tensor* operands[vectors + scalars];
    for (size_t v = 0; v < vectors; ++v) {
      vector[v] = dense(vector[v]);
      arguments.vector[v] = vector[v].const_data_ptr();
      arguments.width[v] = vector[v].size(vector[v].dim() - 1);
      operands[v] = &vector[v];
    }
    for (size_t s = 0; s < scalars; ++s) {
      scalar[s] = dense(scalar[s]);
      arguments.scalar[s] = curvature(scalar[s], vector[0]);
      operands[vectors + s] = &scalar[s];
    }
    arguments.element = element(vector[0]);
    arguments.result_width =
        info.gives_number ? 1 : arguments.width[0] + (info.time_out ? 1 : 0) - (info.time_in ? 1 : 0);
    if (rows > 0) {
      arguments.map = map_rows(info.name, batch, operands, vectors + scalars);
    }
  }

  Sizes result_sizes(const RowFormulaInfo& info) const {
    return info.gives_number ? batch : with_last(batch, arguments.result_width);
  }
};

template <size_t>
using OneTensor = Tensor;
template <size_t>
using OneGuard = double;

template <class Device, class Formula, int index, class VectorIndex, class ScalarIndex, class GuardIndex>
struct RowOperator;

template <class Device, class Formula, int index, size_t... V, size_t... N, size_t... G>
struct RowOperator<Device, Formula, index, std::index_sequence<V...>, std::index_sequence<N...>,
                   std::index_sequence<G...>> {
  static constexpr bool kSeparate = Formula::Layout::kVectors > Formula::Layout::kBasis;
  using Call = RowCall<sizeof...(V), sizeof...(N), sizeof...(G)>;

  static Tensor forward(OneTensor<V>... vector, OneTensor<N>... scalar, OneGuard<G>... guard) {
    const RowFormulaInfo& info = Formula::kInfo;
    Call call(info, kSeparate, {vector...}, {scalar...}, {guard...});
    const Tensor& x = call.vector[0];
    const Tensor result = new_tensor(call.result_sizes(info), x.scalar_type(), x);
    if (call.rows > 0 && call.arguments.result_width > 0) {
      call.arguments.result = result.mutable_data_ptr();
      Device::rows(index, Direction::kForward, call.arguments, call.rows, x);
    }
    return result;
  }

  static std::tuple<OneTensor<V>..., OneTensor<N>...> backward(Tensor grad, OneTensor<V>... vector,
                                                               OneTensor<N>... scalar, OneGuard<G>... guard) {
    const RowFormulaInfo& info = Formula::kInfo;
    Call call(info, kSeparate, {vector...}, {scalar...}, {guard...});
    const Tensor& x = call.vector[0];
    const std::string name = std::string(info.name) + "_backward";
    const std::string labels = std::string("grad and ") + info.vectors[0];
    check_gradient(name.c_str(), labels.c_str(), grad, x, call.result_sizes(info));
    grad = dense(grad);
    call.arguments.grad = grad.const_data_ptr();
    const std::array<Tensor, sizeof...(V)> grad_vector{
        new_tensor(with_last(call.batch, call.arguments.width[V]), x.scalar_type(), x)...};
    const std::array<Tensor, sizeof...(N)> grad_scalar{
        (static_cast<void>(N), new_tensor(with_last(call.batch, 1), compute_dtype(x), x))...};
    if (call.rows > 0) {
      ((call.arguments.grad_vector[V] = grad_vector[V].mutable_data_ptr()), ...);
      ((call.arguments.grad_scalar[N] = grad_scalar[N].mutable_data_ptr()), ...);
      Device::rows(index, Direction::kBackward, call.arguments, call.rows, x);
    }
    return {grad_vector[V]..., grad_scalar[N]...};
  }
};

template <class Device, class Formula, int index>
void register_formula(torch::stable::detail::StableLibrary& m) {
  constexpr RowFormulaInfo info = Formula::kInfo;
  using Operator = RowOperator<Device, Formula, index, std::make_index_sequence<info.vectors.size>,
                               std::make_index_sequence<info.scalars.size>, std::make_index_sequence<info.guards.size>>;
  const std::string name = info.name;
  m.impl(name.c_str(), TORCH_BOX(&Operator::forward));
  m.impl((name + "_forward").c_str(), TORCH_BOX(&Operator::forward));
  m.impl((name + "_backward").c_str(), TORCH_BOX(&Operator::backward));
}

template <class Device, class... Formulas, size_t... index>
void register_formulas(torch::stable::detail::StableLibrary& m, portable::FormulaList<Formulas...>,
                       std::index_sequence<index...>) {
  (register_formula<Device, Formulas, static_cast<int>(index)>(m), ...);
  register_formula<Device, portable::PointOfDistances, static_cast<int>(sizeof...(index))>(m);
}

}  // namespace stone::launch
