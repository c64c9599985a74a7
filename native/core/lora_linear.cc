#include "core/lora_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

namespace peft {

void LoraLinear::attach(std::vector<LoraSlice> slices) {
  slices_.clear();
  rank_ = 0;
  active_ = false;
  packed_version_ = 0;
  for (const LoraSlice& s : slices) {
    const int64_t rank = s.module->a.size(0);
    for (const bool origin : {false, true}) {
      if (origin && !s.module->origin_a.defined()) continue;
      slices_.push_back({s, rank_, rank, origin, ThinWeight(), ThinWeight()});
      rank_ += rank;
    }
  }
}

void LoraLinear::prepare(bool use_adapter, uint64_t version, const Dropout& dropout) {
  dropout_ = dropout;
  active_ = use_adapter && adapted();
  if (!active_ || (packed_version_ == version && packed_apart_ == dropout.active())) return;
  packed_version_ = version;
  packed_apart_ = dropout.active();
  std::vector<Tensor> a;
  std::vector<WideFactor::Block> up, back;
  for (Slice& slice : slices_) {
    slice.gradient.assign(slice.b(), slice.scale());
    if (dropout.active()) slice.down.assign(slice.a().t(), 1);
    a.push_back(slice.a());
    up.push_back({slice.b().t(), slice.of.begin, slice.scale()});
    back.push_back({slice.a(), 0, 1});
  }
  if (!dropout.active()) down_.assign(at::cat(a).t(), 1);
  up_.assign(base_->out_features(), up);
  back_.assign(base_->in_features(), back);
  pack_outputs();
}

void LoraLinear::pack_outputs() {
  gain_ = shift_ = norm_ = Tensor();
  const LoraModule& first = *slices_.front().of.module;
  const bool dora = first.magnitude.defined();
  if (!dora && !first.bias.defined()) return;
  const Tensor w = dora ? base_->dequantize() : Tensor();
  const int64_t out = base_->out_features();
  if (dora) {
    gain_ = at::ones({out}, first.a.options());
    norm_ = at::ones({out}, first.a.options());
  } else {
    shift_ = at::zeros({out}, first.a.options());
  }
  for (const Slice& slice : slices_) {
    if (slice.origin) continue;
    const LoraModule& m = *slice.of.module;
    const auto own = [&](const Tensor& all) { return all.narrow(0, slice.of.begin, slice.of.size); };
    if (dora) {
      own(norm_).copy_(row_norms(m, own(w)));
      own(gain_).copy_(m.magnitude / own(norm_));
    } else {
      own(shift_).copy_(m.bias).mul_(m.scale);
    }
  }
  // The layer's own bias is in there by then, and stays what it is.
  if (dora && bias_.defined()) shift_ = bias_ * gain_.neg().add_(1);
}

void LoraLinear::forward(const Tensor& x, uint32_t first_token, Tensor& out) {
  ProductTail tail{.bias = bias_};
  if (!active_) return base_->forward(x, tail, out);
  if (drops_dora()) return forward_dropped_dora(x, first_token, out);
  tail.t = project(x, first_token);
  tail.u = &up_;
  base_->forward(x, tail, out);
  if (gain_.defined()) out.mul_(gain_);
  if (shift_.defined()) out.add_(shift_);
}

/// With dropout the adapter sees another x than W does: y = W x + b + (g (W + scale * B A) - W) dropout(x).
void LoraLinear::forward_dropped_dora(const Tensor& x, uint32_t first_token, Tensor& out) {
  base_->forward(x, {.bias = bias_}, out);
  const Tensor w = base_->dequantize();
  for (const Slice& s : slices_) {
    const Tensor gain = gain_.narrow(0, s.of.begin, s.of.size).unsqueeze(1);
    const Tensor change = adapted_rows(s, w).mul_(gain).sub_(w.narrow(0, s.of.begin, s.of.size));
    out.narrow(1, s.of.begin, s.of.size).addmm_(seen_by(s, x, first_token), change.t());
  }
}

Tensor LoraLinear::adapted_rows(const Slice& slice, const Tensor& w) {
  return at::addmm(w.narrow(0, slice.of.begin, slice.of.size), slice.b(), slice.a(), 1, slice.scale());
}

Tensor LoraLinear::project_gradient(const Tensor& dy) {
  const Tensor inner = behind_gain(dy);
  Tensor all = gradient_.take(dy.size(0), rank_, dy.device());
  for (const Slice& s : slices_) {
    Tensor columns = all.narrow(1, s.rank_begin, s.rank);
    s.gradient.product(inner.narrow(1, s.of.begin, s.of.size), columns);
  }
  return all;
}

void LoraLinear::backward_parameters(const Tensor& x, const Tensor& dy, const Tensor& projected,
                                     uint32_t first_token) {
  const Tensor ax = project(x, first_token), inner = behind_gain(dy);
  for (const Slice& s : slices_) {
    if (s.origin) continue;
    const LoraModule& m = *s.of.module;
    const Tensor own = inner.narrow(1, s.of.begin, s.of.size);
    add_outer_sum(ax.narrow(1, s.rank_begin, s.rank), own, m.scale, m.grad_b.t());
    add_outer_sum(projected.narrow(1, s.rank_begin, s.rank), seen_by(s, x, first_token), 1, m.grad_a);
    if (m.grad_bias.defined()) m.grad_bias.add_(own.sum(0), m.scale);
  }
  if (gain_.defined()) backward_magnitude(x, dy, ax, first_token);
}

/// Of y = b + m / n * z: the sum of dy * z / n, with z computed once more.
void LoraLinear::backward_magnitude(const Tensor& x, const Tensor& dy, const Tensor& ax,
                                    uint32_t first_token) {
  const bool dropped = dropout_.active();
  const Tensor w = dropped ? base_->dequantize() : Tensor();
  Tensor z;
  if (!dropped) {
    z = at::empty_like(dy);
    base_->forward(x, {.t = ax, .u = &up_}, z);
  }
  for (const Slice& s : slices_) {
    const Tensor own =
        dropped ? seen_by(s, x, first_token).mm(adapted_rows(s, w).t()) : z.narrow(1, s.of.begin, s.of.size);
    const Tensor sum = (dy.narrow(1, s.of.begin, s.of.size) * own).sum(0);
    s.of.module->grad_magnitude.add_(sum.div_(norm_.narrow(0, s.of.begin, s.of.size)));
  }
}

void LoraLinear::backward_input(const Tensor& dy, const Tensor& projected, uint32_t first_token,
                                bool accumulate, Tensor& dx) {
  ProductTail tail{.accumulate = accumulate};
  if (!active_) return base_->backward_input(dy, tail, dx);
  if (!dropout_.active()) {
    tail.t = projected;
    tail.u = &back_;
    return base_->backward_input(behind_gain(dy), tail, dx);
  }
  base_->backward_input(dy, tail, dx);
  const Tensor w = drops_dora() ? base_->dequantize() : Tensor();
  for (const Slice& s : slices_) {
    Tensor part = input_gradient_.take(dx.size(0), dx.size(1), dx.device());
    at::mm_out(part, projected.narrow(1, s.rank_begin, s.rank), s.a());
    if (w.defined()) {
      const Tensor gain = gain_.narrow(0, s.of.begin, s.of.size);
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
  Tensor dropped = dropped_.take(x.size(0), x.size(1), x.device());
  dropout_apply(x, d, false, dropped);
  return dropped;
}

Tensor LoraLinear::project(const Tensor& x, uint32_t first_token) {
  Tensor all = projected_.take(x.size(0), rank_, x.device());
  if (!dropout_.active()) {
    down_.product(x, all);
    return all;
  }
  for (const Slice& s : slices_) {
    Tensor columns = all.narrow(1, s.rank_begin, s.rank);
    s.down.product(seen_by(s, x, first_token), columns);
  }
  return all;
}

}  // namespace peft
