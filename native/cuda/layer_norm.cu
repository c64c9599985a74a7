#include "philox.h"

// LayerNorm and what stands around it, a warp a row. A lane comes back to the columns that it wrote itself,
// so that it waits for other lanes only where it needs their sums.

namespace peft::cuda {

__device__ inline float sum_warp(float value) {
#pragma unroll
  for (int width = 16; width > 0; width /= 2) value += __shfl_xor_sync(kWholeWarp, value, width);
  return value;
}

struct Moments {
  float mean, rstd;
};

/// Of the row y; `sum` is that of the lane's columns. Two passes: the variance of differences from the mean
/// loses no digits.
__device__ inline Moments moments(const float* y, int columns, int lane, float sum, float eps) {
  const float mean = sum_warp(sum) / columns;
  float squares = 0.0f;
  for_columns(columns, lane, [&](int c) { squares += (y[c] - mean) * (y[c] - mean); });
  return {mean, __fdiv_rn(1.0f, sqrtf(sum_warp(squares) / columns + eps))};
}

__device__ inline void embed(const EmbedArgs& args, int row, int lane) {
  const long long width = args.columns;
  const float* const word = args.word + args.ids[row] * width;
  const float* const position = args.position + args.positions[row] * width;
  float* const out = args.out + row * width;
  float sum = 0.0f;
  for_columns(args.columns, lane, [&](int c) { sum += out[c] = word[c] + args.type[c] + position[c]; });
  const Moments m = moments(out, args.columns, lane, sum, args.eps);
  for_dropped_columns(args.dropout, row, args.columns, lane, [&](int c, float keep) {
    out[c] = ((out[c] - m.mean) * m.rstd * args.gamma[c] + args.beta[c]) * keep;
  });
}

__device__ inline void residual_layer_norm(const ResidualLayerNormArgs& args, int row, int lane) {
  const long long start = static_cast<long long>(row) * args.columns;
  float *const y = args.y + start, *const out = args.out + start;
  const float* const residual = args.residual + start;
  float sum = 0.0f;
  for_dropped_columns(args.dropout, row, args.columns, lane,
                      [&](int c, float keep) { sum += y[c] = (y[c] + args.bias[c]) * keep + residual[c]; });
  const Moments m = moments(y, args.columns, lane, sum, args.eps);
  for_columns(args.columns, lane,
              [&](int c) { out[c] = (y[c] - m.mean) * m.rstd * args.gamma[c] + args.beta[c]; });
  if (lane != 0) return;
  args.mean[row] = m.mean;
  args.rstd[row] = m.rstd;
}

__device__ inline void layer_norm_apply(const LayerNormApplyArgs& args, int row, int lane) {
  const long long start = static_cast<long long>(row) * args.columns;
  const float* const y = args.y + start;
  const float mean = args.mean[row], rstd = args.rstd[row];
  for_columns(args.columns, lane,
              [&](int c) { args.out[start + c] = (y[c] - mean) * rstd * args.gamma[c] + args.beta[c]; });
}

__device__ inline void layer_norm_backward(const LayerNormBackwardArgs& args, int row, int lane) {
  const long long start = static_cast<long long>(row) * args.columns;
  const float *const dout = args.dout + start, *const y = args.y + start;
  const float mean = args.mean[row], rstd = args.rstd[row];
  float by_one = 0.0f, by_normed = 0.0f;
  for_columns(args.columns, lane, [&](int c) {
    const float g = dout[c] * args.gamma[c];
    by_one += g;
    by_normed += g * ((y[c] - mean) * rstd);
  });
  by_one = sum_warp(by_one) / args.columns;
  by_normed = sum_warp(by_normed) / args.columns;
  for_dropped_columns(args.dropout, row, args.columns, lane, [&](int c, float keep) {
    const float dy = (dout[c] * args.gamma[c] - by_one - (y[c] - mean) * rstd * by_normed) * rstd;
    args.dy[start + c] = dy;
    if (args.dmasked != nullptr) args.dmasked[start + c] = dy * keep;
  });
}

__device__ inline void dropout(const DropoutArgs& args, int row, int lane) {
  const long long start = static_cast<long long>(row) * args.columns;
  for_dropped_columns(args.dropout, row, args.columns, lane, [&](int c, float keep) {
    const float value = args.x[start + c] * keep;
    args.out[start + c] = args.accumulate ? args.out[start + c] + value : value;
  });
}

}  // namespace peft::cuda

#define PEFT_ROWS(kernel, name, Args)                                                        \
  PEFT_KERNEL(kernel, Args) {                                                                \
    const int row = static_cast<int>(blockIdx.x * peft::cuda::kWarpRows + threadIdx.x / 32); \
    if (row < args.rows) peft::cuda::name(args, row, static_cast<int>(threadIdx.x % 32));    \
  }
PEFT_ROWS(embed_f32, embed, EmbedArgs)
PEFT_ROWS(residual_layer_norm_f32, residual_layer_norm, ResidualLayerNormArgs)
PEFT_ROWS(layer_norm_apply_f32, layer_norm_apply, LayerNormApplyArgs)
PEFT_ROWS(layer_norm_backward_f32, layer_norm_backward, LayerNormBackwardArgs)
PEFT_ROWS(dropout_f32, dropout, DropoutArgs)
