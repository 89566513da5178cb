// Butterflies: how many rows and blocks work together, and which kernels run for which element type.
#include "butterfly.cuh"
#include "butterfly_registers_backward.cuh"
#include "kernels.h"
#include "scratch.h"

namespace stone::cuda {

namespace {

// Blocks that run at once on the largest devices, and what their scratch memory may come to.
constexpr int64_t kMostBlocks = 512;
constexpr int64_t kMostBytes = int64_t{64} << 20;

int64_t clamped(int64_t value, int64_t most) { return value < 1 ? 1 : (value < most ? value : most); }

int levels_of(int64_t dim) {
  int levels = 0;
  while ((int64_t{1} << levels) < dim) {
    ++levels;
  }
  return levels;
}

template <class C>
ButterflyOnDevice divide(const ButterflyArguments& a, bool backward, Scratch& memory) {
  const auto entry = static_cast<int64_t>(sizeof(C));
  ButterflyOnDevice b{a, levels_of(a.dim), clamped(kCapacity<C> / a.dim, kMostLines), 0, nullptr, nullptr, nullptr};
  const int64_t weights = backward ? a.stages * a.dim : 0;
  const int64_t own = a.dim > kCapacity<C> ? 2 * a.dim * entry : 0;
  const int64_t each = own + weights * (b.lines * entry + static_cast<int64_t>(sizeof(double)));
  b.chunks = clamped((a.rows + b.lines - 1) / b.lines, each > 0 ? clamped(kMostBytes / each, kMostBlocks) : 1 << 20);
  b.buffers = memory.next<void>(b.chunks * own);
  b.inputs = memory.next<void>(b.chunks * weights * b.lines * entry);
  b.partial = memory.next<double>(b.chunks * weights * static_cast<int64_t>(sizeof(double)));
  return b;
}

// Whether rows are taken in registers: those of the common lengths, where they are whole packs.
bool in_registers(const ButterflyArguments& a, bool backward) {
  if (backward && (a.dim < 64 || a.dim > 4096 || a.stages < 1 || a.stages > kMostStages || !aligned_to_16(a.grad))) {
    return false;
  }
  return a.element != Element::kFloat64 && a.dim >= 16 && a.dim <= 8192 && aligned_to_16(a.x) && aligned_to_16(a.y) &&
         aligned_to_16(a.weight);
}

template <class T, class Shape, class Stages = AnyStages>
void run_in_registers(const ButterflyOnDevice& b, cudaStream_t stream) {
  const int64_t together = Shape::kRows * (kThreads >> (b.levels - Shape::kBits));
  const int64_t blocks = (b.a.rows + together - 1) / together;
  launch(butterfly_forward_in_registers<T, Shape, Stages>, static_cast<int>(clamped(blocks, 1 << 20)), stream, b);
}

// Short rows take few entries of a thread, so that there are blocks enough to load while others compute; of long ones,
// more rows share a load of the weights.
template <class T, int levels>
void run_cycles(const ButterflyOnDevice& b, cudaStream_t stream) {
  using Shape = RegisterShape<T, 4, levels < 9 ? 2 : 4, 2, levels == 8 ? 3 : 2>;
  run_in_registers<T, Shape, WholeCycles<levels>>(b, stream);
}

// Whether it ran: whole cycles of the common lengths have kernels of their own.
template <class T>
bool run_whole_cycles(const ButterflyOnDevice& b, cudaStream_t stream) {
  using Run = void (*)(const ButterflyOnDevice&, cudaStream_t);
  constexpr int kFirst = 6;
  constexpr Run runs[] = {run_cycles<T, 6>,  run_cycles<T, 7>,  run_cycles<T, 8>, run_cycles<T, 9>,
                          run_cycles<T, 10>, run_cycles<T, 11>, run_cycles<T, 12>};
  const int at = b.levels - kFirst;
  if (at < 0 || at >= static_cast<int>(sizeof runs / sizeof runs[0]) || b.a.stages % b.levels != 0) {
    return false;
  }
  runs[at](b, stream);
  return true;
}

// Two rows of 4096 entries to a block. Blocks fill a processor; there are two for each that the largest devices have.
template <class T>
using BackwardShape = RegisterShape<T, 4, 2, 1>;
constexpr int64_t kChunks = 264;

template <class T>
ButterflyOnDevice divide_in_registers(const ButterflyArguments& a, Scratch& memory) {
  using S = BackwardShape<T>;
  ButterflyOnDevice b{a, levels_of(a.dim), 0, 0, nullptr, nullptr, nullptr};
  const int64_t together = S::kRows * (kThreads >> (b.levels - S::kBits));
  b.chunks = clamped((a.rows + together - 1) / together, kChunks);
  const int64_t phases = phases_of<S>(b.levels, a.stages).count;
  b.inputs = memory.next<void>(b.chunks * (phases - 1) * S::kRows * S::kEntries * kThreads * 4);
  b.partial = memory.next<double>(b.chunks * a.stages * a.dim * static_cast<int64_t>(sizeof(double)));
  return b;
}

// Whether it ran: it needs more shared memory than every device has.
template <class T>
bool run_backward_in_registers(const ButterflyArguments& a, void* scratch, cudaStream_t stream) {
  using S = BackwardShape<T>;
  Scratch memory(scratch);
  const ButterflyOnDevice b = divide_in_registers<T>(a, memory);
  const int bytes = static_cast<int>(a.stages) * S::kEntries * kThreads * 4;
  if (!launch_with_shared(butterfly_backward_in_registers<T, S>, static_cast<int>(b.chunks), bytes, stream, b,
                          phases_of<S>(b.levels, a.stages))) {
    return false;
  }
  launch(butterfly_collect<T>, blocks_of_sums(a.stages * a.dim), stream, b);
  return true;
}

template <class T>
void run(const ButterflyArguments& a, bool backward, void* scratch, cudaStream_t stream) {
  if constexpr (sizeof(T) < sizeof(double)) {
    if (!backward && in_registers(a, false)) {
      const ButterflyOnDevice b{a, levels_of(a.dim), 0, 0, nullptr, nullptr, nullptr};
      if (run_whole_cycles<T>(b, stream)) {
        return;
      }
      // Where a thread held more of the short rows, a block would have more rows than threads to find their factors.
      return a.dim < 64     ? run_in_registers<T, RegisterShape<T, 4, 1>>(b, stream)
             : a.dim < 8192 ? run_in_registers<T, RegisterShape<T, 4, 4>>(b, stream)
                            : run_in_registers<T, RegisterShape<T, 5, 2>>(b, stream);
    }
    if (backward && in_registers(a, true) && run_backward_in_registers<T>(a, scratch, stream)) {
      return;
    }
  }
  Scratch memory(scratch);
  const ButterflyOnDevice b = divide<typename portable::Compute<T>::type>(a, backward, memory);
  if (!backward) {
    launch(butterfly_forward<T>, static_cast<int>(b.chunks), stream, b);
    return;
  }
  launch(butterfly_backward<T>, static_cast<int>(b.chunks), stream, b);
  if (a.stages > 0) {
    launch(butterfly_collect<T>, blocks_of_sums(a.stages * a.dim), stream, b);
  }
}

}  // namespace

int64_t butterfly_scratch_bytes(const ButterflyArguments& arguments, bool backward) {
  Scratch count(nullptr);
  if (arguments.element == Element::kFloat64) {
    divide<double>(arguments, backward, count);
  } else {
    divide<float>(arguments, backward, count);
  }
  if (!backward || !in_registers(arguments, true)) {
    return count.bytes();
  }
  // Which of the two ways the device allows is known when it runs.
  Scratch other(nullptr);
  if (arguments.element == Element::kFloat32) {
    divide_in_registers<float>(arguments, other);
  } else {
    divide_in_registers<Half>(arguments, other);
  }
  return count.bytes() > other.bytes() ? count.bytes() : other.bytes();
}

void butterfly(const ButterflyArguments& arguments, bool backward, void* scratch, cudaStream_t stream) {
  switch (arguments.element) {
    case Element::kFloat32:
      return run<float>(arguments, backward, scratch, stream);
    case Element::kFloat64:
      return run<double>(arguments, backward, scratch, stream);
    case Element::kBFloat16:
      return run<BFloat16>(arguments, backward, scratch, stream);
    case Element::kFloat16:
      return run<Half>(arguments, backward, scratch, stream);
  }
}

}  // namespace stone::cuda
