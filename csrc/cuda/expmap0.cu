#include "radial.cuh"
#include "stone/expmap0.h"

namespace stone::cuda {

void expmap0(const RadialArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_radial<portable::Expmap0, true>(arguments, rows, stream);
}

void expmap0_backward(const RadialArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_radial<portable::Expmap0, false>(arguments, rows, stream);
}

}  // namespace stone::cuda
