#include "four_bit.h"

// y = x W' + bias for a few rows of x: a step that only reads W is bound by the bytes of W, so W is decoded
// in registers and never written anywhere.

namespace peft::cuda {

constexpr int kWarps = kThreads / 32;
constexpr int kRowsPerWarp = kLinearRows / kWarps;
static_assert(kLinearTile == 32 * kGroup && kLinearTile == kThreads && kRowsPerWarp * kLinearBatch <= 32);

template <int Batch>
struct LinearShared {
  CodeTable table;
  alignas(16) float x[Batch][kLinearTile];
};

/// Weights k to k + 7 of a row; 0 beyond its end.
__device__ inline Pack<float, kGroup> row_group(const FourBitLinearArgs& args, const float* table, int row,
                                                int k) {
  const long long start = static_cast<long long>(row) * args.columns + k;
  // Only then does every group of every row begin at a multiple of 8.
  if (args.columns % kGroup == 0 && row < args.rows && k < args.columns) {
    return weight_group(args.weight, table, start);
  }
  Pack<float, kGroup> group = {};
#pragma unroll 1
  for (int j = 0; j < kGroup; j++) {
    const bool inside = row < args.rows && k + j < args.columns;
    const float weight = inside ? weight_at(args.weight, table, start + j) : 0.0f;
    // Every index is known to the compiler, so that the group stays in registers although the loop is not
    // unrolled.
#pragma unroll
    for (int i = 0; i < kGroup; i++) group.v[i] = i == j ? weight : group.v[i];
  }
  return group;
}

/// A block takes kLinearRows rows of W, a warp kRowsPerWarp of them, a lane kGroup columns of each tile.
template <typename T, int Batch>
__device__ void four_bit_linear(const FourBitLinearArgs& args) {
  PEFT_SHARED(LinearShared<Batch>, shared);
  const int lane = threadIdx.x % 32;
  const int first_row = (blockIdx.x * kWarps + threadIdx.x / 32) * kRowsPerWarp;
  const T* const x = static_cast<const T*>(args.x);
  if (threadIdx.x < 16) shared.table.v[threadIdx.x] = args.weight.table[threadIdx.x];

  float sum[kRowsPerWarp * Batch] = {};
  for (int tile = 0; tile < args.columns; tile += kLinearTile) {
    __syncthreads();  // every warp is done with the tile before
    const int column = tile + threadIdx.x;
#pragma unroll 4
    for (int t = 0; t < Batch; t++) {
      const bool inside = t < args.batch && column < args.columns;
      shared.x[t][threadIdx.x] =
          inside ? to_float(x[static_cast<long long>(t) * args.columns + column]) : 0.0f;
    }
    __syncthreads();

    Pack<float, kGroup> weights[kRowsPerWarp];
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; r++) {
      weights[r] = row_group(args, shared.table.v, first_row + r, tile + lane * kGroup);
    }
#pragma unroll
    for (int t = 0; t < Batch; t++) {
      const Pack<float, kGroup> input =
          *reinterpret_cast<const Pack<float, kGroup>*>(&shared.x[t][lane * kGroup]);
#pragma unroll
      for (int r = 0; r < kRowsPerWarp; r++) {
#pragma unroll
        for (int j = 0; j < kGroup; j++) sum[r * Batch + t] += weights[r].v[j] * input.v[j];
      }
    }
  }

  // An outlier stands in place of its code: add what it differs by.
  if (args.outlier_rows != nullptr) {
#pragma unroll 1
    for (int r = 0; r < kRowsPerWarp && first_row + r < args.rows; r++) {
      const int row = first_row + r;
      const int end = args.outlier_rows[row + 1];
#pragma unroll 1
      for (int i = args.outlier_rows[row] + lane; i < end; i += 32) {
        const long long element = args.outlier_index[i];
        const float difference =
            to_float(args.outlier_value[i]) - weight_at(args.weight, shared.table.v, element);
        const T* input = x + (element - static_cast<long long>(row) * args.columns);
#pragma unroll
        for (int t = 0; t < Batch; t++) {
          if (t >= args.batch) break;
          const float term = difference * to_float(*input);
          input += args.columns;
#pragma unroll
          for (int each = 0; each < kRowsPerWarp; each++) sum[each * Batch + t] += each == r ? term : 0.0f;
        }
      }
    }
  }

  constexpr int kLanesPerSum = 32 / (kRowsPerWarp * Batch);
  const float total = warp_sums<kRowsPerWarp * Batch>(sum, lane);
  const int row = first_row + lane / kLanesPerSum / Batch;
  const int t = lane / kLanesPerSum % Batch;
  if (lane % kLanesPerSum != 0 || row >= args.rows || t >= args.batch) return;
  const float bias = args.bias != nullptr ? args.bias[row] : 0.0f;
  static_cast<T*>(args.y)[t * args.y_stride + row] = from_float<T>(total + bias);
}

}  // namespace peft::cuda

#define PEFT_FOUR_BIT_LINEAR(suffix, T)                                                                   \
  PEFT_KERNEL(four_bit_linear_1_##suffix, FourBitLinearArgs) { peft::cuda::four_bit_linear<T, 1>(args); } \
  PEFT_KERNEL(four_bit_linear_2_##suffix, FourBitLinearArgs) { peft::cuda::four_bit_linear<T, 2>(args); } \
  PEFT_KERNEL(four_bit_linear_4_##suffix, FourBitLinearArgs) { peft::cuda::four_bit_linear<T, 4>(args); } \
  PEFT_KERNEL(four_bit_linear_8_##suffix, FourBitLinearArgs) { peft::cuda::four_bit_linear<T, 8>(args); } \
  PEFT_KERNEL(four_bit_linear_16_##suffix, FourBitLinearArgs) { peft::cuda::four_bit_linear<T, 16>(args); }
PEFT_FOUR_BIT_LINEAR(f32, float)
PEFT_FOUR_BIT_LINEAR(f16, peft::cuda::Half)
PEFT_FOUR_BIT_LINEAR(bf16, peft::cuda::Bfloat16)
