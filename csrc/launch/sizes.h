// Sizes of a tensor without an allocation: the launchers of small calls would spend their time in those.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>

namespace stone::launch {

// As many dimensions as torch gives a tensor.
inline constexpr size_t kMaxDimensions = 64;

class Sizes {
 public:
  Sizes() = default;
  template <class Iterator>
  Sizes(Iterator first, Iterator last) {
    for (; first != last; ++first) {
      push_back(*first);
    }
  }
  Sizes(std::initializer_list<int64_t> sizes) : Sizes(sizes.begin(), sizes.end()) {}
  Sizes(const Sizes& other) : Sizes(other.begin(), other.end()) {}
  Sizes& operator=(const Sizes& other) {
    count_ = 0;
    for (const int64_t size : other) {
      push_back(size);
    }
    return *this;
  }

  void push_back(int64_t size) {
    if (count_ == kMaxDimensions) {
      throw std::length_error("a tensor has at most 64 dimensions");
    }
    at_[count_++] = size;
  }

  bool operator==(const Sizes& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }
  size_t size() const { return count_; }
  const int64_t* data() const { return at_; }
  const int64_t* begin() const { return at_; }
  const int64_t* end() const { return at_ + count_; }
  int64_t& operator[](size_t d) { return at_[d]; }
  const int64_t& operator[](size_t d) const { return at_[d]; }

 private:
  size_t count_ = 0;
  int64_t at_[kMaxDimensions];
};

}  // namespace stone::launch
