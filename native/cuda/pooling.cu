#include "device.h"

// The mean of each text's rows. A block takes kThreads columns: of a text, or of a token on the way back.

namespace peft::cuda {

__device__ inline int column_of_thread() { return static_cast<int>(blockIdx.y * kThreads + threadIdx.x); }

/// Rows are added from the first to the last, so that the sum has the same bits each time.
__device__ inline void mean_pool(const MeanPoolArgs& args) {
  const int text = blockIdx.x, column = column_of_thread();
  if (column >= args.columns) return;
  const int begin = args.packed.offsets[text], end = args.packed.offsets[text + 1];
  float sum = 0.0f;
#pragma unroll 4
  for (int t = begin; t < end; t++) sum += args.x[static_cast<long long>(t) * args.columns + column];
  args.out[static_cast<long long>(text) * args.columns + column] =
      __fdiv_rn(sum, static_cast<float>(end - begin));
}

__device__ inline void mean_pool_backward(const MeanPoolBackwardArgs& args) {
  const int token = blockIdx.x, column = column_of_thread();
  if (column >= args.columns) return;
  const int text = args.packed.texts[token];
  const int length = args.packed.offsets[text + 1] - args.packed.offsets[text];
  args.dx[static_cast<long long>(token) * args.columns + column] =
      __fdiv_rn(args.dout[static_cast<long long>(text) * args.columns + column], static_cast<float>(length));
}

}  // namespace peft::cuda

PEFT_KERNEL(mean_pool_f32, MeanPoolArgs) { peft::cuda::mean_pool(args); }
PEFT_KERNEL(mean_pool_backward_f32, MeanPoolBackwardArgs) { peft::cuda::mean_pool_backward(args); }
