#pragma once

// What each kernel is handed, one struct a kernel by value. The same text is compiled by the C++ compiler for
// the caller and by NVRTC for the kernel, so the two cannot disagree. No includes: NVRTC has none at hand.

namespace peft::cuda {

/// IEEE half precision and bfloat16 as they lie in memory.
struct Half {
  unsigned short bits;
};
struct Bfloat16 {
  unsigned short bits;
};

/// Threads of a block, in every kernel.
constexpr int kThreads = 256;
/// Weights that one thread of `dequantize` writes, and one lane of `four_bit_linear` holds.
constexpr int kGroup = 8;
/// Rows of W and columns of x that a block of `four_bit_linear` has in hand at a time.
constexpr int kLinearRows = 16;
constexpr int kLinearTile = 256;
/// The most rows of x that `four_bit_linear` takes.
constexpr int kLinearBatch = 16;

/// A 4-bit weight [rows, columns] as bitsandbytes stores it: blocks run over the flat matrix, and the first
/// of two weights is in the high half of a byte.
struct FourBitView {
  const unsigned char* codes;         // [(rows * columns + 1) / 2], 4-byte aligned
  const float* table;                 // [16]
  const float* absmax;                // [blocks]; null where it is in 8 bits:
  const unsigned char* absmax_codes;  // [blocks]
  const float* absmax_table;          // [256]
  const float* nested_absmax;         // [blocks >> nested_shift, rounded up]
  float absmax_offset;
  int block_shift;  // a block is 1 << block_shift weights, 32 to 4096
  int nested_shift;
};

/// out[i] = weight first + i, for i < count.
struct DequantizeArgs {
  FourBitView weight;
  void* out;  // written faster where it is 16-byte aligned
  long long first, count;
};

/// out[index - first] = value for every outlier within [first, first + count).
struct PutOutliersArgs {
  const int* index;  // flat
  const Half* value;
  void* out;
  long long outliers, first, count;
};

/// y [batch, rows] = x [batch, columns] W' + bias.
struct FourBitLinearArgs {
  FourBitView weight;
  const void* x;
  const float* bias;         // [rows] or null
  const int* outlier_rows;   // [rows + 1]: where the outliers of each row begin; null where there are none
  const int* outlier_index;  // flat, rising
  const Half* outlier_value;
  void* y;
  int batch, rows, columns;
  long long y_stride;  // elements from one row of y to the next, at least `rows`
};

/// Each row of x [rows, columns] in int8: codes = round(127 x / absmax). With a threshold above 0, entries of
/// at least that magnitude are left out of absmax, get the code 0, and are marked.
struct QuantizeRowsArgs {
  const void* x;
  signed char* codes;      // [rows, columns]
  float* absmax;           // [rows]
  unsigned* outlier_bits;  // [rows, (columns + 31) / 32], a bit an entry; null where threshold is 0
  int* outlier_count;      // [rows]; null where threshold is 0
  float threshold;
  int rows, columns;
};

/// y [batch, rows] = product x_absmax weight_absmax / 127^2 + bias, plus the marked entries of x, rounded to
/// half precision, times their columns of the weight.
struct FinishInt8Args {
  const int* product;               // [batch, rows], int8 codes times int8 codes
  const float* x_absmax;            // [batch]
  const float* weight_absmax;       // [rows]
  const float* bias;                // [rows] or null
  const void* x;                    // [batch, columns], the type of y
  const signed char* weight_codes;  // [rows, columns]
  const unsigned* outlier_bits;     // as above, or null
  const int* outlier_count;
  void* y;
  int batch, rows, columns;
  long long y_stride;  // as above
};

/// out [rows, columns] = codes (absmax / 127).
struct DequantizeInt8Args {
  const signed char* codes;
  const float* absmax;  // [rows]
  void* out;
  int rows, columns;
};

}  // namespace peft::cuda
