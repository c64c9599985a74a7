#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/simd.h"

// The passes around an int8 product: activations to 8 bits with one scale a row, 32-bit sums back to fp32.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

typedef int8_t ByteVec __attribute__((vector_size(kLanes)));
constexpr float kRound =
    12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits

inline Vec magnitude(Vec x) { return (Vec)((IntVec)x & 0x7fffffff); }

/// One row: entries that reach the threshold become 0. Returns how many they are.
int64_t quantize_row(const float* x, int64_t k, float threshold, int8_t* q, float* scale) {
  const int64_t whole = k / kLanes * kLanes;
  const float limit = threshold > 0 ? threshold : __builtin_inff();
  Vec largest{};
  IntVec others{};
  for (int64_t j = 0; j < whole; j += kLanes) {
    const Vec m = magnitude(load(x + j));
    const IntVec beyond = m >= limit;
    others -= beyond;
    largest = max(largest, (Vec)((IntVec)m & ~beyond));
  }
  float absmax = maximum(largest);
  int64_t count = 0;
  for (int i = 0; i < kLanes; i++) count += others[i];
  for (int64_t j = whole; j < k; j++) {
    const float m = __builtin_fabsf(x[j]);
    if (m >= limit) {
      count++;
    } else {
      absmax = m > absmax ? m : absmax;
    }
  }
  *scale = absmax / 127;
  const float inverse = absmax > 0 ? 127 / absmax : 0;
  for (int64_t j = 0; j < whole; j += kLanes) {
    const Vec v = load(x + j);
    const Vec kept = (Vec)((IntVec)v & (magnitude(v) < limit));
    const IntVec rounded = (IntVec)(kept * inverse + kRound) - 0x4b400000;
    const ByteVec bytes = __builtin_convertvector(rounded, ByteVec);
    __builtin_memcpy(q + j, &bytes, sizeof bytes);
  }
  for (int64_t j = whole; j < k; j++) {
    q[j] = __builtin_fabsf(x[j]) < limit ? (int8_t)__builtin_rintf(x[j] * inverse) : (int8_t)0;
  }
  return count;
}

}  // namespace

void quantize_rows_int8(const float* x, int64_t ldx, int64_t rows, int64_t k, float threshold, int8_t* q,
                        float* scale, int32_t* outliers) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; t++) {
    outliers[t] = (int32_t)quantize_row(x + t * ldx, k, threshold, q + t * k, scale + t);
  }
}

void dequantize_sums(const int32_t* sums, int64_t rows, int64_t n, const float* row_scale,
                     const float* column_scale, const float* bias, float* out, int64_t ldo) {
  const int64_t whole = n / kLanes * kLanes;
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; t++) {
    const int32_t* from = sums + t * n;
    float* to = out + t * ldo;
    for (int64_t j = 0; j < whole; j += kLanes) {
      IntVec s;
      __builtin_memcpy(&s, from + j, sizeof s);
      Vec v = __builtin_convertvector(s, Vec) * row_scale[t] * load(column_scale + j);
      if (bias != nullptr) v += load(bias + j);
      store(to + j, v);
    }
    for (int64_t j = whole; j < n; j++) {
      to[j] = (float)from[j] * row_scale[t] * column_scale[j] + (bias != nullptr ? bias[j] : 0.0f);
    }
  }
}

void add_outliers(const int32_t* begin, const int32_t* column, const float* value, const float* columns,
                  int64_t rows, int64_t n, float* out, int64_t ldo) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; t++) {
    float* to = out + t * ldo;
    for (int32_t i = begin[t]; i < begin[t + 1]; i++) {
      const float* w = columns + (int64_t)column[i] * n;
      const float v = value[i];
      for (int64_t j = 0; j < n; j++) to[j] += v * w[j];
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
