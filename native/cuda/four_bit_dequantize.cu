#include "four_bit.h"

// 4-bit weights into a plain matrix, or a run of its rows, and the weights that are kept in half precision
// over them.

namespace peft::cuda {

/// A thread takes the kGroup weights of one aligned group, as far as they lie in the asked range.
template <typename Out>
__device__ void dequantize(const DequantizeArgs& args) {
  PEFT_SHARED(CodeTable, table);
  if (threadIdx.x < 16) table.v[threadIdx.x] = args.weight.table[threadIdx.x];
  __syncthreads();

  const long long thread = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  const long long start = (args.first / kGroup + thread) * kGroup;
  const long long end = args.first + args.count;
  Out* const out = static_cast<Out*>(args.out);

  // Where the range begins within a group, no group of `out` is aligned either.
  const bool aligned = args.first % kGroup == 0 && reinterpret_cast<unsigned long long>(out) % 16 == 0;
  if (aligned && start + kGroup <= end) {
    const Pack<float, kGroup> weights = weight_group(args.weight, table.v, start);
    Pack<Out, kGroup> rounded;
#pragma unroll
    for (int j = 0; j < kGroup; j++) rounded.v[j] = from_float<Out>(weights.v[j]);
    *reinterpret_cast<Pack<Out, kGroup>*>(out + (start - args.first)) = rounded;
    return;
  }
  for (long long e = start < args.first ? args.first : start; e < start + kGroup && e < end; e++) {
    out[e - args.first] = from_float<Out>(weight_at(args.weight, table.v, e));
  }
}

template <typename Out>
__device__ void put_outliers(const PutOutliersArgs& args) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= args.outliers) return;
  const long long at = args.index[i] - args.first;
  if (at < 0 || at >= args.count) return;
  static_cast<Out*>(args.out)[at] = from_float<Out>(to_float(args.value[i]));
}

}  // namespace peft::cuda

PEFT_KERNEL(dequantize_f32, DequantizeArgs) { peft::cuda::dequantize<float>(args); }
PEFT_KERNEL(dequantize_f16, DequantizeArgs) { peft::cuda::dequantize<peft::cuda::Half>(args); }
PEFT_KERNEL(dequantize_bf16, DequantizeArgs) { peft::cuda::dequantize<peft::cuda::Bfloat16>(args); }

PEFT_KERNEL(put_outliers_f32, PutOutliersArgs) { peft::cuda::put_outliers<float>(args); }
PEFT_KERNEL(put_outliers_f16, PutOutliersArgs) { peft::cuda::put_outliers<peft::cuda::Half>(args); }
PEFT_KERNEL(put_outliers_bf16, PutOutliersArgs) { peft::cuda::put_outliers<peft::cuda::Bfloat16>(args); }
