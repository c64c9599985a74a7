#pragma once

#include <cstdint>

namespace peft {

enum class StoredFormat { kFloat16, kBfloat16, kFourBit, kInt8 };

/// A frozen matrix W [n, k] in fewer bits, laid out for products: panels of as many rows as the product of
/// fp32 has columns in a panel, each stored column after column of W. Four-bit codes of one column are as
/// many bytes as a vector has lanes: byte i holds row i in its low half, row i + lanes in its high half.
/// Eight-bit codes are shifted by 128 and lie four columns side by side, so that one word holds four entries
/// of a row. Rows beyond n, and columns that only fill up such a word, are zero.
struct StoredWeight {
  StoredFormat format;
  int64_t n, k;
  const void* codes;

  const float* scale;  // of every row, padded as the rows are; eight-bit only: W = (code - 128) * scale

  // Four-bit only. W is one or more parts of part_rows rows, each quantised for itself: weight (row, column)
  // of a part is in block (row * k + column) >> block_shift of that part.
  const float* book;  // 16 values
  int64_t part_rows, part_blocks;
  int block_shift;
  const float* absmax;          // [parts * part_blocks], or null: then
  const uint8_t* absmax_codes;  // the same in codes of
  const float* absmax_book;     // 256 values, times
  const float* nested_absmax;   // [parts * part_nested], one for 256 blocks, plus
  const float* nested_offset;   // [parts]
  int64_t part_nested;

  // Weights that are kept in fp16: those of panel p are [outlier_begin[p], outlier_begin[p + 1]), in rising
  // order of their place (column * rows of a panel + row in the panel). Null where there are none.
  const int32_t* outlier_begin;
  const uint32_t* outlier_place;
  const uint16_t* outlier_value;  // bits of fp16
};

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
