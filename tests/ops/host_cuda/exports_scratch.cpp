// The CUDA kernels that need scratch memory behind a C interface, for ctypes; the curvature is a number.
#include "butterfly.cu"
#include "cdist.cu"
#include "float_cdist.cu"
#include "hyperplanes.cu"
#include "linear_epilogue.cu"
#include "take.cu"

using namespace stone;

namespace {

// Scratch memory is not cleared on the device either: kernels must not read what they have not written.
template <class Arguments>
void with_scratch(int64_t (*bytes_of)(const Arguments&, bool),
                  void (*kernel)(const Arguments&, bool, void*, cudaStream_t), const Arguments& arguments,
                  bool backward) {
  std::vector<double> memory(static_cast<size_t>(bytes_of(arguments, backward) / 8 + 32), std::nan(""));
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  kernel(arguments, backward, memory.data() + (256 - address % 256) % 256 / 8, nullptr);
}

Curvature number(double c) { return {nullptr, Element::kFloat64, c}; }

}  // namespace

extern "C" {

// y is shared by the matrices where y_stride is 0. The results: the distances, or grad_x, grad_y, grad_c and, where the
// inner products are given, grad_product.
void cdist(int backward, int element, int model, int64_t batch, int64_t rows, int64_t columns, int64_t dim,
           const void* x, const void* y, int64_t y_stride, const void* product, const void* grad, void* result,
           void* grad_y, double* grad_c, void* grad_product, double c, double min_alpha, double atanh_limit,
           double min_denominator, double denominator_offset) {
  CdistArguments a{};
  a.element = static_cast<Element>(element);
  a.model = static_cast<Model>(model);
  a.batch = batch;
  a.rows = rows;
  a.columns = columns;
  a.dim = dim;
  a.x = x;
  a.y = y;
  a.grad = grad;
  a.result = result;
  a.grad_y = grad_y;
  a.grad_c = grad_c;
  a.product = product;
  a.grad_product = grad_product;
  a.c = number(c);
  a.guards = {min_alpha, atanh_limit, min_denominator, denominator_offset};
  a.map = {1, {batch}, {{1}, {y_stride}, {0}}};
  with_scratch(cuda::cdist_scratch_bytes, cuda::cdist, a, backward != 0);
}

void hyperplanes(int backward, int element, int64_t rows, int64_t planes, int64_t dim, const void* product,
                 const void* x, const void* offset, const void* scale, const void* grad, void* result, void* grad_x,
                 void* grad_planes, void* grad_c, double c, double min_alpha) {
  const HyperplaneArguments a{static_cast<Element>(element), rows,   planes,      dim,    product,   x,
                              offset,                        scale,  grad,        result, grad_x,    grad_planes,
                              grad_c,                        number(c), min_alpha};
  with_scratch(cuda::hyperplane_scratch_bytes, cuda::hyperplanes, a, backward != 0);
}

void poincare_linear(int backward, int element, int64_t rows, int64_t in, int64_t out, const void* x,
                     const void* product, const void* bias, const void* grad, void* y, void* grad_x, void* grad_bias,
                     void* grad_c, double c, double project_limit) {
  PoincareLinearArguments a{};
  a.element = static_cast<Element>(element);
  a.in = in;
  a.out = out;
  a.rows = rows;
  a.x = x;
  a.product = product;
  a.bias = bias;
  a.grad = grad;
  a.y = y;
  a.grad_x = grad_x;
  a.grad_bias = grad_bias;
  a.grad_c = grad_c;
  a.c = number(c);
  a.guards = {{0.0, 0.0, 0.0, 0.0, 1e308, false}, {0.0, 0.0, 0.0, 0.0, 1e308, false}, {0.0, 0.0}, project_limit,
              bias != nullptr};
  a.map = {1, {rows}, {{0}}};
  with_scratch(cuda::poincare_linear_scratch_bytes, cuda::poincare_linear, a, backward != 0);
}

void add_time(int backward, int element, int64_t rows, int64_t dim, const void* space, const void* grad, void* y,
              void* grad_c, double c) {
  const AddTimeArguments a{static_cast<Element>(element), dim, space, grad, y, grad_c, number(c), {1, {rows}, {{0}}}};
  cuda::add_time(a, backward != 0, rows, nullptr);
}

void take(int element, int64_t rows, int64_t count, int64_t source_stride, int64_t target_stride, const void* source,
          void* target, const int32_t* columns, const void* bias, int adds, int64_t split, int64_t shift,
          int64_t limit) {
  TakeArguments a{};
  a.element = static_cast<Element>(element);
  a.rows = rows;
  a.count = count;
  a.source_stride = source_stride;
  a.target_stride = target_stride;
  a.source = source;
  a.target = target;
  a.columns = columns;
  a.bias = bias;
  a.adds = adds != 0;
  a.split = split;
  a.shift = shift;
  a.limit = limit;
  cuda::take(a, nullptr);
}

void invert(const int32_t* index, int32_t* inverse, int64_t count) { cuda::invert(index, inverse, count, nullptr); }

void butterfly(int backward, int element, int64_t rows, int64_t dim, int64_t stages, const void* x,
               const void* weight, const void* grad, void* y, void* grad_weight, void* grad_c, int hyperbolic,
               double c) {
  ButterflyArguments a{};
  a.element = static_cast<Element>(element);
  a.dim = dim;
  a.stages = stages;
  a.rows = rows;
  a.x = x;
  a.weight = weight;
  a.grad = grad;
  a.y = y;
  a.grad_weight = grad_weight;
  a.grad_c = grad_c;
  a.hyperbolic = hyperbolic != 0;
  a.c = number(c);
  a.log = {0.0, 0.0, 0.0, 0.0, 0.95, false};
  a.exp = {0.0, 0.0, 0.0, 0.0, 3.0, false};
  a.map = {1, {rows}, {{0}}};
  with_scratch(cuda::butterfly_scratch_bytes, cuda::butterfly, a, backward != 0);
}
}
