#include "fused_cases.h"

#include <ATen/ATen.h>

#include "core/packed_batch.h"
#include "kernels/kernels.h"

namespace peft::cuda {
namespace {

struct Context {
  at::Device device;
  Launcher& launcher;

  Tensor there(const Tensor& t) const { return t.to(device, t.scalar_type(), false, true); }
  Tensor empty(at::IntArrayRef shape) const {
    return at::full(shape, NAN, at::TensorOptions().device(device));
  }
};

/// fp32 sums of unit numbers in another order, and a GPU's exponential and error function.
constexpr double kRounding = 1e-5;

Dropout some_dropout(double rate) { return {static_cast<float>(rate), 0x123456789ABCDEF, 7, 19, 0xFFFFFFF0}; }

PackedLayout layout_of(const std::vector<int32_t>& lengths, at::Device device = at::kCPU) {
  TokenBatch batch;
  batch.offsets = {0};
  for (const int32_t n : lengths) batch.offsets.push_back(batch.offsets.back() + n);
  batch.ids.resize(static_cast<size_t>(batch.offsets.back()));
  return make_micro_batch(batch, 0, batch.texts(), device).layout;
}

struct Heads {
  int64_t count, size;
  std::vector<int32_t> lengths;
};

void check_attention(const Context& c, const Heads& heads, double rate) {
  const PackedLayout plain = layout_of(heads.lengths), layout = layout_of(heads.lengths, c.device);
  const Dropout dropout = some_dropout(rate);
  const int64_t d = heads.count * heads.size, tokens = plain.tokens;
  const Tensor qkv = at::randn({tokens, 3 * d}), g = at::randn({tokens, d});
  Tensor context = at::empty({tokens, d}), lse = at::empty({tokens, heads.count}),
         dqkv = at::empty({tokens, 3 * d});
  reference::attention(qkv, plain, heads.count, dropout, context, lse);
  reference::attention_backward(g, qkv, lse, plain, heads.count, dropout, dqkv);

  const Tensor device_qkv = c.there(qkv), device_g = c.there(g);
  Tensor context1 = c.empty({tokens, d}), lse1 = c.empty({tokens, heads.count}),
         dqkv1 = c.empty({tokens, 3 * d});
  attention(c.launcher, device_qkv, layout, heads.count, dropout, context1, lse1);
  require_close(context1, context, kRounding, "context");
  require_close(lse1, lse, kRounding, "lse");
  attention_backward(c.launcher, device_g, device_qkv, lse1, layout, heads.count, dropout, dqkv1);
  require_close(dqkv1, dqkv, kRounding, "gradient");
  Tensor again = c.empty({tokens, 3 * d});
  attention_backward(c.launcher, device_g, device_qkv, lse1, layout, heads.count, dropout, again);
  require_equal(again, dqkv1, "the gradient once more");
}

void check_layer_norm(const Context& c, int64_t rows, int64_t columns, double rate) {
  const Dropout dropout = some_dropout(rate);
  const auto random = [&](int64_t n) { return at::randn({n, columns}); };
  const auto vector = [&] { return at::randn({columns}); };
  const LayerNormWeights norm = {vector(), vector(), 1e-12};
  const LayerNormWeights device_norm = {c.there(norm.gamma), c.there(norm.beta), norm.eps};
  const Tensor bias = vector(), residual = random(rows), g = random(rows);
  Tensor y = random(rows) * 3, out = at::empty_like(y), dy = at::empty_like(y), masked = at::empty_like(y);
  Tensor y1 = c.there(y), out1 = c.empty(y.sizes()), dy1 = c.empty(y.sizes()), masked1 = c.empty(y.sizes());
  RowMoments moments = {at::empty({rows}), at::empty({rows})}, moments1 = {c.empty({rows}), c.empty({rows})};

  reference::residual_layer_norm(y, bias, residual, norm, dropout, out, moments);
  residual_layer_norm(c.launcher, y1, c.there(bias), c.there(residual), device_norm, dropout, out1, moments1);
  require_close(y1, y, kRounding, "sum");
  require_close(out1, out, kRounding, "layer norm");
  require_close(moments1.rstd, moments.rstd, kRounding, "deviation");
  Tensor again = c.empty(y.sizes());
  layer_norm_apply(c.launcher, y1, moments1, device_norm, again);
  require_equal(again, out1, "layer norm from kept moments");

  reference::layer_norm_backward(g, y, moments, norm, dropout, dy, masked);
  layer_norm_backward(c.launcher, c.there(g), y1, moments1, device_norm, dropout, dy1, masked1);
  require_close(dy1, dy, kRounding, "layer norm backward");
  if (dropout.active()) require_close(masked1, masked, kRounding, "masked gradient");

  const PackedLayout plain = layout_of({static_cast<int32_t>(rows)}),
                     layout = layout_of({static_cast<int32_t>(rows)}, c.device);
  const Tensor word = random(50), position = random(rows), type = vector(),
               ids = at::randint(50, {rows}, at::kInt);
  reference::embed(ids, plain, word, position, type, norm, dropout, out);
  embed(c.launcher, c.there(ids), layout, c.there(word), c.there(position), c.there(type), device_norm,
        dropout, out1);
  require_close(out1, out, kRounding, "embed");
  for (const bool accumulate : {false, true}) {
    reference::dropout_apply(g, dropout, accumulate, out);
    dropout_apply(c.launcher, c.there(g), dropout, accumulate, out1);
    require_close(out1, out, kRounding, "dropout");
  }
}

void check_gelu(const Context& c, int64_t rows, int64_t columns) {
  const Tensor bias = at::randn({columns}), g = at::randn({rows, columns});
  Tensor u = at::randn({rows, columns}) * 4, out = at::empty_like(u), du = g.clone(), none;
  Tensor u1 = c.there(u), out1 = c.empty(u.sizes()), du1 = c.there(g), again = c.empty(u.sizes());
  reference::bias_gelu(u, bias, out);
  bias_gelu(c.launcher, u1, c.there(bias), out1);
  require_close(u1, u, kRounding, "bias");
  require_close(out1, out, kRounding, "gelu");
  reference::gelu_backward(du, u, none);
  gelu_backward(c.launcher, du1, u1, again);
  require_close(du1, du, kRounding, "gelu backward");
  require_close(again, out, kRounding, "gelu again");
}

void check_pooling(const Context& c, const std::vector<int32_t>& lengths, int64_t columns) {
  const PackedLayout plain = layout_of(lengths), layout = layout_of(lengths, c.device);
  const Tensor x = at::randn({plain.tokens, columns}), g = at::randn({plain.sequences, columns});
  Tensor out = at::empty_like(g), dx = at::empty_like(x), out1 = c.empty(g.sizes()), dx1 = c.empty(x.sizes());
  reference::mean_pool(x, plain, out);
  mean_pool(c.launcher, c.there(x), layout, out1);
  require_close(out1, out, kRounding, "mean");
  reference::mean_pool_backward(g, plain, dx);
  mean_pool_backward(c.launcher, c.there(g), layout, dx1);
  require_close(dx1, dx, kRounding, "mean backward");
}

std::string describe(const Heads& h) {
  std::string text = std::to_string(h.count) + " heads of " + std::to_string(h.size) + ", texts of";
  for (size_t i = 0; i < h.lengths.size() && i < 6; i++)
    text.append(" ").append(std::to_string(h.lengths[i]));
  return h.lengths.size() > 6 ? text + " ..." : text;
}

std::string describe(int64_t rows, int64_t columns) {
  return std::to_string(rows) + "x" + std::to_string(columns);
}

/// As long as questions are, and some that fill no tile.
std::vector<int32_t> questions(int64_t count) {
  std::vector<int32_t> lengths;
  for (int64_t i = 0; i < count; i++) lengths.push_back(static_cast<int32_t>(1 + i * 37 % 61));
  return lengths;
}

}  // namespace

std::vector<DeviceCase> fused_cases(at::Device device, Launcher& launcher, bool large) {
  const Context c{device, launcher};
  std::vector<Heads> heads = {{3, 8, {1, 2, 31, 32, 33}}, {2, 20, {7, 48}},      {2, 32, {32, 1, 65}},
                              {2, 64, {33, 2, 40}},       {1, 128, {17, 3, 31}}, {1, 100, {16, 20}}};
  std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 8}, {9, 31}, {17, 384}, {3, 1000}};
  if (large) {
    for (const int64_t size : {8, 32, 64, 128}) {
      heads.push_back({12, size, questions(128)});
      heads.push_back({2, size, {512, 1, 511, 2000}});
    }
    shapes.insert(shapes.end(), {{3200, 384}, {3201, 1536}, {1000, 1024}, {257, 4096}});
  } else {
    heads.push_back({1, 8, {512}});
  }
  std::vector<DeviceCase> cases;
  const auto add = [&](const std::string& name, auto run) {
    cases.push_back({name, [=] {
                       at::manual_seed(7);
                       run();
                     }});
  };
  for (const double rate : {0.0, 0.2}) {
    const std::string with = ", dropout " + std::to_string(rate);
    for (const Heads& h : heads)
      add("attention, " + describe(h) + with, [=] { check_attention(c, h, rate); });
    for (const auto& [rows, columns] : shapes) {
      add("layer norm " + describe(rows, columns) + with,
          [=, rows = rows, columns = columns] { check_layer_norm(c, rows, columns, rate); });
    }
  }
  for (const auto& [rows, columns] : shapes) {
    add("gelu " + describe(rows, columns),
        [=, rows = rows, columns = columns] { check_gelu(c, rows, columns); });
    add("mean pooling, " + std::to_string(columns) + " columns", [=, columns = columns] {
      check_pooling(c, {1, 6, 30, 33}, columns);
    });
  }
  return cases;
}

}  // namespace peft::cuda
