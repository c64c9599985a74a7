#include "attention_tile.h"

// Flash attention forward (Dao et al., "FlashAttention", 2022): scores stay on the chip, and a running
// maximum and sum stand for the whole row of the softmax.

namespace peft::cuda {

template <int Size>
struct AttentionShared {
  typename Tile<Size>::Rows query, key, value;
  typename Tile<Size>::Pairs weight;
};

/// A block takes a tile of queries of one head.
template <typename T, int Size>
__device__ void attention(const AttentionArgs& args) {
  using Tile = Tile<Size>;
  PEFT_SHARED(AttentionShared<Size>, shared);
  const int first = blockIdx.x * Tile::kRows, head = blockIdx.y;
  const int row = threadIdx.x / Tile::kLanes, lane = threadIdx.x % Tile::kLanes;
  const int token = first + row;
  const T* const qkv = static_cast<const T*>(args.qkv);
  const auto part = [&](int i) { return head_of_qkv(qkv, i, head, args.heads, args.size); };
  const Span text = text_of(args.packed, token), texts = texts_of_tile<Size>(args.packed, first);
  load_tile<Size, false>(part(0), first, args.packed.tokens, shared.query);

  float highest = -__uint_as_float(0x7f800000u), sum = 0.0f;  // from minus infinity on
  Pack4 out[Tile::kPacks] = {};
  for (int key0 = texts.begin; key0 < texts.end; key0 += Tile::kRows) {
    __syncthreads();  // every warp is done with the tile before
    load_tile<Size, true>(part(1), key0, texts.end, shared.key);
    load_tile<Size, false>(part(2), key0, texts.end, shared.value);
    __syncthreads();
    const Span seen = within_tile<Size>(text, key0);
    if (__ballot_sync(kWholeWarp, seen.begin < seen.end) == 0) continue;

    float score[Tile::kKeys], keep[Tile::kKeys];
    dot_keys<Size>(shared.query, shared.key, row, lane, score);
    const int key = lane * Tile::kKeys;
    float before = highest;
#pragma unroll
    for (int i = 0; i < Tile::kKeys; i++) {
      score[i] *= args.scale;
      if (key + i >= seen.begin && key + i < seen.end) highest = fmaxf(highest, score[i]);
    }
#pragma unroll
    for (int width = Tile::kLanes / 2; width > 0; width /= 2) {
      highest = fmaxf(highest, __shfl_xor_sync(kWholeWarp, highest, width));
    }
    const float shrink = before == highest ? 1.0f : expf(before - highest);
    sum *= shrink;
    keep_keys(args.dropout, head, token, key0 + key - text.begin, keep);
#pragma unroll
    for (int i = 0; i < Tile::kKeys; i++) {
      const bool inside = key + i >= seen.begin && key + i < seen.end;
      const float weight = inside ? expf(score[i] - highest) : 0.0f;
      sum += weight;
      shared.weight.v[row][key + i] = weight * keep[i];
    }
    __syncwarp();  // a row's weights are its own lanes'
#pragma unroll
    for (int p = 0; p < Tile::kPacks; p++) {
#pragma unroll
      for (int j = 0; j < 4; j++) out[p].v[j] *= shrink;
    }
#pragma unroll 4
    for (int k = seen.begin; k < seen.end; k++) {
      add_row<Size>(shared.weight.v[row][k], shared.value.v[k], lane, out);
    }
  }

  sum = sum_lanes<Size>(sum);
  if (token >= args.packed.tokens) return;
  store_row<Size>(out, 1.0f / sum, token, lane,
                  head_of(static_cast<T*>(args.context), head, args.heads, args.size));
  if (lane == 0)
    args.lse.data[token * args.lse.token_stride + head * args.lse.head_stride] = highest + logf(sum);
}

}  // namespace peft::cuda

PEFT_KERNEL(attention_32_f32, AttentionArgs) { peft::cuda::attention<float, 32>(args); }
PEFT_KERNEL(attention_64_f32, AttentionArgs) { peft::cuda::attention<float, 64>(args); }
PEFT_KERNEL(attention_128_f32, AttentionArgs) { peft::cuda::attention<float, 128>(args); }
