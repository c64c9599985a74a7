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

}  // namespace peft
