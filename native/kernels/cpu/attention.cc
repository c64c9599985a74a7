#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/small_gemm.h"
#include "kernels/cpu/transpose.h"

// Attention over packed sequences, one (sequence, head) at a time. Scores live only in a tile of the thread's
// scratch, so memory does not grow with the square of the length. A tile is [keys, queries]: queries are the
// lanes of a vector, so that what is done over keys (the largest, the sums) is done on whole vectors.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr int64_t kQueries = 48;  // columns of a tile of scores; at 512 keys a tile is 96 KiB

/// One head of one sequence. Rows of q, k, v and their gradients are `stride` apart, those of the output `d`.
struct Head {
  int64_t head, heads;
  int64_t first;   // row of the sequence in the packed batch
  int64_t length;  // keys
  int64_t size;    // columns of a head
  int64_t column;  // the first of them
  int64_t d, stride;
  float scale;
};

/// The scratch of one thread, for the longest sequence.
struct Tiles {
  Tiles(int64_t size, int64_t keys)
      : across(size * kQueries),
        scores(keys * kQueries),
        gradient(keys * kQueries),
        keep(padded(keys, 4) * kLanes) {}
  Scratch across;            // rows of queries, transposed: [head size, queries]
  Scratch scores, gradient;  // [keys, queries]
  Scratch keep;              // [keys, lanes], for one vector of queries
};

/// to[c][i] = from[i][c] for `rows` rows, zero for the queries that only fill the last vector.
const float* transpose(const float* from, int64_t stride, int64_t rows, int64_t size, const Scratch& to) {
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t i = 0; i < rows; i += kLanes) {
    const int64_t n = rows - i < kLanes ? rows - i : kLanes;
    for (int64_t c = 0; c < whole; c += kLanes)
      transpose_rows(from + i * stride + c, stride, n, to.data + c * kQueries + i, kQueries);
    for (int64_t c = whole; c < size; c++)
      for (int64_t l = 0; l < kLanes; l++)
        to.data[c * kQueries + i + l] = l < n ? from[(i + l) * stride + c] : 0.0f;
  }
  return to.data;
}

/// The keep factors of kLanes queries from row `first` on, for every key.
void draw_keep(const Dropout& dropout, int64_t first, int64_t keys, float* keep) {
  WordVec token{};
  for (int l = 0; l < kLanes; l++) token[l] = dropout.first_token + (uint32_t)(first + l);
  const WordVec threshold = WordVec{} + dropout.threshold();
  const Vec scale = splat(dropout.scale());
  for (int64_t j = 0; j < keys; j += 4) {
    WordVec words[4];
    philox(token, (uint32_t)(j / 4), dropout.step, dropout.site, (uint32_t)dropout.seed,
           (uint32_t)(dropout.seed >> 32), words);
    for (int w = 0; w < 4; w++) store(keep + (j + w) * kLanes, words[w] < threshold ? Vec{} : scale);
  }
}

/// kLanes columns of scores to probabilities in place; returns log(sum(exp)). `keep` may be null.
Vec softmax(float* s, int64_t keys, float scale, const float* keep) {
  Vec top = load(s);
  for (int64_t j = 1; j < keys; j++) top = max(top, load(s + j * kQueries));
  top *= scale;
  Vec total{};
  for (int64_t j = 0; j < keys; j++) {
    const Vec e = exp(load(s + j * kQueries) * scale - top);
    store(s + j * kQueries, e);
    total += e;
  }
  const Vec inverse = 1.0f / total;
  for (int64_t j = 0; j < keys; j++) {
    const Vec p = load(s + j * kQueries) * inverse;
    store(s + j * kQueries, keep == nullptr ? p : p * load(keep + j * kLanes));
  }
  for (int l = 0; l < kLanes; l++) top[l] += __builtin_logf(total[l]);
  return top;
}

/// kLanes columns: scores become the probabilities that dropout left, `gradient` (that of the dropped
/// probabilities) becomes that of the scores before their scaling.
void softmax_backward(float* s, float* gradient, int64_t keys, float scale, Vec lse, const float* keep) {
  Vec delta{};
  for (int64_t j = 0; j < keys; j++) {
    const Vec p = exp(load(s + j * kQueries) * scale - lse);
    Vec dp = load(gradient + j * kQueries);
    if (keep != nullptr) dp *= load(keep + j * kLanes);
    delta += p * dp;
    store(s + j * kQueries, p);
    store(gradient + j * kQueries, dp);
  }
  for (int64_t j = 0; j < keys; j++) {
    const Vec p = load(s + j * kQueries);
    store(gradient + j * kQueries, p * (load(gradient + j * kQueries) - delta) * scale);
    if (keep != nullptr) store(s + j * kQueries, p * load(keep + j * kLanes));
  }
}

void forward_head(const float* qkv, const Head& h, const Dropout& dropout, float* context, float* lse,
                  Tiles& tiles) {
  const float *q = qkv + h.first * h.stride + h.column, *k = q + h.d, *v = k + h.d;
  float *scores = tiles.scores.data, *keep = dropout.active() ? tiles.keep.data : nullptr;
  for (int64_t i = 0; i < h.length; i += kQueries) {
    const int64_t rows = i + kQueries < h.length ? kQueries : h.length - i;
    const float* across = transpose(q + i * h.stride, h.stride, rows, h.size, tiles.across);
    product({k, h.stride, 1}, across, kQueries, scores, kQueries, h.length, padded(rows, kLanes), h.size,
            false);
    for (int64_t r = 0; r < rows; r += kLanes) {
      const int64_t row = h.first + i + r;
      if (keep != nullptr) draw_keep(dropout, row, h.length, keep);
      const Vec sums = softmax(scores + r, h.length, h.scale, keep);
      for (int64_t l = 0; l < kLanes && r + l < rows; l++) lse[(row + l) * h.heads + h.head] = sums[l];
    }
    product({scores, 1, kQueries}, v, h.stride, context + (h.first + i) * h.d + h.column, h.d, rows, h.size,
            h.length, false);
  }
}

void backward_head(const float* dcontext, const float* qkv, const float* lse, const Head& h,
                   const Dropout& dropout, float* dqkv, Tiles& tiles) {
  const float *q = qkv + h.first * h.stride + h.column, *k = q + h.d, *v = k + h.d;
  const float* dout = dcontext + h.first * h.d + h.column;
  float *dq = dqkv + h.first * h.stride + h.column, *dk = dq + h.d, *dv = dk + h.d;
  float *scores = tiles.scores.data, *gradient = tiles.gradient.data;
  float* keep = dropout.active() ? tiles.keep.data : nullptr;
  for (int64_t i = 0; i < h.length; i += kQueries) {
    const int64_t rows = i + kQueries < h.length ? kQueries : h.length - i, width = padded(rows, kLanes);
    const float *qi = q + i * h.stride, *di = dout + i * h.d;
    const float* across = transpose(qi, h.stride, rows, h.size, tiles.across);
    product({k, h.stride, 1}, across, kQueries, scores, kQueries, h.length, width, h.size, false);
    across = transpose(di, h.d, rows, h.size, tiles.across);
    product({v, h.stride, 1}, across, kQueries, gradient, kQueries, h.length, width, h.size, false);
    for (int64_t r = 0; r < rows; r += kLanes) {
      const int64_t row = h.first + i + r;
      if (keep != nullptr) draw_keep(dropout, row, h.length, keep);
      Vec sums{};
      for (int64_t l = 0; l < kLanes && r + l < rows; l++) sums[l] = lse[(row + l) * h.heads + h.head];
      softmax_backward(scores + r, gradient + r, h.length, h.scale, sums, keep);
    }
    product({gradient, 1, kQueries}, k, h.stride, dq + i * h.stride, h.stride, rows, h.size, h.length, false);
    product({gradient, kQueries, 1}, qi, h.stride, dk, h.stride, h.length, h.size, rows, i > 0);
    product({scores, kQueries, 1}, di, h.d, dv, h.stride, h.length, h.size, rows, i > 0);
  }
}

int64_t longest(Packed packed) {
  int64_t length = 0;
  for (int64_t s = 0; s < packed.sequences; s++) {
    const int64_t n = packed.offsets[s + 1] - packed.offsets[s];
    length = n > length ? n : length;
  }
  return length;
}

/// Head `task % heads` of sequence `task / heads`.
Head head_of(Packed packed, int64_t task, int64_t d, int64_t heads) {
  const int64_t head = task % heads, size = d / heads;
  const int32_t* offset = packed.offsets + task / heads;
  return {head,
          heads,
          offset[0],
          offset[1] - offset[0],
          size,
          head * size,
          d,
          3 * d,
          1.0f / __builtin_sqrtf((float)size)};
}

}  // namespace

void attention(const float* qkv, Packed packed, int64_t d, int64_t heads, const Dropout& dropout,
               float* context, float* lse) {
  const int64_t keys = longest(packed);
#pragma omp parallel
  {
    Tiles tiles(d / heads, keys);
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < packed.sequences * heads; task++) {
      const Head h = head_of(packed, task, d, heads);
      forward_head(qkv, h, dropout.at_head(h.head), context, lse, tiles);
    }
  }
}

void attention_backward(const float* dcontext, const float* qkv, const float* lse, Packed packed, int64_t d,
                        int64_t heads, const Dropout& dropout, float* dqkv) {
  const int64_t keys = longest(packed);
#pragma omp parallel
  {
    Tiles tiles(d / heads, keys);
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < packed.sequences * heads; task++) {
      const Head h = head_of(packed, task, d, heads);
      backward_head(dcontext, qkv, lse, h, dropout.at_head(h.head), dqkv, tiles);
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
