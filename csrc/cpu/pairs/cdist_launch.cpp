// Distance matrices on the CPU: tiles of pairs in parallel on torch's own threads.
#include <new>

#include "cdist.h"
#include "pairs/cdist_kernels.h"
#include "machine/fresh_pages.h"

namespace stone {

namespace {

// Fewer entries than this on a thread cost more to hand out than to work off.
constexpr int64_t kGrainEntries = 32768;

struct Scratch {
  explicit Scratch(int64_t bytes) : memory(::operator new(static_cast<size_t>(bytes), kAlignment)) {}
  ~Scratch() { ::operator delete(memory, kAlignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  static constexpr std::align_val_t kAlignment{64};
  void* memory;
};

// `entries` is what one unit looks at.
template <class Kernel>
void over_pairs(Kernel kernel, const CdistArguments& arguments, int64_t units, int64_t entries) {
  const int64_t bytes = cdist_kernels().scratch_bytes(arguments);
  const auto run = [&](int64_t begin, int64_t end) {
    const Scratch scratch(bytes);
    kernel(arguments, scratch.memory, begin, end);
  };
  const int64_t grain = kGrainEntries / (entries > 0 ? entries : 1) + 1;
  units <= grain ? run(0, units) : torch::stable::parallel_for(0, units, grain, run);
}

// A tile is a small part of many rows: all rows are mapped before the first.
void map_distances(const CdistArguments& arguments) {
  const Targets targets = targets_of(arguments);
  const int64_t rows = arguments.batch * arguments.rows;
  if (fresh(targets, rows)) {
    torch::stable::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) { map_rows(targets, begin, end); });
  }
}

struct Cpu {
  static void cdist(launch::Direction direction, const CdistArguments& arguments, const launch::Tensor& /*x*/) {
    const CdistKernels& table = cdist_kernels();
    const int64_t down = table.tiles(arguments.rows), across = table.tiles(arguments.columns);
    const int64_t entries = arguments.rows * arguments.columns * arguments.dim;
    if (direction == launch::Direction::kForward) {
      map_distances(arguments);
      over_pairs(table.forward, arguments, arguments.batch * down * across, entries / (down * across));
    } else {
      over_pairs(table.backward, arguments, arguments.batch * (down + across), 2 * entries / (down + across));
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stone, CPU, m) { launch::register_cdist<Cpu>(m); }

}  // namespace stone
