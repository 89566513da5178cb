// Large pages for large results.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace stone::launch {

// A fresh result of many megabytes is mapped page by page as it is written, which takes longer than to write it.
// Where Linux gives pages of 2 MiB on request ("madvise", the common setting) they are requested; it may refuse, and
// nothing else changes.
inline void ask_for_huge_pages([[maybe_unused]] void* start, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr int64_t worthwhile = 4 << 20;
  constexpr uintptr_t page = 4096;
  if (bytes >= worthwhile) {
    const uintptr_t first = reinterpret_cast<uintptr_t>(start) & ~(page - 1);
    const uintptr_t last = (reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes)) & ~(page - 1);
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace stone::launch
