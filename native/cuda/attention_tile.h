#pragma once

#include "philox.h"

// Attention over a packed batch of texts: a tile is kRows tokens in a row, whatever texts they are of, so
// that short texts share one. Every token meets the keys of its own text alone: those of others are neither
// weighed nor added, so what is not finite in one text stays there.

namespace peft::cuda {

/// How a block divides its work for heads of up to Size columns: kLanes threads a token, which weigh kKeys
/// keys each, side by side, and sum kPacks groups of four columns each.
template <int Size>
struct Tile {
  static constexpr int kRows = Size <= 64 ? 32 : 16;  // tokens; as many as shared memory has room for
  static constexpr int kLanes = kThreads / kRows;
  static constexpr int kKeys = kRows / kLanes;
  static constexpr int kPacks = Size / (4 * kLanes);
  static_assert(kLanes * kKeys == kRows && kPacks * 4 * kLanes == Size && kKeys <= 4 && 32 % kLanes == 0);

  /// One of query, key, value or a gradient. Four floats between the rows let eight rows be read at once.
  struct Rows {
    alignas(16) float v[kRows][Size + 4];
  };
  /// A number for each query and key.
  struct Pairs {
    alignas(16) float v[kRows][kRows + 4];
  };

  /// Where the keys lie: those that the lanes read at once one after the other.
  __device__ static int slot(int key) { return key % kKeys * kLanes + key / kKeys; }
};

using Pack4 = Pack<float, 4>;

__device__ inline Pack4& pack_at(float* p) { return *reinterpret_cast<Pack4*>(p); }

struct Span {
  int begin, end;
};

__device__ inline int smaller(int a, int b) { return a < b ? a : b; }
__device__ inline int greater(int a, int b) { return a > b ? a : b; }

/// The tokens of a token's text; none for a token beyond the last.
__device__ inline Span text_of(const PackedView& packed, int token) {
  if (token >= packed.tokens) return {0, 0};
  const int text = packed.texts[token];
  return {packed.offsets[text], packed.offsets[text + 1]};
}

/// The tokens of all texts of the tile that begins at `first`.
template <int Size>
__device__ Span texts_of_tile(const PackedView& packed, int first) {
  const int last = smaller(first + Tile<Size>::kRows, packed.tokens) - 1;
  return {packed.offsets[packed.texts[first]], packed.offsets[packed.texts[last] + 1]};
}

/// What lies in the tile that begins at `first`, counted from there; empty where nothing does.
template <int Size>
__device__ Span within_tile(Span span, int first) {
  return {greater(span.begin - first, 0), smaller(span.end - first, Tile<Size>::kRows)};
}

/// Where one head of one part of a matrix begins, and how it goes on.
template <typename T>
struct HeadColumns {
  T* data;
  long long stride;  // from one token to the next
  int size;
};

/// Part 0, 1, 2 of [tokens, 3 d]: query, key, value.
template <typename T>
__device__ HeadColumns<T> head_of_qkv(T* qkv, int part, int head, int heads, int size) {
  const long long d = static_cast<long long>(heads) * size;
  return {qkv + part * d + static_cast<long long>(head) * size, 3 * d, size};
}

template <typename T>
__device__ HeadColumns<T> head_of(T* rows, int head, int heads, int size) {
  return {rows + static_cast<long long>(head) * size, static_cast<long long>(heads) * size, size};
}

/// Tokens first to first + kRows - 1, zeros from token `end` and beyond the head's columns.
template <int Size, bool Keys, typename T>
__device__ void load_tile(HeadColumns<const T> from, int first, int end, typename Tile<Size>::Rows& to) {
#pragma unroll 4
  for (int i = threadIdx.x; i < Tile<Size>::kRows * Size; i += kThreads) {
    const int row = i / Size, column = i % Size;
    const bool inside = first + row < end && column < from.size;
    to.v[Keys ? Tile<Size>::slot(row) : row][column] =
        inside ? to_float(from.data[(first + row) * from.stride + column]) : 0.0f;
  }
}

/// Dot products of a row of `queries` with the keys of a lane.
template <int Size>
__device__ void dot_keys(typename Tile<Size>::Rows& queries, typename Tile<Size>::Rows& keys, int row,
                         int lane, float (&dot)[Tile<Size>::kKeys]) {
  using Tile = Tile<Size>;
#pragma unroll
  for (int i = 0; i < Tile::kKeys; i++) dot[i] = 0.0f;
#pragma unroll 2
  for (int column = 0; column < Size; column += 4) {
    const Pack4 query = pack_at(&queries.v[row][column]);
#pragma unroll
    for (int i = 0; i < Tile::kKeys; i++) {
      const Pack4 key = pack_at(&keys.v[i * Tile::kLanes + lane][column]);
#pragma unroll
      for (int j = 0; j < 4; j++) dot[i] += query.v[j] * key.v[j];
    }
  }
}

/// sum += weight * the lane's columns of a row.
template <int Size>
__device__ inline void add_row(float weight, float (&row)[Size + 4], int lane,
                               Pack4 (&sum)[Tile<Size>::kPacks]) {
#pragma unroll
  for (int p = 0; p < Tile<Size>::kPacks; p++) {
    const Pack4 value = pack_at(&row[(p * Tile<Size>::kLanes + lane) * 4]);
#pragma unroll
    for (int j = 0; j < 4; j++) sum[p].v[j] += weight * value.v[j];
  }
}

/// The lane's columns of a token, times `factor`.
template <int Size, typename T>
__device__ void store_row(const Pack4 (&sum)[Tile<Size>::kPacks], float factor, int token, int lane,
                          HeadColumns<T> to) {
#pragma unroll
  for (int p = 0; p < Tile<Size>::kPacks; p++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int column = (p * Tile<Size>::kLanes + lane) * 4 + j;
      if (column < to.size) to.data[token * to.stride + column] = from_float<T>(sum[p].v[j] * factor);
    }
  }
}

/// The sum over the lanes of a token.
template <int Size>
__device__ float sum_lanes(float value) {
#pragma unroll
  for (int width = Tile<Size>::kLanes / 2; width > 0; width /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, width);
  }
  return value;
}

}  // namespace peft::cuda
