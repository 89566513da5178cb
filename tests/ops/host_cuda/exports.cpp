// The CUDA kernels behind a C interface, for ctypes.
#include "expmap0.cu"
#include "logmap0.cu"
#include "mobius_add.cu"

using namespace stone;

extern "C" {

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
                            {1e-15, 1e-5},
                            {1, {rows}, {{1}, {y_stride}, {0}}}};
  (backward ? cuda::mobius_add_backward : cuda::mobius_add)(arguments, rows, nullptr);
}
}
