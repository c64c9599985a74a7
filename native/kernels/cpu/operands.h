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

/// Rows [begin, end) of a wide factor lie from `at` on.
struct PanelRows {
  int32_t begin, end;
  int64_t at;  // floats
};

/// A wide factor U [rank, n] in panels as B is, of which panel p holds the rows that are not all zero there.
struct WidePanels {
  const float* u = nullptr;         // null: no term
  const PanelRows* rows = nullptr;  // one a panel
};

/// What a product A B adds to its result as it stores it.
struct Tail {
  const float* bias = nullptr;  // [n], or null
  bool accumulate = false;      // what C holds already
  /// t U for a narrow t [rows, rank], or null.
  const float* t = nullptr;
  int64_t ldt = 0;
  WidePanels u = {};
  /// Where rows of A have factors of their own, row i takes parts[part_of[i]] in place of u; rows of one part
  /// lie together.
  const WidePanels* parts = nullptr;
  const int32_t* part_of = nullptr;
  int64_t panel = 0;  // the one that this tail starts at
};

/// Rows [begin, end) of A, and what a thin product multiplies them with: n columns, packed; null for none.
struct ThinPart {
  int64_t begin, end;
  const float* packed;
  int64_t n;
};

}  // namespace peft
