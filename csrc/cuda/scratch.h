// Scratch memory on the device, handed out in aligned parts; where there is no memory yet, the parts are counted.
#pragma once

#include <cstdint>

namespace stone::cuda {

class Scratch {
 public:
  explicit Scratch(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class Part>
  Part* next(int64_t bytes) {
    char* part = memory_ == nullptr || bytes == 0 ? nullptr : memory_ + bytes_;
    bytes_ += (bytes + 255) / 256 * 256;
    return reinterpret_cast<Part*>(part);
  }

  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

}  // namespace stone::cuda
