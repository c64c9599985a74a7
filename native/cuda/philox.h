#pragma once

#include "device.h"

// Dropout masks in a kernel: which word of which draw serves an entry stands in kernels/dropout.h.

namespace peft::cuda {

/// What one draw gives.
struct Words {
  unsigned v[4];
};

/// Philox4x32-10.
__device__ inline Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned key0,
                               unsigned key1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<unsigned>(p1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<unsigned>(p1);
    c2 = static_cast<unsigned>(p0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<unsigned>(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

__device__ inline float keep_factor(const DropoutView& d, unsigned word) {
  return word < d.threshold ? 0.0f : d.scale;
}

/// Calls visit(column) for the columns of a row that are this lane's: four, sixteen apart, which one draw
/// serves, and then those of the next draw but one.
template <typename Visit>
__device__ inline void for_columns(int columns, int lane, const Visit& visit) {
  for (int first = lane / 16 * 64 + lane % 16; first < columns; first += 128) {
#pragma unroll
    for (int w = 0; w < 4; w++) {
      if (first + w * 16 < columns) visit(first + w * 16);
    }
  }
}

/// The same with each column's keep factor: visit(column, factor).
template <typename Visit>
__device__ inline void for_dropped_columns(const DropoutView& d, int row, int columns, int lane,
                                           const Visit& visit) {
  for (int first = lane / 16 * 64 + lane % 16; first < columns; first += 128) {
    Words words = {};
    if (d.threshold > 0) {
      words = philox(first / 64 * 16 + lane % 16, d.first_token + row, d.step, d.site, d.key0, d.key1);
    }
#pragma unroll
    for (int w = 0; w < 4; w++) {
      if (first + w * 16 < columns) visit(first + w * 16, keep_factor(d, words.v[w]));
    }
  }
}

/// The keep factors of the probabilities of keys `key` to `key` + Count - 1 for one query. Keys count from
/// the query's text on; what stands for keys before it means nothing.
template <int Count>
__device__ inline void keep_keys(const DropoutView& d, int head, int query, int key, float (&keep)[Count]) {
  static_assert(Count <= 4);
  Words words = {};
  if (d.threshold > 0) {
    const unsigned token = d.first_token + query, site = d.site | static_cast<unsigned>(head + 1) << 16;
    const unsigned group = static_cast<unsigned>(key >> 2);
    words = philox(token, group, d.step, site, d.key0, d.key1);
    if ((key & 3) != 0) {
      Words next = {};
      if (Count > 1) next = philox(token, group + 1, d.step, site, d.key0, d.key1);
        // Moved by key % 4 words, without an index that would put them into memory.
#pragma unroll 1
      for (int i = key & 3; i > 0; i--) {
        words = {{words.v[1], words.v[2], words.v[3], next.v[0]}};
        next = {{next.v[1], next.v[2], next.v[3], 0}};
      }
    }
  }
#pragma unroll
  for (int i = 0; i < Count; i++) keep[i] = keep_factor(d, words.v[i]);
}

}  // namespace peft::cuda
