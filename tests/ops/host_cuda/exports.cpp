// The CUDA kernels behind a C interface, for ctypes.
#include "expmap0.cu"
#include "formula.cuh"
#include "logmap0.cu"
#include "mobius_add.cu"
#include "point_of_distances.cu"
#include "stone/formulas.h"

using namespace stone;

namespace {

// float32 and float16 alone: what differs between the four is shown by the kernels above.
template <class Formula>
void run_formula(bool backward, const RowArguments& arguments, int64_t rows) {
  if (arguments.element == Element::kFloat32) {
    (backward ? cuda::launch_formula_typed<Formula, float, false>
              : cuda::launch_formula_typed<Formula, float, true>)(arguments, rows, nullptr);
  } else {
    (backward ? cuda::launch_formula_typed<Formula, Half, false>
              : cuda::launch_formula_typed<Formula, Half, true>)(arguments, rows, nullptr);
  }
}

using RunFormula = void (*)(bool, const RowArguments&, int64_t);

// One of each layout, and each way to treat time components, in the order of the test.
constexpr RunFormula kRunFormula[] = {
    run_formula<portable::Expmap>,       run_formula<portable::PoincareDist>,      run_formula<portable::KleinAdd>,
    run_formula<portable::KleinDist>,    run_formula<portable::SphereDist>,        run_formula<portable::MobiusMatvec>,
    run_formula<portable::LorentzInner>, run_formula<portable::LorentzTransport>, run_formula<portable::PoincareToLorentz>,
    run_formula<portable::LorentzExpmap>, run_formula<portable::LorentzDist>,
    run_formula<portable::MobiusScalarMul>,
};

}  // namespace

extern "C" {

// Operands are [rows, width], contiguous; scalars float64, one a row.
void formula(int which, int backward, int element, int64_t rows, const int64_t* widths, int64_t result_width,
             const void* const* vectors, const void* const* scalars, const void* grad, void* result,
             void* const* grad_vectors, void* const* grad_scalars, int operands) {
  RowArguments arguments{};
  arguments.element = static_cast<Element>(element);
  arguments.result_width = result_width;
  arguments.grad = grad;
  arguments.result = result;
  for (int i = 0; i < kMaxVectors; ++i) {
    arguments.width[i] = widths[i];
    arguments.vector[i] = vectors[i];
    arguments.grad_vector[i] = grad_vectors[i];
  }
  for (int i = 0; i < kMaxScalars; ++i) {
    arguments.scalar[i] = {scalars[i], Element::kFloat64, 0.0};
    arguments.grad_scalar[i] = grad_scalars[i];
  }
  for (double& guard : arguments.guard) {
    guard = 0.25;
  }
  arguments.map = {1, {rows}, {}};
  for (int i = 0; i < operands; ++i) {
    arguments.map.stride[i][0] = 1;
  }
  kRunFormula[which](backward != 0, arguments, rows);
}

void radial(int which, int backward, int element, int64_t rows, int64_t dim, const void* x, const void* grad, void* y,
            void* grad_c, const double* c, int64_t c_stride) {
  RadialArguments arguments{static_cast<Element>(element), dim, x, grad, y, grad_c,
                            {c, Element::kFloat64, 0.0},   {0.0, 1e-3, 1e-4, 0.0, 0.95, false},
                            {1, {rows}, {{c_stride}}}};
  const auto kernel = which == 0 ? (backward ? cuda::expmap0_backward : cuda::expmap0)
                                 : (backward ? cuda::logmap0_backward : cuda::logmap0);
  kernel(arguments, rows, nullptr);
}

// y is [rows, dim] where y_stride is 1, and one row where it is 0.
void mobius(int backward, int element, int64_t rows, int64_t dim, const void* x, const void* y, int64_t y_stride,
            const void* grad, void* z, void* grad_y, void* grad_c, double c) {
  MobiusArguments arguments{static_cast<Element>(element),
                            dim,
                            x,
                            y,
                            grad,
                            z,
                            grad_y,
                            grad_c,
                            {nullptr, Element::kFloat64, c},
                            {1e-15, 1e-5, 0.6},
                            {1, {rows}, {{1}, {y_stride}, {0}}}};
  (backward ? cuda::mobius_add_backward : cuda::mobius_add)(arguments, rows, nullptr);
}

// c is one number.
void points(int backward, int element, int64_t rows, int64_t dim, const void* v, const void* grad, void* result,
            void* grad_c, double c, double max_radius) {
  RowArguments a{};
  a.element = static_cast<Element>(element);
  a.width[0] = a.result_width = dim;
  a.vector[0] = v;
  a.scalar[0] = {nullptr, Element::kFloat64, c};
  a.grad = grad;
  a.result = result;
  a.grad_vector[0] = result;
  a.grad_scalar[0] = grad_c;
  a.guard[0] = max_radius;
  a.map = {1, {rows}, {{1}, {0}}};
  (backward ? cuda::point_of_distances_backward : cuda::point_of_distances)(a, rows, nullptr);
}
}
