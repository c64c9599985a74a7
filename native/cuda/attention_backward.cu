#include "attention_tile.h"

// Gradients of attention, from probabilities that are computed again. Each number has one block that adds it
// up in one order, without atomics: the same input gives the same bits.
//
//   P = exp(scale Q K' - lse), dP = mask (dO V'), delta = sum over keys of P dP, dS = scale P (dP - delta)
//   dQ = dS K, dK = dS' Q, dV = (mask P)' dO

namespace peft::cuda {

template <int Size>
struct GradientShared {
  typename Tile<Size>::Rows query, gradient, key, value;
  typename Tile<Size>::Pairs first, second;
};

__device__ inline float& entry(const HeadNumbers& numbers, int token, int head) {
  return numbers.data[token * numbers.token_stride + head * numbers.head_stride];
}

/// The lane's probabilities of a query and their gradients, 0 for keys outside its text.
template <int Size>
struct Probabilities {
  float p[Tile<Size>::kKeys], dp[Tile<Size>::kKeys], keep[Tile<Size>::kKeys];

  /// `seen` are the keys of the tile that belong to the query's text, whose first key has the number `key0`
  /// in that text.
  __device__ Probabilities(const AttentionBackwardArgs& args, GradientShared<Size>& shared, int head,
                           int token, int row, int lane, Span seen, int key0, float lse) {
    dot_keys<Size>(shared.query, shared.key, row, lane, p);
    dot_keys<Size>(shared.gradient, shared.value, row, lane, dp);
    const int key = lane * Tile<Size>::kKeys;
    keep_keys(args.dropout, head, token, key0 + key, keep);
#pragma unroll
    for (int i = 0; i < Tile<Size>::kKeys; i++) {
      const bool inside = key + i >= seen.begin && key + i < seen.end;
      p[i] = inside ? expf(p[i] * args.scale - lse) : 0.0f;
      dp[i] = inside ? dp[i] * keep[i] : 0.0f;
    }
  }
};

/// A block takes a tile of queries of one head. dS K is scale (P dP K - delta P K), so that one pass over the
/// keys gives delta and the gradient.
template <typename T, int Size>
__device__ void query_gradient(const AttentionBackwardArgs& args) {
  using Tile = Tile<Size>;
  PEFT_SHARED(GradientShared<Size>, shared);
  const int first = blockIdx.x * Tile::kRows, head = blockIdx.y;
  const int row = threadIdx.x / Tile::kLanes, lane = threadIdx.x % Tile::kLanes;
  const int token = first + row, tokens = args.packed.tokens;
  const T* const qkv = static_cast<const T*>(args.qkv);
  const auto part = [&](int i) { return head_of_qkv(qkv, i, head, args.heads, args.size); };
  const Span text = text_of(args.packed, token), texts = texts_of_tile<Size>(args.packed, first);
  const float lse = token < tokens ? entry(args.lse, token, head) : 0.0f;
  load_tile<Size, false>(part(0), first, tokens, shared.query);
  load_tile<Size, false>(head_of(static_cast<const T*>(args.dcontext), head, args.heads, args.size), first,
                         tokens, shared.gradient);

  float delta = 0.0f;
  Pack4 by_gradient[Tile::kPacks] = {}, by_weight[Tile::kPacks] = {};
  for (int key0 = texts.begin; key0 < texts.end; key0 += Tile::kRows) {
    __syncthreads();  // every warp is done with the tile before
    load_tile<Size, true>(part(1), key0, texts.end, shared.key);
    load_tile<Size, true>(part(2), key0, texts.end, shared.value);
    __syncthreads();
    const Span seen = within_tile<Size>(text, key0);
    if (__ballot_sync(kWholeWarp, seen.begin < seen.end) == 0) continue;
    const Probabilities<Size> each(args, shared, head, token, row, lane, seen, key0 - text.begin, lse);
#pragma unroll
    for (int i = 0; i < Tile::kKeys; i++) {
      const int key = lane * Tile::kKeys + i;
      delta += each.p[i] * each.dp[i];
      shared.first.v[row][key] = each.p[i] * each.dp[i];
      shared.second.v[row][key] = each.p[i];
    }
    __syncwarp();  // a row's weights are its own lanes'
#pragma unroll 2
    for (int k = seen.begin; k < seen.end; k++) {
      add_row<Size>(shared.first.v[row][k], shared.key.v[Tile::slot(k)], lane, by_gradient);
      add_row<Size>(shared.second.v[row][k], shared.key.v[Tile::slot(k)], lane, by_weight);
    }
  }

  delta = sum_lanes<Size>(delta);
  if (token >= tokens) return;
  if (lane == 0) entry(args.delta, token, head) = delta;
#pragma unroll
  for (int p = 0; p < Tile::kPacks; p++) {
#pragma unroll
    for (int j = 0; j < 4; j++) by_gradient[p].v[j] -= delta * by_weight[p].v[j];
  }
  store_row<Size>(by_gradient, args.scale, token, lane,
                  head_of_qkv(static_cast<T*>(args.dqkv), 0, head, args.heads, args.size));
}

/// A block takes a tile of keys of one head; delta is there already. Rows are queries while probabilities are
/// computed and keys while they are summed.
template <typename T, int Size>
__device__ void key_value_gradient(const AttentionBackwardArgs& args) {
  using Tile = Tile<Size>;
  PEFT_SHARED(GradientShared<Size>, shared);
  const int first = blockIdx.x * Tile::kRows, head = blockIdx.y;
  const int row = threadIdx.x / Tile::kLanes, lane = threadIdx.x % Tile::kLanes;
  const int tokens = args.packed.tokens;
  const T* const qkv = static_cast<const T*>(args.qkv);
  const auto part = [&](int i) { return head_of_qkv(qkv, i, head, args.heads, args.size); };
  const auto dcontext = head_of(static_cast<const T*>(args.dcontext), head, args.heads, args.size);
  const Span text = text_of(args.packed, first + row), texts = texts_of_tile<Size>(args.packed, first);
  load_tile<Size, true>(part(1), first, tokens, shared.key);
  load_tile<Size, true>(part(2), first, tokens, shared.value);

  Pack4 dkey[Tile::kPacks] = {}, dvalue[Tile::kPacks] = {};
  for (int query0 = texts.begin; query0 < texts.end; query0 += Tile::kRows) {
    __syncthreads();  // every warp is done with the tile before
    load_tile<Size, false>(part(0), query0, texts.end, shared.query);
    load_tile<Size, false>(dcontext, query0, texts.end, shared.gradient);
    __syncthreads();
    const int token = query0 + row;
    const Span own = text_of(args.packed, token), seen = within_tile<Size>(own, first);
    if (__ballot_sync(kWholeWarp, seen.begin < seen.end) != 0) {
      const bool inside = token < tokens;
      const float lse = inside ? entry(args.lse, token, head) : 0.0f;
      const float delta = inside ? entry(args.delta, token, head) : 0.0f;
      const Probabilities<Size> each(args, shared, head, token, row, lane, seen, first - own.begin, lse);
#pragma unroll
      for (int i = 0; i < Tile::kKeys; i++) {
        const int key = lane * Tile::kKeys + i;
        shared.first.v[row][key] = each.p[i] * (each.dp[i] - delta);
        shared.second.v[row][key] = each.p[i] * each.keep[i];
      }
    }
    __syncthreads();
    const Span seeing = within_tile<Size>(text, query0);
#pragma unroll 2
    for (int q = seeing.begin; q < seeing.end; q++) {
      add_row<Size>(shared.first.v[q][row], shared.query.v[q], lane, dkey);
      add_row<Size>(shared.second.v[q][row], shared.gradient.v[q], lane, dvalue);
    }
  }

  if (first + row >= tokens) return;
  T* const dqkv = static_cast<T*>(args.dqkv);
  store_row<Size>(dkey, args.scale, first + row, lane, head_of_qkv(dqkv, 1, head, args.heads, args.size));
  store_row<Size>(dvalue, 1.0f, first + row, lane, head_of_qkv(dqkv, 2, head, args.heads, args.size));
}

}  // namespace peft::cuda

PEFT_KERNEL(attention_query_gradient_32_f32, AttentionBackwardArgs) {
  peft::cuda::query_gradient<float, 32>(args);
}
PEFT_KERNEL(attention_query_gradient_64_f32, AttentionBackwardArgs) {
  peft::cuda::query_gradient<float, 64>(args);
}
PEFT_KERNEL(attention_query_gradient_128_f32, AttentionBackwardArgs) {
  peft::cuda::query_gradient<float, 128>(args);
}
PEFT_KERNEL(attention_key_value_gradient_32_f32, AttentionBackwardArgs) {
  peft::cuda::key_value_gradient<float, 32>(args);
}
PEFT_KERNEL(attention_key_value_gradient_64_f32, AttentionBackwardArgs) {
  peft::cuda::key_value_gradient<float, 64>(args);
}
PEFT_KERNEL(attention_key_value_gradient_128_f32, AttentionBackwardArgs) {
  peft::cuda::key_value_gradient<float, 128>(args);
}
