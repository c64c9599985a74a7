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
/// Rows of a block where each warp takes one.
constexpr int kWarpRows = kThreads / 32;
/// The widest attention head that there is a kernel for.
constexpr int kMaxHeadSize = 128;
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

/// Which texts the tokens of a packed batch are of.
struct PackedView {
  const int* texts;    // [tokens]
  const int* offsets;  // [texts + 1]
  int tokens;
};

/// kernels/dropout.h as a kernel takes it; a threshold of 0 and a scale of 1 where dropout is off.
struct DropoutView {
  unsigned threshold;
  float scale;
  unsigned key0, key1, step, site, first_token;
};

/// A number for each token and head.
struct HeadNumbers {
  float* data;
  long long token_stride, head_stride;
};

/// context [tokens, d] = softmax(scale q k') v in each text and head; d = heads * size.
struct AttentionArgs {
  const void* qkv;  // [tokens, 3 d]
  void* context;
  HeadNumbers lse;
  PackedView packed;
  DropoutView dropout;
  float scale;
  int heads, size;
};

/// dqkv [tokens, 3 d] from dcontext [tokens, d]; delta is written by the kernel of the queries and read by
/// that of keys and values.
struct AttentionBackwardArgs {
  const void* dcontext;
  const void* qkv;
  void* dqkv;
  HeadNumbers lse, delta;
  PackedView packed;
  DropoutView dropout;
  float scale;
  int heads, size;
};

/// out [rows, columns] = dropout(layer_norm(word[ids] + type + position[positions])).
struct EmbedArgs {
  const int* ids;        // [rows]
  const int* positions;  // [rows]
  const float* word;
  const float* position;
  const float* type;  // [columns]
  const float* gamma;
  const float* beta;
  float* out;
  DropoutView dropout;
  float eps;
  int rows, columns;
};

/// y = dropout(y + bias) + residual in place, out = layer_norm(y).
struct ResidualLayerNormArgs {
  float* y;
  const float* bias;
  const float* residual;
  const float* gamma;
  const float* beta;
  float* out;
  float* mean;  // [rows]
  float* rstd;  // [rows]
  DropoutView dropout;
  float eps;
  int rows, columns;
};

/// out = (y - mean) rstd gamma + beta.
struct LayerNormApplyArgs {
  const float* y;
  const float* mean;
  const float* rstd;
  const float* gamma;
  const float* beta;
  float* out;
  int rows, columns;
};

/// dy = the gradient with respect to y, dmasked = dropout(dy).
struct LayerNormBackwardArgs {
  const float* dout;
  const float* y;
  const float* mean;
  const float* rstd;
  const float* gamma;
  float* dy;
  float* dmasked;  // null where dropout is off
  DropoutView dropout;
  int rows, columns;
};

/// out = dropout(x), or added to it.
struct DropoutArgs {
  const float* x;
  float* out;
  DropoutView dropout;
  bool accumulate;
  int rows, columns;
};

/// u += bias in place, out = gelu(u).
struct BiasGeluArgs {
  float* u;
  const float* bias;  // [columns]
  float* out;
  int columns;
};

/// dout *= gelu'(u) in place, out = gelu(u).
struct GeluBackwardArgs {
  float* dout;
  const float* u;
  float* out;  // or null
  int columns;
};

/// out [texts, columns] = the mean of the rows of each text of x [tokens, columns].
struct MeanPoolArgs {
  const float* x;
  PackedView packed;
  float* out;
  int columns;
};

/// dx [tokens, columns] = dout of the text / its length.
struct MeanPoolBackwardArgs {
  const float* dout;
  PackedView packed;
  float* dx;
  int columns;
};

}  // namespace peft::cuda
