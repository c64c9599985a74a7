#pragma once

#include <stdlib.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kernels/cpu/table.h"

// What the kernel files of one instruction set share.
namespace peft::cpu::PEFT_KERNEL_NS {

constexpr int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

#if defined(_OPENMP)
static inline int64_t thread_count() { return omp_get_num_threads(); }
static inline int64_t thread_number() { return omp_get_thread_num(); }
static inline int64_t most_threads() { return omp_get_max_threads(); }
#else
static inline int64_t thread_count() { return 1; }
static inline int64_t thread_number() { return 0; }
static inline int64_t most_threads() { return 1; }
#endif

/// Calls work.operator()<ROWS>() for the ROWS that `rows` is, 1 to MOST: the height of a block of
/// accumulators is fixed when it is compiled.
template <int MOST, typename Work>
static inline void with_rows(int64_t rows, const Work& work) {
  if (rows == MOST) {
    work.template operator()<MOST>();
  } else if constexpr (MOST > 1) {
    with_rows<MOST - 1>(rows, work);
  }
}

/// A 64-byte aligned buffer of floats for one thread; aborts the process only where malloc itself fails.
struct Scratch {
  explicit Scratch(int64_t floats) : data((float*)aligned_alloc(64, (size_t)padded(floats, 16) * 4)) {
    if (data == nullptr) abort();
  }
  ~Scratch() { free(data); }
  Scratch(const Scratch&) = delete;
  float* data;
};

void embed(const int32_t* ids, const int32_t* positions, int64_t tokens, int64_t d, const float* word,
           const float* position, const float* type, const float* gamma, const float* beta, float eps,
           const Dropout& dropout, float* out);
void residual_layer_norm(float* y, const float* bias, const float* residual, int64_t tokens, int64_t d,
                         const float* gamma, const float* beta, float eps, const Dropout& dropout, float* out,
                         float* mean, float* rstd);
void layer_norm_apply(const float* y, const float* mean, const float* rstd, int64_t tokens, int64_t d,
                      const float* gamma, const float* beta, float* out);
void layer_norm_backward(const float* dout, const float* y, const float* mean, const float* rstd,
                         int64_t tokens, int64_t d, const float* gamma, const Dropout& dropout, float* dy,
                         float* dmasked);
void bias_gelu(float* u, const float* bias, int64_t tokens, int64_t d, float* out);
void gelu_backward(float* dout, const float* u, int64_t tokens, int64_t d, float* out);
void dropout(const float* x, int64_t tokens, int64_t d, const Dropout& dropout, bool accumulate, float* out);
void attention(const float* qkv, Packed packed, int64_t d, int64_t heads, const Dropout& dropout,
               float* context, float* lse);
void attention_backward(const float* dcontext, const float* qkv, const float* lse, Packed packed, int64_t d,
                        int64_t heads, const Dropout& dropout, float* dqkv);
void mean_pool(const float* x, Packed packed, int64_t d, float* out);
void mean_pool_backward(const float* dout, Packed packed, int64_t d, float* dx);
int64_t packed_floats(int64_t k_size, int64_t n_size);
void pack(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
          float* packed);
void unpack(const float* packed, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
            float* b);
void product_packed(const float* a, int64_t lda, const float* packed, int64_t rows, int64_t k_size,
                    int64_t n_size, const Tail& tail, float* c, int64_t ldc);
int64_t packed_floats_paired(int64_t k_size, int64_t n_size);
void pack_paired(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
                 float* packed);
void product_packed_paired(const float* a, int64_t lda, const float* packed, int64_t rows, int64_t k_size,
                           int64_t n_size, const Tail& tail, float* c, int64_t ldc);
int64_t thin_floats(int64_t k_size, int64_t n_size);
void pack_thin(const float* b, int64_t row_stride, int64_t column_stride, int64_t k_size, int64_t n_size,
               float scale, float* packed);
void product_thin(const float* a, int64_t lda, const ThinPart* parts, int64_t count, int64_t k_size, float* c,
                  int64_t ldc);
void outer_sum(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t m, int64_t n,
               float scale, float* out, int64_t out_row, int64_t out_column);
int64_t stored_rows(int64_t n);
void store_half(const uint16_t* w, int64_t n, int64_t k, uint16_t* stored);
void store_four_bit(const uint8_t* codes, int64_t n, int64_t k, int64_t first_row, uint8_t* stored);
void expand_stored(const StoredWeight& w, float* out);
void product_stored(const float* a, int64_t lda, const StoredWeight& w, int64_t rows, const Tail& tail,
                    float* c, int64_t ldc);
void product_stored_transposed(const float* a, int64_t lda, const StoredWeight& w, int64_t rows,
                               const Tail& tail, float* c, int64_t ldc);
void product_stored_paired(const float* a, int64_t lda, const StoredWeight& w, int64_t rows, const Tail& tail,
                           float* c, int64_t ldc);
void product_stored_transposed_paired(const float* a, int64_t lda, const StoredWeight& w, int64_t rows,
                                      const Tail& tail, float* c, int64_t ldc);
int64_t int8_row_bytes(int64_t k);
void store_int8(const int8_t* codes, int64_t n, int64_t k, uint8_t* stored);
void quantize_rows_int8(const float* x, int64_t ldx, int64_t rows, int64_t k, float threshold, int8_t* q,
                        float* scale, int32_t* sum, int32_t* outliers);
void product_int8(const Int8Rows& a, const StoredWeight& w, const Tail& tail, float* c, int64_t ldc);
#if defined(__AVX512F__)
bool has_fast_bfloat16();
int64_t bfloat16_row(int64_t k);
void pack_bfloat16(const float* w, int64_t row_stride, int64_t column_stride, int64_t n, int64_t k,
                   uint16_t* packed);
void unpack_bfloat16(const uint16_t* packed, int64_t n, int64_t k, float* w);
void round_rows_bfloat16(const float* x, int64_t ldx, int64_t rows, int64_t k, uint16_t* out);
void product_bfloat16(const uint16_t* a, const uint16_t* packed, int64_t rows, int64_t k, int64_t n,
                      const Tail& tail, float* c, int64_t ldc);
#endif
void find_outliers(const float* x, int64_t ldx, int64_t rows, int64_t k, float threshold,
                   const int32_t* begin, int32_t* column, float* value);
void add_outliers(const int32_t* begin, const int32_t* column, const float* value, const float* columns,
                  int64_t rows, int64_t n, float* out, int64_t ldo);

}  // namespace peft::cpu::PEFT_KERNEL_NS
