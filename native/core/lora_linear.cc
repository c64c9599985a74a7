#include "core/lora_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include <algorithm>

namespace peft {
namespace {

/// What follows the product, for these rows of its result.
void finish_rows(const PackedLora& lora, Tensor out) {
  if (lora.gain().defined()) out.mul_(lora.gain());
  if (lora.shift().defined()) out.add_(lora.shift());
}

}  // namespace

void LoraLinear::use(const std::vector<Versioned>& adapters, LoraUse use, const Dropout& dropout,
                     LoraScratch& scratch) {
  adapters_.clear();
  dropout_ = dropout;
  scratch_ = &scratch;
  for (const auto& [lora, version] : adapters) {
    lora->pack(version, use, dropout.active(), *base_, bias_);
    adapters_.push_back(lora);
  }
}

bool LoraLinear::adapted() const {
  return std::ranges::any_of(adapters_, [](const PackedLora* lora) { return !lora->empty(); });
}

LoraFloats LoraLinear::planned(int64_t tokens, bool training) const {
  const int64_t in = base_->in_features(), out = base_->out_features();
  const bool dropped = training && dropout_.active();
  LoraFloats most{.passing = base_->passing_floats(tokens, training)};
  for (const PackedLora* lora : adapters_) {
    if (lora->empty()) continue;
    LoraFloats one;
    one.scratch = Buffer::capacity(tokens * lora->rank()) * (training ? 2 : 1);
    if (dropped) one.scratch += 2 * Buffer::capacity(tokens * in);
    if (lora->dora()) {
      int64_t slice = 0;
      for (const Slice& s : lora->slices()) slice = std::max(slice, s.of.size);
      // W and W + scale * B A, of pack_outputs and of passes with dropout; the gradient behind the gain, z,
      // and their product, of backward_magnitude.
      const int64_t weights = (out + slice) * in;
      const int64_t rows = dropped ? out + 2 * slice : 2 * out + slice;
      one.passing = training ? std::max(weights, tokens * rows + (dropped ? weights : 0)) : weights;
    }
    most = larger(most, one);
  }
  return most;
}

void LoraLinear::forward(const Tensor& x, const AdapterRows& rows, uint32_t first_token, Tensor& out) {
  if (rows.size() > 1 && adapted()) return forward_mixed(x, rows, out);
  ProductTail tail{.bias = bias_};
  const int32_t adapter = rows.front().adapter;
  const PackedLora* lora = adapter < 0 || adapters_.empty() ? nullptr : adapters_[adapter];
  if (lora == nullptr || lora->empty()) return base_->forward(x, tail, out);
  if (drops_dora(*lora)) return forward_dropped_dora(*lora, x, first_token, out);
  tail.t = project(*lora, x, first_token);
  tail.u = &lora->up();
  base_->forward(x, tail, out);
  finish_rows(*lora, out);
}

void LoraLinear::forward_mixed(const Tensor& x, const AdapterRows& rows, Tensor& out) {
  const auto lora_of = [&](const AdapterPart& part) -> const PackedLora* {
    const PackedLora* lora = part.adapter < 0 ? nullptr : adapters_[part.adapter];
    return lora == nullptr || lora->empty() ? nullptr : lora;
  };
  std::vector<ThinRows> down;
  std::vector<WideRows> up;
  int64_t rank = 0;
  for (const AdapterPart& part : rows) {
    const PackedLora* lora = lora_of(part);
    down.push_back({part.begin, part.end, lora == nullptr ? nullptr : &lora->down()});
    up.push_back({part.begin, part.end, lora == nullptr ? nullptr : &lora->up()});
    if (lora != nullptr) rank = std::max(rank, lora->rank());
  }
  const WideByRows by_rows(std::move(up));
  Tensor t = scratch_->projected.take(x.size(0), rank, x.device());
  product_by_rows(x, down, t);
  base_->forward(x, {.bias = bias_, .t = t, .by_rows = &by_rows}, out);
  for (const AdapterPart& part : rows) {
    const PackedLora* lora = lora_of(part);
    if (lora != nullptr) finish_rows(*lora, out.narrow(0, part.begin, part.end - part.begin));
  }
}

/// With dropout the adapter sees another x than W does: y = W x + b + (g (W + scale * B A) - W) dropout(x).
void LoraLinear::forward_dropped_dora(const PackedLora& lora, const Tensor& x, uint32_t first_token,
                                      Tensor& out) {
  base_->forward(x, {.bias = bias_}, out);
  const Tensor w = base_->dequantize();
  for (const Slice& s : lora.slices()) {
    const Tensor gain = lora.gain().narrow(0, s.of.begin, s.of.size).unsqueeze(1);
    const Tensor change = adapted_rows(s, w).mul_(gain).sub_(w.narrow(0, s.of.begin, s.of.size));
    out.narrow(1, s.of.begin, s.of.size).addmm_(seen_by(s, x, first_token), change.t());
  }
}

Tensor LoraLinear::behind_gain(const Tensor& dy) const {
  return trained().gain().defined() ? dy.mul(trained().gain()) : dy;
}

Tensor LoraLinear::adapted_rows(const Slice& slice, const Tensor& w) {
  return at::addmm(w.narrow(0, slice.of.begin, slice.of.size), slice.b(), slice.a(), 1, slice.scale());
}

Tensor LoraLinear::project_gradient(const Tensor& dy) {
  Tensor all = scratch_->gradient.take(dy.size(0), trained().rank(), dy.device());
  trained().project_gradient(behind_gain(dy), all);
  return all;
}

void LoraLinear::backward_parameters(const Tensor& x, const Tensor& dy, const Tensor& projected,
                                     uint32_t first_token) {
  const Tensor ax = project(trained(), x, first_token), inner = behind_gain(dy);
  for (const Slice& s : trained().slices()) {
    if (s.origin) continue;
    const LoraModule& m = *s.of.module;
    const Tensor own = inner.narrow(1, s.of.begin, s.of.size);
    add_outer_sum(ax.narrow(1, s.rank_begin, s.rank), own, m.scale, m.grad_b.t());
    add_outer_sum(projected.narrow(1, s.rank_begin, s.rank), seen_by(s, x, first_token), 1, m.grad_a);
    if (m.grad_bias.defined()) m.grad_bias.add_(own.sum(0), m.scale);
  }
  if (trained().gain().defined()) backward_magnitude(x, dy, ax, first_token);
}

/// Of y = b + m / n * z: the sum of dy * z / n, with z computed once more.
void LoraLinear::backward_magnitude(const Tensor& x, const Tensor& dy, const Tensor& ax,
                                    uint32_t first_token) {
  const bool dropped = dropout_.active();
  const Tensor w = dropped ? base_->dequantize() : Tensor();
  Tensor z;
  if (!dropped) {
    z = at::empty_like(dy);
    base_->forward(x, {.t = ax, .u = &trained().up()}, z);
  }
  for (const Slice& s : trained().slices()) {
    const Tensor own =
        dropped ? seen_by(s, x, first_token).mm(adapted_rows(s, w).t()) : z.narrow(1, s.of.begin, s.of.size);
    const Tensor sum = (dy.narrow(1, s.of.begin, s.of.size) * own).sum(0);
    s.of.module->grad_magnitude.add_(sum.div_(trained().norm().narrow(0, s.of.begin, s.of.size)));
  }
}

void LoraLinear::backward_input(const Tensor& dy, const Tensor& projected, uint32_t first_token,
                                bool accumulate, Tensor& dx) {
  ProductTail tail{.accumulate = accumulate};
  if (!adapted()) return base_->backward_input(dy, tail, dx);
  if (!dropout_.active()) {
    tail.t = projected;
    tail.u = &trained().back();
    return base_->backward_input(behind_gain(dy), tail, dx);
  }
  base_->backward_input(dy, tail, dx);
  const Tensor w = drops_dora(trained()) ? base_->dequantize() : Tensor();
  for (const Slice& s : trained().slices()) {
    Tensor part = scratch_->input_gradient.take(dx.size(0), dx.size(1), dx.device());
    at::mm_out(part, projected.narrow(1, s.rank_begin, s.rank), s.a());
    if (w.defined()) {
      const Tensor gain = trained().gain().narrow(0, s.of.begin, s.of.size);
      const Tensor own = dy.narrow(1, s.of.begin, s.of.size) * gain.sub(1);
      part.addmm_(own, w.narrow(0, s.of.begin, s.of.size));
    }
    const Dropout d = slice_dropout(s, first_token);
    if (d.active()) {
      dropout_apply(part, d, true, dx);
    } else {
      dx.add_(part);
    }
  }
}

Dropout LoraLinear::slice_dropout(const Slice& slice, uint32_t first_token) const {
  if (slice.origin) return {};
  Dropout d = dropout_;
  d.site = slice.of.dropout_site;
  d.first_token = first_token;
  return d;
}

Tensor LoraLinear::seen_by(const Slice& slice, const Tensor& x, uint32_t first_token) {
  const Dropout d = slice_dropout(slice, first_token);
  if (!d.active()) return x;
  Tensor dropped = scratch_->dropped.take(x.size(0), x.size(1), x.device());
  dropout_apply(x, d, false, dropped);
  return dropped;
}

Tensor LoraLinear::project(const PackedLora& lora, const Tensor& x, uint32_t first_token) {
  Tensor all = scratch_->projected.take(x.size(0), lora.rank(), x.device());
  if (!dropout_.active()) {
    lora.down().product(x, all);
    return all;
  }
  for (const Slice& s : lora.slices()) {
    Tensor columns = all.narrow(1, s.rank_begin, s.rank);
    s.down.product(seen_by(s, x, first_token), columns);
  }
  return all;
}

}  // namespace peft
