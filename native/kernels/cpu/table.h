#pragma once

#include <cstdint>

#include "kernels/cpu/operands.h"
#include "kernels/cpu/stored_weight.h"
#include "kernels/dropout.h"

namespace peft {

/// Layout of packed sequences: sequence s is rows [offsets[s], offsets[s + 1]).
struct Packed {
  const int32_t* offsets;
  int64_t sequences;
};

/// The CPU kernels of one instruction set, over raw row-major fp32. Shapes: T tokens, d columns.
struct CpuKernels {
  const char* name;

  /// out[t] = dropout(layer_norm(word[ids[t]] + position[positions[t]] + type)).
  void (*embed)(const int32_t* ids, const int32_t* positions, int64_t tokens, int64_t d, const float* word,
                const float* position, const float* type, const float* gamma, const float* beta, float eps,
                const Dropout& dropout, float* out);
  /// y = dropout(y + bias) + residual, in place; out = layer_norm(y); keeps mean and 1/std of every row.
  void (*residual_layer_norm)(float* y, const float* bias, const float* residual, int64_t tokens, int64_t d,
                              const float* gamma, const float* beta, float eps, const Dropout& dropout,
                              float* out, float* mean, float* rstd);
  /// out = layer_norm(y) from kept statistics.
  void (*layer_norm_apply)(const float* y, const float* mean, const float* rstd, int64_t tokens, int64_t d,
                           const float* gamma, const float* beta, float* out);
  /// dy = gradient of layer_norm with respect to y; dmasked = the same through the dropout before the
  /// residual (null where that is not wanted). dout and dy may be the same buffer.
  void (*layer_norm_backward)(const float* dout, const float* y, const float* mean, const float* rstd,
                              int64_t tokens, int64_t d, const float* gamma, const Dropout& dropout,
                              float* dy, float* dmasked);
  /// u += bias in place; out = gelu(u).
  void (*bias_gelu)(float* u, const float* bias, int64_t tokens, int64_t d, float* out);
  /// dout *= gelu'(u) in place; with `out`, also out = gelu(u).
  void (*gelu_backward)(float* dout, const float* u, int64_t tokens, int64_t d, float* out);
  /// out = x * keep / (1 - rate); adds to out if `accumulate`.
  void (*dropout)(const float* x, int64_t tokens, int64_t d, const Dropout& dropout, bool accumulate,
                  float* out);
  /// context = softmax(q k' / sqrt(head size)) v for each sequence and head; qkv is [T, 3 * d]; lse is [T,
  /// heads].
  void (*attention)(const float* qkv, Packed packed, int64_t d, int64_t heads, const Dropout& dropout,
                    float* context, float* lse);
  void (*attention_backward)(const float* dcontext, const float* qkv, const float* lse, Packed packed,
                             int64_t d, int64_t heads, const Dropout& dropout, float* dqkv);
  /// out[s] = mean of the rows of sequence s.
  void (*mean_pool)(const float* x, Packed packed, int64_t d, float* out);
  /// dx[t] = dout[s] / length of s, for every row t of sequence s.
  void (*mean_pool_backward)(const float* dout, Packed packed, int64_t d, float* dx);
  /// Floats that pack() writes for B [k, n].
  int64_t (*packed_floats)(int64_t k, int64_t n);
  /// Packs B [k, n], whose element (i, j) is b[i * row_stride + j * column_stride].
  void (*pack)(const float* b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n,
               float* packed);
  /// The way back.
  void (*unpack)(const float* packed, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n,
                 float* b);
  /// C [rows, n] = A [rows, k] B + tail.
  void (*product_packed)(const float* a, int64_t lda, const float* packed, int64_t rows, int64_t k, int64_t n,
                         const Tail& tail, float* c, int64_t ldc);
  /// The same for a B of a few columns, in panels of its own: floats that pack_thin() writes, scale * B, and
  /// C = A B, for one B or for several, each with rows of A of its own.
  int64_t (*thin_floats)(int64_t k, int64_t n);
  void (*pack_thin)(const float* b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n,
                    float scale, float* packed);
  void (*product_thin)(const float* a, int64_t lda, const ThinPart* parts, int64_t count, int64_t k, float* c,
                       int64_t ldc);
  /// out(i, j) += scale * the sum over t of a[t, i] b[t, j], for a few columns i < m and many j < n.
  void (*outer_sum)(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t m,
                    int64_t n, float scale, float* out, int64_t out_row, int64_t out_column);
  /// Rows that a stored weight of n rows takes up.
  int64_t (*stored_rows)(int64_t n);
  /// Lays out W [n, k], 16 bits an entry.
  void (*store_half)(const uint16_t* w, int64_t n, int64_t k, uint16_t* stored);
  /// Lays out the codes of W [n, k], first of a byte in its high half, as rows first_row and on of a stored
  /// weight that is zero there.
  void (*store_four_bit)(const uint8_t* codes, int64_t n, int64_t k, int64_t first_row, uint8_t* stored);
  /// out [n, k] = W in fp32.
  void (*expand_stored)(const StoredWeight& w, float* out);
  /// C [rows, n] = A [rows, k] W' + tail.
  void (*product_stored)(const float* a, int64_t lda, const StoredWeight& w, int64_t rows, const Tail& tail,
                         float* c, int64_t ldc);
  /// C [rows, k] = A [rows, n] W + tail.
  void (*product_stored_transposed)(const float* a, int64_t lda, const StoredWeight& w, int64_t rows,
                                    const Tail& tail, float* c, int64_t ldc);
  /// Bytes of one row of k 8-bit codes, in a stored weight (of stored_rows(n) rows) and in a batch.
  int64_t (*int8_row_bytes)(int64_t k);
  void (*store_int8)(const int8_t* codes, int64_t n, int64_t k, uint8_t* stored);
  /// Rounds each row of x [rows, k] to int8 with scale absmax / 127. Entries whose magnitude reaches the
  /// threshold (0: none) become 0 and are counted in outliers [rows].
  void (*quantize_rows_int8)(const float* x, int64_t ldx, int64_t rows, int64_t k, float threshold, int8_t* q,
                             float* scale, int32_t* sum, int32_t* outliers);
  /// C [rows, n] = A W' + tail for a W of 8 bits, summed in whole numbers.
  void (*product_int8)(const Int8Rows& a, const StoredWeight& w, const Tail& tail, float* c, int64_t ldc);
  /// Entries of each row of x [rows, k] that reach the threshold, begin[t] to begin[t + 1], as were counted.
  void (*find_outliers)(const float* x, int64_t ldx, int64_t rows, int64_t k, float threshold,
                        const int32_t* begin, int32_t* column, float* value);
  /// out[t] += value[i] * columns[column[i]] for i in [begin[t], begin[t + 1]); columns is [.., n].
  void (*add_outliers)(const int32_t* begin, const int32_t* column, const float* value, const float* columns,
                       int64_t rows, int64_t n, float* out, int64_t ldo);

  /// Whether the processor multiplies bfloat16 itself; the rest of it is only for one that does.
  bool (*has_fast_bfloat16)();
  /// Numbers that a row of k takes up in bfloat16.
  int64_t (*bfloat16_row)(int64_t k);
  /// W [n, k], element (i, j) at w[i * row_stride + j * column_stride], rounded into `packed`, which has
  /// stored_rows(n) rows of bfloat16_row(k); and back, with rows of k.
  void (*pack_bfloat16)(const float* w, int64_t row_stride, int64_t column_stride, int64_t n, int64_t k,
                        uint16_t* packed);
  void (*unpack_bfloat16)(const uint16_t* packed, int64_t n, int64_t k, float* w);
  /// out [rows, bfloat16_row(k)] = x [rows, k] rounded to nearest.
  void (*round_rows_bfloat16)(const float* x, int64_t ldx, int64_t rows, int64_t k, uint16_t* out);
  /// C [rows, n] = A W' + tail, summed in fp32; A as round_rows_bfloat16 leaves it.
  void (*product_bfloat16)(const uint16_t* a, const uint16_t* packed, int64_t rows, int64_t k, int64_t n,
                           const Tail& tail, float* c, int64_t ldc);
};

namespace cpu {
namespace generic {
extern const CpuKernels kKernels, kPairedKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const CpuKernels kKernels, kPairedKernels, kVnniKernels, kPairedVnniKernels;
}
namespace avx512 {
extern const CpuKernels kKernels, kPairedKernels;
}
#endif
}  // namespace cpu

/// Set i of those that this processor runs, best first, or null after the last: `avx512`, `avx2-vnni` (AVX2
/// with the product of bytes that AVX-512 VNNI has), `avx2` and `generic`, and the same names with `-paired`,
/// whose products of fp32 are multiplied in pairs (kernels/cpu/paired_product.h).
const CpuKernels* cpu_kernel_set(int i);

/// The first of them, or what the environment variable PEFT_TRAIN_CPU_KERNELS names; throws where that is
/// none.
const CpuKernels& cpu_kernels();

}  // namespace peft
