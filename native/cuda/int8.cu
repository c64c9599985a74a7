#include "device.h"

// The passes around an int8 matrix product: each row of x to int8, with its large entries marked and left
// out, and the int32 product back to floats, with those entries put in through half precision.

namespace peft::cuda {

constexpr int kInt8Warps = kThreads / 32;

struct QuantizeShared {
  float absmax[kInt8Warps];
  int outliers[kInt8Warps];
};

/// False for NaN, which has to reach absmax and so the whole row of y.
__device__ inline bool is_outlier(float x, float threshold) {
  return threshold > 0.0f && fabsf(x) >= threshold;
}

__device__ inline signed char int8_code(float x, float inverse) {
  const float scaled = x * inverse;
  if (scaled != scaled) return 0;
  return static_cast<signed char>(fminf(fmaxf(rintf(scaled), -127.0f), 127.0f));
}

/// A block takes a row.
template <typename T>
__device__ void quantize_rows(const QuantizeRowsArgs& args) {
  PEFT_SHARED(QuantizeShared, shared);
  const long long row = blockIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const T* const x = static_cast<const T*>(args.x) + row * args.columns;

  float absmax = 0.0f;
  for (int c = threadIdx.x; c < args.columns; c += kThreads) {
    const float value = to_float(x[c]);
    if (!is_outlier(value, args.threshold)) absmax = larger(absmax, fabsf(value));
  }
  for (int width = 16; width > 0; width /= 2) {
    absmax = larger(absmax, __shfl_xor_sync(kWholeWarp, absmax, width));
  }
  if (lane == 0) shared.absmax[warp] = absmax;
  __syncthreads();
  for (int w = 0; w < kInt8Warps; w++) absmax = larger(absmax, shared.absmax[w]);
  if (threadIdx.x == 0) args.absmax[row] = absmax;

  // Finite for the smallest denormal too.
  const float inverse = absmax == 0.0f ? 0.0f : fminf(__fdiv_rn(127.0f, absmax), 3.402823466e38f);
  const int words = (args.columns + 31) / 32;
  int outliers = 0;
  for (int word = warp; word < words; word += kInt8Warps) {
    const int c = word * 32 + lane;
    const bool inside = c < args.columns;
    const float value = inside ? to_float(x[c]) : 0.0f;
    const bool apart = is_outlier(value, args.threshold);
    if (inside) args.codes[row * args.columns + c] = apart ? 0 : int8_code(value, inverse);
    const unsigned bits = __ballot_sync(kWholeWarp, apart);
    if (lane == 0 && args.outlier_bits != nullptr) args.outlier_bits[row * words + word] = bits;
    outliers += __popc(bits);
  }
  if (args.outlier_count == nullptr) return;
  if (lane == 0) shared.outliers[warp] = outliers;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int all = 0;
  for (int w = 0; w < kInt8Warps; w++) all += shared.outliers[w];
  args.outlier_count[row] = all;
}

/// A finite value beyond half precision stays as it is rather than become infinite.
__device__ inline float through_half(float x) {
  return fabsf(x) < 65520.0f ? half_bits_to_float(float_to_half_bits(x)) : x;
}

/// A block takes kThreads columns of a row of y.
template <typename T>
__device__ void finish_int8(const FinishInt8Args& args) {
  const long long t = blockIdx.x;
  const int row = blockIdx.y * kThreads + threadIdx.x;
  if (row >= args.rows) return;
  const float weight_absmax = args.weight_absmax[row];
  const float scale = __fmul_rn(args.x_absmax[t], weight_absmax);
  float y = static_cast<float>(args.product[t * args.rows + row]) * scale * (1.0f / (127.0f * 127.0f));

  if (args.outlier_count != nullptr && args.outlier_count[t] > 0) {
    const T* const x = static_cast<const T*>(args.x) + t * args.columns;
    const signed char* const codes = args.weight_codes + static_cast<long long>(row) * args.columns;
    const int words = (args.columns + 31) / 32;
    float sum = 0.0f;
    for (int word = 0; word < words; word++) {
      for (unsigned bits = args.outlier_bits[t * words + word]; bits != 0; bits &= bits - 1) {
        const int c = word * 32 + __ffs(static_cast<int>(bits)) - 1;
        sum += through_half(to_float(x[c])) * static_cast<float>(codes[c]);
      }
    }
    y += sum * __fdiv_rn(weight_absmax, 127.0f);
  }
  if (args.bias != nullptr) y += args.bias[row];
  static_cast<T*>(args.y)[t * args.y_stride + row] = from_float<T>(y);
}

/// A block takes a row.
template <typename Out>
__device__ void dequantize_int8(const DequantizeInt8Args& args) {
  const long long start = static_cast<long long>(blockIdx.x) * args.columns;
  const float scale = __fdiv_rn(args.absmax[blockIdx.x], 127.0f);
  for (int c = threadIdx.x; c < args.columns; c += kThreads) {
    const float code = static_cast<float>(args.codes[start + c]);
    static_cast<Out*>(args.out)[start + c] = from_float<Out>(__fmul_rn(code, scale));
  }
}

}  // namespace peft::cuda

#define PEFT_INT8(suffix, T)                                                                    \
  PEFT_KERNEL(quantize_rows_##suffix, QuantizeRowsArgs) { peft::cuda::quantize_rows<T>(args); } \
  PEFT_KERNEL(finish_int8_##suffix, FinishInt8Args) { peft::cuda::finish_int8<T>(args); }       \
  PEFT_KERNEL(dequantize_int8_##suffix, DequantizeInt8Args) { peft::cuda::dequantize_int8<T>(args); }
PEFT_INT8(f32, float)
PEFT_INT8(f16, peft::cuda::Half)
PEFT_INT8(bf16, peft::cuda::Bfloat16)
