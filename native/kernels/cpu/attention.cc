#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/small_gemm.h"
#include "kernels/cpu/transpose.h"

// Attention over packed sequences, one (sequence, head) at a time: q, k and v are read in place from [T, 3d]
// and rows of scores live only in a tile of the thread's scratch, so memory does not grow with the square of
// the length.

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

constexpr int64_t kQueryRows = 48;  // rows of one tile of scores; at 512 keys a tile is 96 KiB

struct Head {
  int64_t first;   // row of the sequence in the packed batch
  int64_t length;  // keys
  int64_t padded;  // keys rounded up to whole dropout groups
  int64_t size;    // columns of a head
  float scale;
};

float dot(const float* a, const float* b, int64_t n) {
  const int64_t whole = n / kLanes * kLanes;
  Vec products{};
  for (int64_t j = 0; j < whole; j += kLanes) products += load(a + j) * load(b + j);
  float total = sum(products);
  for (int64_t j = whole; j < n; j++) total += a[j] * b[j];
  return total;
}

/// to[c][j] = from[j][c], zero for the keys that only pad.
void transpose(const float* from, int64_t row, const Head& h, float* to) {
  const int64_t whole = h.size / kLanes * kLanes;
  for (int64_t j = 0; j < h.length; j += kLanes) {
    const int64_t keys = h.length - j < kLanes ? h.length - j : kLanes;
    for (int64_t c = 0; c < whole; c += kLanes) {
      transpose_rows(from + j * row + c, row, keys, to + c * h.padded + j, h.padded);
    }
    for (int64_t c = whole; c < h.size; c++)
      for (int64_t i = 0; i < kLanes; i++)
        to[c * h.padded + j + i] = i < keys ? from[(j + i) * row + c] : 0.0f;
  }
}

/// One row of scores to probabilities in place; returns log(sum(exp)).
float softmax(float* s, const Head& h) {
  const int64_t columns = padded(h.length, kLanes);
  for (int64_t j = h.length; j < columns; j++) s[j] = -__builtin_inff();
  Vec m = splat(-__builtin_inff());
  for (int64_t j = 0; j < columns; j += kLanes) m = max(m, load(s + j));
  const float top = maximum(m) * h.scale;
  Vec total{};
  for (int64_t j = 0; j < columns; j += kLanes) {
    const Vec e = exp(load(s + j) * h.scale - top);
    store(s + j, e);
    total += e;
  }
  const float z = sum(total), inverse = 1.0f / z;
  for (int64_t j = 0; j < columns; j += kLanes) store(s + j, load(s + j) * inverse);
  return top + __builtin_logf(z);
}

void forward_head(const float* qkv, const Head& h, int64_t d, int64_t head, int64_t heads,
                  const Dropout& dropout, float* context, float* lse, float* kt, float* scores, float* keep) {
  const int64_t stride = 3 * d, column = head * h.size, keys = padded(h.length, kLanes);
  const float* q = qkv + h.first * stride + column;
  transpose(q + d, stride, h, kt);
  for (int64_t i = 0; i < h.length; i += kQueryRows) {
    const int64_t rows = i + kQueryRows < h.length ? kQueryRows : h.length - i;
    product({q + i * stride, stride, 1}, kt, h.padded, scores, h.padded, rows, keys, h.size, false);
    for (int64_t r = 0; r < rows; r++) {
      float* s = scores + r * h.padded;
      lse[(h.first + i + r) * heads + head] = softmax(s, h);
      if (!dropout.active()) continue;
      dropout_row(dropout, (uint32_t)(h.first + i + r), h.length, keep);
      for (int64_t j = 0; j < h.length; j++) s[j] *= keep[j];
    }
    product({scores, h.padded, 1}, q + 2 * d, stride, context + (h.first + i) * d + column, d, rows, h.size,
            h.length, false);
  }
}

void backward_head(const float* dcontext, const float* qkv, const float* context, const float* lse,
                   const Head& h, int64_t d, int64_t head, int64_t heads, const Dropout& dropout, float* dqkv,
                   float* kt, float* vt, float* scores, float* dscores, float* keep) {
  const int64_t stride = 3 * d, column = head * h.size, keys = padded(h.length, kLanes);
  const float* q = qkv + h.first * stride + column;
  float* dq = dqkv + h.first * stride + column;
  transpose(q + d, stride, h, kt);
  transpose(q + 2 * d, stride, h, vt);
  for (int64_t j = 0; j < keys; j++) keep[j] = 1.0f;
  for (int64_t i = 0; i < h.length; i += kQueryRows) {
    const int64_t rows = i + kQueryRows < h.length ? kQueryRows : h.length - i;
    const float* dout = dcontext + (h.first + i) * d + column;
    product({q + i * stride, stride, 1}, kt, h.padded, scores, h.padded, rows, keys, h.size, false);
    product({dout, d, 1}, vt, h.padded, dscores, h.padded, rows, keys, h.size, false);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t t = h.first + i + r;
      float *p = scores + r * h.padded, *dp = dscores + r * h.padded;
      const float* out = context + t * d + column;
      // The sum over keys of p * dp is also the dot product of the output and its gradient.
      const float delta = dot(dout + r * d, out, h.size);
      if (dropout.active()) dropout_row(dropout, (uint32_t)t, h.length, keep);
      const float shift = lse[t * heads + head];
      for (int64_t j = 0; j < keys; j += kLanes) {
        const Vec probability = exp(load(p + j) * h.scale - shift), kept = load(keep + j);
        store(dp + j, probability * (load(dp + j) * kept - delta) * h.scale);
        store(p + j, probability * kept);
      }
    }
    product({dscores, h.padded, 1}, q + d, stride, dq + i * stride, stride, rows, h.size, h.length, false);
    product({dscores, 1, h.padded}, q + i * stride, stride, dq + d, stride, h.length, h.size, rows, i > 0);
    product({scores, 1, h.padded}, dout, d, dq + 2 * d, stride, h.length, h.size, rows, i > 0);
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

Head head_of(Packed packed, int64_t s, int64_t d, int64_t heads) {
  const int64_t first = packed.offsets[s], length = packed.offsets[s + 1] - first, size = d / heads;
  return {first, length, padded(length, 64), size, 1.0f / __builtin_sqrtf((float)size)};
}

}  // namespace

void attention(const float* qkv, Packed packed, int64_t d, int64_t heads, const Dropout& dropout,
               float* context, float* lse) {
  const int64_t keys = padded(longest(packed), 64);
#pragma omp parallel
  {
    Scratch kt(d / heads * keys), scores(kQueryRows * keys), keep(keys);
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < packed.sequences * heads; task++) {
      const int64_t head = task % heads;
      forward_head(qkv, head_of(packed, task / heads, d, heads), d, head, heads, dropout.at_head(head),
                   context, lse, kt.data, scores.data, keep.data);
    }
  }
}

void attention_backward(const float* dcontext, const float* qkv, const float* context, const float* lse,
                        Packed packed, int64_t d, int64_t heads, const Dropout& dropout, float* dqkv) {
  const int64_t keys = padded(longest(packed), 64);
#pragma omp parallel
  {
    Scratch kt(d / heads * keys), vt(d / heads * keys), scores(kQueryRows * keys), dscores(kQueryRows * keys),
        keep(keys);
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < packed.sequences * heads; task++) {
      const int64_t head = task % heads;
      backward_head(dcontext, qkv, context, lse, head_of(packed, task / heads, d, heads), d, head, heads,
                    dropout.at_head(head), dqkv, kt.data, vt.data, scores.data, dscores.data, keep.data);
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
