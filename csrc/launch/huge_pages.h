// Large pages for large results.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#endif

namespace stone::launch {

#if defined(__linux__)
// Whether a balloon device of `drivers` reports free memory to a hypervisor, which takes it away. Only large blocks are
// reported: small pages are used again as they are, but a large one may have to be had from the hypervisor anew, at
// several times what it saves (7 times as long for a call of 96 MiB). Bit 5 of the device (virtio 1.2, 5.5.3).
inline bool reports_free_pages(const std::filesystem::path& drivers) {
  constexpr size_t reporting = 5;
  std::error_code failed;
  std::filesystem::directory_iterator device(drivers, failed);
  for (; !failed && device != std::filesystem::directory_iterator(); device.increment(failed)) {
    std::string features;
    std::ifstream(device->path() / "features") >> features;
    if (features.size() > reporting && features[reporting] == '1') {
      return true;
    }
  }
  return false;
}
#endif

// A fresh result of many megabytes is mapped page by page as it is written, which takes longer than to write it.
// Where Linux gives pages of 2 MiB on request ("madvise", the common setting) they are requested, except in a virtual
// machine whose free memory goes back to its host; Linux may refuse, and nothing else changes.
inline void ask_for_huge_pages([[maybe_unused]] void* start, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr int64_t worthwhile = 4 << 20;
  constexpr uintptr_t page = 4096;
  if (bytes >= worthwhile) {
    static const bool reported = reports_free_pages("/sys/bus/virtio/drivers/virtio_balloon");
    if (reported) {
      return;
    }
    const uintptr_t first = reinterpret_cast<uintptr_t>(start) & ~(page - 1);
    const uintptr_t last = (reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes)) & ~(page - 1);
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace stone::launch
