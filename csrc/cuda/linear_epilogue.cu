// What follows the product in hyperbolic linear layers, on the GPU: a group of lanes a row.
#include "chunk_sums.cuh"
#include "kernels.h"
#include "linear_rows.cuh"
#include "row_group.cuh"
#include "scratch.h"
#include "stone/add_time.h"
#include "stone/broadcast.h"
#include "stone/curvature.h"
#include "stone/poincare_linear.h"

namespace stone::cuda {

namespace {

using portable::load;
using portable::store;

// Rows whose gradients for the bias are summed together.
constexpr int64_t kRowsOfChunk = 64;

inline int64_t chunks_of(int64_t rows) { return (rows + kRowsOfChunk - 1) / kRowsOfChunk; }

// The inner products of one row; with a gradient, those of it with the product and the bias follow.
template <class T, int N>
__device__ inline void row_sums(double (&sums)[N], const PoincareLinearArguments& a, const RowGroup& group,
                                int64_t row, bool active) {
  const T* x = static_cast<const T*>(a.x) + row * a.in;
  const T* product = static_cast<const T*>(a.product) + row * a.out;
  const T* bias = static_cast<const T*>(a.bias);
  const T* grad = static_cast<const T*>(a.grad) + (N > 4 ? row * a.out : 0);
  for (int64_t k = group.lane; active && k < a.in; k += group.lanes) {
    const double value = load(x[k]);
    sums[0] += value * value;
  }
  for (int64_t k = group.lane; active && k < a.out; k += group.lanes) {
    const double m = load(product[k]), b = bias == nullptr ? 0.0 : static_cast<double>(load(bias[k]));
    sums[1] += m * m;
    sums[2] += m * b;
    sums[3] += b * b;
    if constexpr (N > 4) {
      const double g = load(grad[k]);
      sums[4] += g * m;
      sums[5] += g * b;
    }
  }
  group.sum(sums);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) linear_forward(const PoincareLinearArguments a, const int lanes) {
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  const T* bias = static_cast<const T*>(a.bias);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < a.rows;
    const int64_t row = active ? first + group.group : 0;
    double sums[4] = {};
    row_sums<T>(sums, a, group, row, active);
    const double c = portable::curvature_at(a.c, portable::source_row(a.map, 0, row));
    const portable::PoincareLinearSums of_row{sums[0], sums[1], sums[2], sums[3]};
    const portable::PoincareLinearFactors f = factors_of(of_row, c, a.guards);
    const T* product = static_cast<const T*>(a.product) + row * a.out;
    T* y = static_cast<T*>(a.y) + row * a.out;
    for (int64_t k = group.lane; active && k < a.out; k += group.lanes) {
      double value = f.of_product * static_cast<double>(load(product[k]));
      if (bias != nullptr) {
        value += f.of_bias * static_cast<double>(load(bias[k]));
      }
      y[k] = store<T>(static_cast<C>(value));
    }
  }
}

// `of_bias`: [rows, 3], the gradient of the bias as multiples of the row's gradient, its product and the bias.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    linear_rows(const PoincareLinearArguments a, double* const of_bias, const int lanes) {
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  const T* bias = static_cast<const T*>(a.bias);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < a.rows;
    const int64_t row = active ? first + group.group : 0;
    double sums[6] = {};
    row_sums<T>(sums, a, group, row, active);
    if (!active) {
      continue;
    }
    const double c = portable::curvature_at(a.c, portable::source_row(a.map, 0, row));
    const portable::PoincareLinearSums of_row{sums[0], sums[1], sums[2], sums[3]};
    const portable::PoincareLinearGradient g = gradient_of(of_row, sums[4], sums[5], c, a.guards);
    const T* x = static_cast<const T*>(a.x) + row * a.in;
    const T* product = static_cast<const T*>(a.product) + row * a.out;
    const T* grad = static_cast<const T*>(a.grad) + row * a.out;
    T* grad_x = static_cast<T*>(a.grad_x) + row * a.in;
    T* grad_product = static_cast<T*>(a.y) + row * a.out;
    for (int64_t k = group.lane; k < a.in; k += group.lanes) {
      grad_x[k] = store<T>(static_cast<C>(g.along * static_cast<double>(load(x[k]))));
    }
    for (int64_t k = group.lane; k < a.out; k += group.lanes) {
      double value = g.m_of_grad * static_cast<double>(load(grad[k])) + g.m_of_m * static_cast<double>(load(product[k]));
      if (bias != nullptr) {
        value += g.m_of_b * static_cast<double>(load(bias[k]));
      }
      grad_product[k] = store<T>(static_cast<C>(value));
    }
    if (group.lane == 0) {
      static_cast<C*>(a.grad_c)[row] = static_cast<C>(g.curvature);
      if (bias != nullptr) {
        of_bias[3 * row] = g.b_of_grad;
        of_bias[3 * row + 1] = g.b_of_m;
        of_bias[3 * row + 2] = g.b_of_b;
      }
    }
  }
}

// A thread for each entry of the bias and chunk of rows, which it sums in order.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    bias_chunks(const PoincareLinearArguments a, const double* const of_bias) {
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; index < a.chunks * a.out;
       index += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t chunk = index / a.out, k = index % a.out;
    const int64_t last = (chunk + 1) * kRowsOfChunk < a.rows ? (chunk + 1) * kRowsOfChunk : a.rows;
    const double b = load(static_cast<const T*>(a.bias)[k]);
    double sum = 0.0;
    for (int64_t row = chunk * kRowsOfChunk; row < last; ++row) {
      const double* of = of_bias + 3 * row;
      sum += of[0] * static_cast<double>(load(static_cast<const T*>(a.grad)[row * a.out + k])) +
             of[1] * static_cast<double>(load(static_cast<const T*>(a.product)[row * a.out + k])) + of[2] * b;
    }
    a.partial[index] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) bias_gradient(const PoincareLinearArguments a) {
  sum_chunks(static_cast<T*>(a.grad_bias), a.partial, a.chunks, a.out);
}

// Packs of a row that a lane keeps in registers, at most; of longer rows, a block works on one.
// In the backward, a block's part of the gradient of the bias must fit in shared memory.
constexpr int64_t kMostKept = 8, kMostKeptBackward = 4;

template <class T>
bool whole_packs(const PoincareLinearArguments& a, bool backward) {
  const int64_t most = 32 * (backward ? kMostKeptBackward : kMostKept) * kWhole<T>;
  return a.in % kWhole<T> == 0 && a.out % kWhole<T> == 0 && a.out <= most && aligned_to_16(a.x) &&
         aligned_to_16(a.product) && aligned_to_16(a.bias) && aligned_to_16(a.y) && aligned_to_16(a.grad) &&
         aligned_to_16(a.grad_x);
}

template <class T, int packs>
void run_forward_kept(const PoincareLinearArguments& a, int lanes, cudaStream_t stream) {
  using Kept = KeptRows<T, packs, (packs == 1 || (packs == 2 && sizeof(T) != sizeof(float)) ? 2 : 1)>;
  launch(linear_forward_kept<T, Kept>, blocks_for((a.rows + Kept::kRows - 1) / Kept::kRows, lanes), stream, a, lanes);
}

template <class T, int packs>
void run_backward_kept(PoincareLinearArguments a, int lanes, cudaStream_t stream) {
  using Kept = KeptRows<T, packs, 2>;
  const int64_t turns = blocks_for((a.rows + Kept::kRows - 1) / Kept::kRows, lanes);
  // As many chunks as there is memory for their parts.
  a.chunks = a.bias == nullptr || turns < a.chunks ? turns : a.chunks;
  if (a.rows > 0) {
    launch(linear_backward_kept<T, Kept>, static_cast<int>(a.chunks), stream, a, lanes);
  }
  if (a.bias != nullptr && a.out > 0) {
    launch(bias_gradient<T>, blocks_of_sums(a.out), stream, a);
  }
}

template <class T>
void run(const PoincareLinearArguments& a, bool backward, double* of_bias, cudaStream_t stream) {
  if (whole_packs<T>(a, backward)) {
    const int64_t packs = a.out / kWhole<T>;
    const int of_row = packs <= 8 ? 8 : (packs <= 16 ? 16 : 32);
    if (backward) {
      return packs <= 32   ? run_backward_kept<T, 1>(a, of_row, stream)
             : packs <= 64 ? run_backward_kept<T, 2>(a, of_row, stream)
                           : run_backward_kept<T, 4>(a, of_row, stream);
    }
    return packs <= 32    ? run_forward_kept<T, 1>(a, of_row, stream)
           : packs <= 64  ? run_forward_kept<T, 2>(a, of_row, stream)
           : packs <= 128 ? run_forward_kept<T, 4>(a, of_row, stream)
                          : run_forward_kept<T, 8>(a, of_row, stream);
  }
  const int lanes = lanes_for(a.in > a.out ? a.in : a.out);
  const int blocks = blocks_for(a.rows, lanes);
  if (!backward) {
    launch(linear_forward<T>, blocks, stream, a, lanes);
    return;
  }
  if (a.rows > 0) {
    launch(linear_rows<T>, blocks, stream, a, of_bias, lanes);
  }
  if (a.bias != nullptr && a.out > 0) {
    if (a.rows > 0) {
      launch(bias_chunks<T>, blocks_for(a.chunks * a.out, 1), stream, a, static_cast<const double*>(of_bias));
    }
    launch(bias_gradient<T>, blocks_of_sums(a.out), stream, a);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    add_time_forward(const AddTimeArguments a, const int64_t rows, const int lanes) {
  const RowGroup group(lanes);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < rows;
    const int64_t row = active ? first + group.group : 0;
    const T* space = static_cast<const T*>(a.space) + row * a.dim;
    T* y = static_cast<T*>(a.y) + row * (a.dim + 1);
    double squares[1] = {};
    for (int64_t k = group.lane; active && k < a.dim; k += group.lanes) {
      const double value = load(space[k]);
      squares[0] += value * value;
      y[k + 1] = space[k];
    }
    group.sum(squares);
    if (active && group.lane == 0) {
      const double c = portable::curvature_at(a.c, portable::source_row(a.map, 0, row));
      y[0] = store<T>(static_cast<typename portable::Compute<T>::type>(portable::time_of(squares[0], c)));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    add_time_backward(const AddTimeArguments a, const int64_t rows, const int lanes) {
  using C = typename portable::Compute<T>::type;
  const RowGroup group(lanes);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * group.groups; first < rows;
       first += static_cast<int64_t>(gridDim.x) * group.groups) {
    const bool active = first + group.group < rows;
    const int64_t row = active ? first + group.group : 0;
    const T* space = static_cast<const T*>(a.space) + row * a.dim;
    const T* grad = static_cast<const T*>(a.grad) + row * (a.dim + 1);
    double squares[1] = {};
    for (int64_t k = group.lane; active && k < a.dim; k += group.lanes) {
      const double value = load(space[k]);
      squares[0] += value * value;
    }
    group.sum(squares);
    if (!active) {
      continue;
    }
    const double c = portable::curvature_at(a.c, portable::source_row(a.map, 0, row));
    const auto g = portable::time_gradient(squares[0], static_cast<double>(load(grad[0])), c);
    T* result = static_cast<T*>(a.y) + row * a.dim;
    for (int64_t k = group.lane; k < a.dim; k += group.lanes) {
      const double value = static_cast<double>(load(grad[k + 1])) + g.along * static_cast<double>(load(space[k]));
      result[k] = store<T>(static_cast<C>(value));
    }
    if (group.lane == 0) {
      static_cast<C*>(a.grad_c)[row] = static_cast<C>(g.curvature);
    }
  }
}

template <class T>
void run_add_time(const AddTimeArguments& a, bool backward, int64_t rows, cudaStream_t stream) {
  const int lanes = lanes_for(a.dim);
  launch(backward ? add_time_backward<T> : add_time_forward<T>, blocks_for(rows, lanes), stream, a, rows, lanes);
}

// What the gradient of the bias is summed from.
struct BiasScratch {
  double* of_rows;
  double* of_chunks;

  BiasScratch(const PoincareLinearArguments& a, bool backward, Scratch& memory) {
    const int64_t each = backward && a.bias != nullptr ? static_cast<int64_t>(sizeof(double)) : 0;
    of_rows = memory.next<double>(3 * a.rows * each);
    of_chunks = memory.next<double>(chunks_of(a.rows) * a.out * each);
  }
};

}  // namespace

int64_t poincare_linear_scratch_bytes(const PoincareLinearArguments& arguments, bool backward) {
  Scratch count(nullptr);
  BiasScratch(arguments, backward, count);
  return count.bytes();
}

void poincare_linear(const PoincareLinearArguments& given, bool backward, void* scratch, cudaStream_t stream) {
  Scratch memory(scratch);
  const BiasScratch parts(given, backward, memory);
  PoincareLinearArguments arguments = given;
  arguments.chunks = chunks_of(given.rows);
  arguments.partial = parts.of_chunks;
  switch (arguments.element) {
    case Element::kFloat32:
      return run<float>(arguments, backward, parts.of_rows, stream);
    case Element::kFloat64:
      return run<double>(arguments, backward, parts.of_rows, stream);
    case Element::kBFloat16:
      return run<BFloat16>(arguments, backward, parts.of_rows, stream);
    case Element::kFloat16:
      return run<Half>(arguments, backward, parts.of_rows, stream);
  }
}

void add_time(const AddTimeArguments& arguments, bool backward, int64_t rows, cudaStream_t stream) {
  switch (arguments.element) {
    case Element::kFloat32:
      return run_add_time<float>(arguments, backward, rows, stream);
    case Element::kFloat64:
      return run_add_time<double>(arguments, backward, rows, stream);
    case Element::kBFloat16:
      return run_add_time<BFloat16>(arguments, backward, rows, stream);
    case Element::kFloat16:
      return run_add_time<Half>(arguments, backward, rows, stream);
  }
}

}  // namespace stone::cuda
