#include "device.h"

// GELU, the exact one by the error function. A block takes kThreads columns of a row.

namespace peft::cuda {

__device__ inline float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }

__device__ inline void bias_gelu(const BiasGeluArgs& args, int column, long long entry) {
  const float u = args.u[entry] + args.bias[column];
  args.u[entry] = u;
  args.out[entry] = u * normal_cdf(u);
}

__device__ inline void gelu_backward(const GeluBackwardArgs& args, int, long long entry) {
  const float u = args.u[entry], cdf = normal_cdf(u);
  args.dout[entry] *= cdf + u * expf(-0.5f * u * u) * 0.39894228f;  // 1 / sqrt(2 pi)
  if (args.out != nullptr) args.out[entry] = u * cdf;
}

}  // namespace peft::cuda

#define PEFT_ENTRIES(kernel, name, Args)                                                        \
  PEFT_KERNEL(kernel, Args) {                                                                   \
    const int column = static_cast<int>(blockIdx.y * peft::cuda::kThreads + threadIdx.x);       \
    if (column >= args.columns) return;                                                         \
    peft::cuda::name(args, column, static_cast<long long>(blockIdx.x) * args.columns + column); \
  }
PEFT_ENTRIES(bias_gelu_f32, bias_gelu, BiasGeluArgs)
PEFT_ENTRIES(gelu_backward_f32, gelu_backward, GeluBackwardArgs)
