#pragma once

#include <cstdint>

// What a product takes beside a weight.

namespace peft {

/// Rows of a batch as bytes: x[t, j] = codes[t * ld + j] * scale[t], outliers left out.
struct Int8Rows {
  const int8_t* codes;
  int64_t ld, rows;
  const float* scale;
  const int32_t* sum;  // of the codes of each row
};

/// What a product A B adds to its result as it stores it.
struct Tail {
  const float* bias = nullptr;  // [n], or null
  bool accumulate = false;      // what C holds already
  /// t U for a narrow t [rows, rank] and U [rank, n], or null.
  const float* t = nullptr;
  int64_t ldt = 0, rank = 0;
  const float* u = nullptr;       // packed as B is
  const int32_t* used = nullptr;  // rows [used[2p], used[2p + 1]) of U are those not zero in panel p
};

}  // namespace peft
