// Chunks of rows: each sums a gradient of its own for what all rows share, so that the sums do not depend on the threads.
#pragma once

#include "stone/macros.h"

namespace STONE_NAMESPACE {

// Enough chunks to share out, of enough rows to be worth their memory.
STONE_FUNCTION int64_t count_chunks(int64_t rows) {
  constexpr int64_t smallest = 256;
  constexpr int64_t most = 32;
  const int64_t chunks = (rows + smallest - 1) / smallest;
  return chunks < 1 ? 1 : (chunks > most ? most : chunks);
}

struct Chunk {
  int64_t first;
  int64_t last;  // the row after its last one; not beyond `first` where it has none
};

STONE_FUNCTION Chunk chunk_at(int64_t index, int64_t chunks, int64_t rows) {
  const int64_t length = (rows + chunks - 1) / chunks;
  const int64_t first = index * length, last = first + length;
  return {first, last < rows ? last : rows};
}

}  // namespace STONE_NAMESPACE
