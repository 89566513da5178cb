// Pages of a large result, mapped many at a time just before they are written.
#pragma once

#include <algorithm>
#include <array>

#include "machine/chunks.h"
#include "stone/arguments.h"
#include "stone/butterfly_arguments.h"
#include "stone/linear_epilogue_arguments.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace stone {

// What the rows of one call write: `row_bytes` for each row from `start` on; unused ones are empty.
struct Target {
  void* start = nullptr;
  int64_t row_bytes = 0;
};
using Targets = std::array<Target, kMaxVectors>;

inline int64_t bytes_of(Element element) {
  return element == Element::kFloat64 ? 8 : (element == Element::kFloat32 ? 4 : 2);
}

inline Target target(void* start, int64_t width, Element element) {
  return {start, start == nullptr ? 0 : width * bytes_of(element)};
}

inline Targets targets_of(const RadialArguments& arguments) {
  return {target(arguments.y, arguments.dim, arguments.element)};
}

inline Targets targets_of(const MobiusArguments& arguments) {
  return {target(arguments.z, arguments.dim, arguments.element),
          target(arguments.grad_y, arguments.dim, arguments.element)};
}

inline Targets targets_of(const ButterflyArguments& arguments) {
  return {target(arguments.y, arguments.dim, arguments.element)};
}

inline Targets targets_of(const PoincareLinearArguments& arguments) {
  return {target(arguments.y, arguments.out, arguments.element),
          target(arguments.grad_x, arguments.in, arguments.element)};
}

// Forward only.
inline Targets targets_of(const CdistArguments& arguments) {
  return {target(arguments.result, arguments.columns, arguments.element)};
}

inline Targets targets_of(const AddTimeArguments& arguments) {
  return {target(arguments.y, arguments.dim + (arguments.grad == nullptr), arguments.element)};
}

inline Targets targets_of(const RowArguments& arguments) {
  if (arguments.grad == nullptr) {
    return {target(arguments.result, arguments.result_width, arguments.element)};
  }
  Targets targets;
  for (int i = 0; i < kMaxVectors; ++i) {
    targets[i] = target(arguments.grad_vector[i], arguments.width[i], arguments.element);
  }
  return targets;
}

// Linux maps fresh memory page by page at the first write to each, at a cost above that of the write itself; in one call
// it takes half as long. Memory that has been used before, an older Linux (before 5.14) or a refusal change nothing.
inline void map_pages([[maybe_unused]] char* start, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
  constexpr int populate_write = 23;  // MADV_POPULATE_WRITE, which older headers lack
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(start) & ~(page - 1);
  const uintptr_t last = reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes);
  unsigned char mapped = 0;
  if (mincore(reinterpret_cast<void*>((first + (last - first) / 2) & ~(page - 1)), page, &mapped) == 0 &&
      (mapped & 1) == 0) {
    madvise(reinterpret_cast<void*>(first), last - first, populate_write);
  }
#endif
}

inline int64_t row_bytes(const Targets& targets) {
  int64_t sum = 0;
  for (const Target& target : targets) {
    sum += target.row_bytes;
  }
  return sum;
}

// Whether a result is so large that its memory is fresh: the C library of Linux keeps freed blocks below 32 MiB for the
// next call, and for the others asks the system each time.
inline bool fresh(const Targets& targets, int64_t rows) {
  return std::any_of(targets.begin(), targets.end(),
                     [rows](const Target& target) { return rows * target.row_bytes >= 32 << 20; });
}

inline void map_rows(const Targets& targets, int64_t begin, int64_t end) {
  for (const Target& target : targets) {
    if (target.start != nullptr && begin < end) {
      map_pages(static_cast<char*>(target.start) + begin * target.row_bytes, (end - begin) * target.row_bytes);
    }
  }
}

// Calls `work` for the rows [begin, end) of `arguments`, of `rows`: piece by piece where results are fresh, each piece
// written while its pages, which mapping sets to zero, are still in the second-level cache.
template <class Arguments, class Work>
void over_pieces(const Arguments& arguments, int64_t rows, int64_t begin, int64_t end, const Work& work) {
  constexpr int64_t piece_bytes = 1 << 20;
  const Targets targets = targets_of(arguments);
  if (!fresh(targets, rows)) {
    work(begin, end);
    return;
  }
  const int64_t step = std::max<int64_t>(piece_bytes / row_bytes(targets), 1);
  for (int64_t at = begin; at < end; at += step) {
    const int64_t stop = std::min(at + step, end);
    map_rows(targets, at, stop);
    work(at, stop);
  }
}

// Calls `work` for the chunks [begin, end) of `arguments`, one at a time.
template <class Arguments, class Work>
void over_chunks(const Arguments& arguments, int64_t begin, int64_t end, const Work& work) {
  const Targets targets = targets_of(arguments);
  const bool map = fresh(targets, arguments.rows);
  for (int64_t index = begin; index < end; ++index) {
    if (map) {
      const portable::Chunk chunk = portable::chunk_at(index, arguments.chunks, arguments.rows);
      map_rows(targets, chunk.first, chunk.last);
    }
    work(index, index + 1);
  }
}

}  // namespace stone
