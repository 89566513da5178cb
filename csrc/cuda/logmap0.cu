#include "radial.cuh"
#include "stone/logmap0.h"

namespace stone::cuda {

void logmap0(const RadialArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_radial<portable::Logmap0, true>(arguments, rows, stream);
}

void logmap0_backward(const RadialArguments& arguments, int64_t rows, cudaStream_t stream) {
  launch_radial<portable::Logmap0, false>(arguments, rows, stream);
}

}  // namespace stone::cuda
