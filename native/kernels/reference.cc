#include <ATen/ATen.h>

#include "kernels/kernels.h"

// Plain ATen versions: the truth that the vector kernels are tested against, and the path of other devices.

namespace peft::reference {
namespace {

using at::indexing::Slice;

constexpr int64_t kWordMask = 0xFFFFFFFF;

Tensor layer_norm(const Tensor& y, const LayerNormWeights& norm, RowMoments* moments) {
  auto [out, mean, rstd] = at::native_layer_norm(y, {y.size(1)}, norm.gamma, norm.beta, norm.eps);
  if (moments != nullptr) {
    moments->mean.copy_(mean.flatten());
    moments->rstd.copy_(rstd.flatten());
  }
  return out;
}

Tensor masked(const Tensor& x, const Dropout& dropout) {
  return dropout.active() ? x * dropout_mask(dropout, x.size(0), x.size(1), x.device()) : x;
}

Tensor masked_probabilities(const Tensor& p, const Dropout& dropout) {
  return dropout.active() ? p * attention_dropout_mask(dropout, p.size(0), p.size(1), p.device()) : p;
}

/// High and low words of a 32-bit times 32-bit product. ATen has no unsigned 64-bit multiply on every device,
/// so the product is put together from 16-bit halves.
std::pair<Tensor, Tensor> widening_multiply(const Tensor& a, int64_t b) {
  const auto shift_right = [](const Tensor& x) { return at::bitwise_right_shift(x, 16); };
  const Tensor low = (a & 0xFFFF) * b;                        // below 2^48
  const Tensor high = shift_right(a) * b + shift_right(low);  // below 2^49
  return {shift_right(high), (high & 0xFFFF) * 65536 | (low & 0xFFFF)};
}

/// One head of one sequence: query, key, value [L, head size].
struct HeadView {
  Tensor q, k, v;
};

HeadView head_view(const Tensor& qkv, int64_t begin, int64_t end, int64_t head, int64_t size) {
  const int64_t d = qkv.size(1) / 3;
  const Tensor rows = qkv.slice(0, begin, end);
  const auto part = [&](int64_t i) { return rows.slice(1, i * d + head * size, i * d + (head + 1) * size); };
  return {part(0), part(1), part(2)};
}

/// The keep factors of words drawn with counters {x0, x1, step, site}, word `word` of the four; the three are
/// int64 and broadcast.
Tensor keep_factors(const Dropout& dropout, const Tensor& counter0, const Tensor& counter1,
                    const Tensor& word) {
  const Tensor zero = at::zeros_like(counter0 + counter1);
  Tensor x0 = zero + counter0, x1 = zero + counter1, x2 = zero + static_cast<int64_t>(dropout.step),
         x3 = zero + static_cast<int64_t>(dropout.site);
  int64_t key0 = static_cast<int64_t>(dropout.seed & kWordMask),
          key1 = static_cast<int64_t>(dropout.seed >> 32);
  for (int round = 0; round < 10; round++) {
    const auto [high0, low0] = widening_multiply(x0, 0xD2511F53);
    const auto [high1, low1] = widening_multiply(x2, 0xCD9E8D57);
    x0 = high1 ^ x1 ^ key0;
    x1 = low1;
    x2 = high0 ^ x3 ^ key1;
    x3 = low0;
    key0 = (key0 + 0x9E3779B9) & kWordMask;
    key1 = (key1 + 0xBB67AE85) & kWordMask;
  }
  const Tensor drawn = at::where(word == 0, x0, at::where(word == 1, x1, at::where(word == 2, x2, x3)));
  return (drawn >= static_cast<int64_t>(dropout.threshold())).to(at::kFloat) * dropout.scale();
}

/// The number of each row within the whole batch, int64 [rows, 1].
Tensor row_tokens(const Dropout& dropout, int64_t rows, const at::TensorOptions& options) {
  return ((at::arange(rows, options) + static_cast<int64_t>(dropout.first_token)) & kWordMask).unsqueeze(1);
}

Dropout rows_from(Dropout dropout, int64_t first_row) {
  dropout.first_token += static_cast<uint32_t>(first_row);
  return dropout;
}

template <typename F>
void for_each_head(const PackedLayout& layout, int64_t heads, F f) {
  const int32_t* offsets = layout.offsets.const_data_ptr<int32_t>();
  for (int64_t s = 0; s < layout.sequences; s++) {
    for (int64_t h = 0; h < heads; h++) f(offsets[s], offsets[s + 1], h);
  }
}

}  // namespace

Tensor dropout_mask(const Dropout& dropout, int64_t tokens, int64_t columns, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const Tensor column = at::arange(columns, options).unsqueeze(0);
  const Tensor lane = at::floor_divide(column, 64) * 16 + at::remainder(column, 16);
  return keep_factors(dropout, lane, row_tokens(dropout, tokens, options),
                      at::remainder(at::floor_divide(column, 16), 4));
}

Tensor attention_dropout_mask(const Dropout& dropout, int64_t queries, int64_t keys, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const Tensor key = at::arange(keys, options).unsqueeze(0);
  return keep_factors(dropout, row_tokens(dropout, queries, options), at::floor_divide(key, 4),
                      at::remainder(key, 4));
}

void embed(const Tensor& ids, const PackedLayout& layout, const Tensor& word, const Tensor& position,
           const Tensor& type, const LayerNormWeights& norm, const Dropout& dropout, Tensor& out) {
  const Tensor sum = word.index_select(0, ids) + type + position.index_select(0, layout.positions);
  out.copy_(masked(layer_norm(sum, norm, nullptr), dropout));
}

void residual_layer_norm(Tensor& y, const Tensor& bias, const Tensor& residual, const LayerNormWeights& norm,
                         const Dropout& dropout, Tensor& out, RowMoments& moments) {
  y.copy_(masked(y + bias, dropout) + residual);
  out.copy_(layer_norm(y, norm, &moments));
}

void layer_norm_apply(const Tensor& y, const RowMoments& moments, const LayerNormWeights& norm, Tensor& out) {
  out.copy_((y - moments.mean.unsqueeze(1)) * moments.rstd.unsqueeze(1) * norm.gamma + norm.beta);
}

void layer_norm_backward(const Tensor& dout, const Tensor& y, const RowMoments& moments,
                         const LayerNormWeights& norm, const Dropout& dropout, Tensor& dy, Tensor& dmasked) {
  dy.copy_(std::get<0>(at::native_layer_norm_backward(dout, y, {y.size(1)}, moments.mean.unsqueeze(1),
                                                      moments.rstd.unsqueeze(1), norm.gamma, norm.beta,
                                                      {true, false, false})));
  if (dropout.active()) dmasked.copy_(masked(dy, dropout));
}

void bias_gelu(Tensor& u, const Tensor& bias, Tensor& out) {
  u.add_(bias);
  out.copy_(at::gelu(u));
}

void gelu_backward(Tensor& dout, const Tensor& u, Tensor& out) {
  dout.copy_(at::gelu_backward(dout, u));
  if (out.defined()) out.copy_(at::gelu(u));
}

void dropout_apply(const Tensor& x, const Dropout& dropout, bool accumulate, Tensor& out) {
  if (accumulate) {
    out.add_(masked(x, dropout));
  } else {
    out.copy_(masked(x, dropout));
  }
}

void attention(const Tensor& qkv, const PackedLayout& layout, int64_t heads, const Dropout& dropout,
               Tensor& context, Tensor& lse) {
  const int64_t size = context.size(1) / heads;
  for_each_head(layout, heads, [&](int64_t begin, int64_t end, int64_t h) {
    const HeadView view = head_view(qkv, begin, end, h, size);
    const Tensor scores = at::matmul(view.q, view.k.t()) / std::sqrt(static_cast<double>(size));
    const Tensor probabilities =
        masked_probabilities(at::softmax(scores, 1), rows_from(dropout.at_head(h), begin));
    context.index({Slice(begin, end), Slice(h * size, (h + 1) * size)})
        .copy_(at::matmul(probabilities, view.v));
    lse.index({Slice(begin, end), h}).copy_(at::logsumexp(scores, {1}));
  });
}

void attention_backward(const Tensor& dcontext, const Tensor& qkv, const Tensor& lse,
                        const PackedLayout& layout, int64_t heads, const Dropout& dropout, Tensor& dqkv) {
  const int64_t size = dcontext.size(1) / heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(size));
  for_each_head(layout, heads, [&](int64_t begin, int64_t end, int64_t h) {
    const HeadView view = head_view(qkv, begin, end, h, size);
    const auto columns = Slice(h * size, (h + 1) * size);
    const Tensor dout = dcontext.index({Slice(begin, end), columns});
    const Tensor p =
        at::exp(at::matmul(view.q, view.k.t()) * scale - lse.index({Slice(begin, end), h}).unsqueeze(1));
    const Dropout rows = rows_from(dropout.at_head(h), begin);
    const Tensor dp = masked_probabilities(at::matmul(dout, view.v.t()), rows);
    const Tensor ds = p * (dp - (p * dp).sum(1, true)) * scale;
    HeadView grad = head_view(dqkv, begin, end, h, size);
    grad.q.copy_(at::matmul(ds, view.k));
    grad.k.copy_(at::matmul(ds.t(), view.q));
    grad.v.copy_(at::matmul(masked_probabilities(p, rows).t(), dout));
  });
}

void mean_pool(const Tensor& x, const PackedLayout& layout, Tensor& out) {
  const Tensor lengths = at::diff(layout.offsets).to(x.device());
  const Tensor text = at::repeat_interleave(lengths);
  out.zero_().index_add_(0, text, x).div_(lengths.unsqueeze(1));
}

void mean_pool_backward(const Tensor& dout, const PackedLayout& layout, Tensor& dx) {
  const Tensor lengths = at::diff(layout.offsets).to(dx.device());
  dx.copy_((dout / lengths.unsqueeze(1)).index_select(0, at::repeat_interleave(lengths)));
}

}  // namespace peft::reference
