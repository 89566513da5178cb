#include "mobius.cuh"

namespace stone::cuda {

namespace {

template <class T, bool forward>
void launch_typed(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream) {
  bool aligned = arguments.dim % kPack<T, true> == 0 && aligned_to_16(arguments.x) && aligned_to_16(arguments.y) &&
                 aligned_to_16(arguments.z);
  if (!forward) {
    aligned = aligned && aligned_to_16(arguments.grad) && aligned_to_16(arguments.grad_y);
  }
  const int lanes = lanes_for_rows(arguments.dim / (aligned ? kPack<T, true> : 1), aligned);
  const int blocks = blocks_for(rows, lanes);
  if constexpr (forward) {
    if (aligned) {
      launch(mobius_forward<T, true>, blocks, stream, arguments, rows, lanes);
    } else {
      launch(mobius_forward<T, false>, blocks, stream, arguments, rows, lanes);
    }
  } else {
    if (aligned) {
      launch(mobius_backward<T, true>, blocks, stream, arguments, rows, lanes);
    } else {
      launch(mobius_backward<T, false>, blocks, stream, arguments, rows, lanes);
    }
  }
}

template <bool forward>
void launch_mobius(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream) {
  switch (arguments.element) {
    case Element::kFloat32:
      return launch_typed<float, forward>(arguments, rows, stream);
    case Element::kFloat64:
      return launch_typed<double, forward>(arguments, rows, stream);
    case Element::kBFloat16:
      return launch_typed<BFloat16, forward>(arguments, rows, stream);
    case Element::kFloat16:
      return launch_typed<Half, forward>(arguments, rows, stream);
  }
}

}  // namespace

void mobius_add(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_mobius<true>(arguments, rows, stream);
}

void mobius_add_backward(const MobiusArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_mobius<false>(arguments, rows, stream);
}

}  // namespace stone::cuda
