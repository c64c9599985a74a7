#include "core/lora_linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>

namespace peft {

void LoraLinear::attach(std::vector<LoraSlice> slices) {
  slices_ = std::move(slices);
  factors_.clear();
  rank_ = 0;
  active_ = false;
  packed_version_ = 0;
  for (const LoraSlice& s : slices_) {
    const int64_t rank = s.module->a.size(0);
    factors_.push_back({ThinWeight(), ThinWeight(), rank_, rank});
    rank_ += rank;
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
  for (size_t i = 0; i < slices_.size(); i++) {
    const LoraModule& m = *slices_[i].module;
    factors_[i].gradient.assign(m.b, m.scale);
    if (dropout.active()) factors_[i].down.assign(m.a.t(), 1);
    a.push_back(m.a);
    up.push_back({m.b.t(), slices_[i].begin, m.scale});
    back.push_back({m.a, 0, 1});
  }
  if (!dropout.active()) down_.assign(at::cat(a).t(), 1);
  up_.assign(base_->out_features(), up);
  back_.assign(base_->in_features(), back);
}

void LoraLinear::forward(const Tensor& x, uint32_t first_token, Tensor& out) {
  ProductTail tail{.bias = bias_};
  if (active_) {
    tail.t = project(x, first_token);
    tail.u = &up_;
  }
  base_->forward(x, tail, out);
}

Tensor LoraLinear::project_gradient(const Tensor& dy) {
  Tensor all = gradient_.take(dy.size(0), rank_, dy.device());
  for (size_t i = 0; i < slices_.size(); i++) {
    Tensor columns = all.narrow(1, factors_[i].rank_begin, factors_[i].rank);
    factors_[i].gradient.product(dy.narrow(1, slices_[i].begin, slices_[i].size), columns);
  }
  return all;
}

void LoraLinear::backward_parameters(const Tensor& x, const Tensor& dy, const Tensor& projected,
                                     uint32_t first_token) {
  const Tensor ax = project(x, first_token);
  for (size_t i = 0; i < slices_.size(); i++) {
    const LoraSlice& s = slices_[i];
    const Factors& f = factors_[i];
    add_outer_sum(ax.narrow(1, f.rank_begin, f.rank), dy.narrow(1, s.begin, s.size), s.module->scale,
                  s.module->grad_b.t());
    const Dropout d = slice_dropout(s, first_token);
    Tensor seen = x;
    if (d.active()) {
      seen = dropped_.take(x.size(0), x.size(1), x.device());
      dropout_apply(x, d, false, seen);
    }
    add_outer_sum(projected.narrow(1, f.rank_begin, f.rank), seen, 1, s.module->grad_a);
  }
}

void LoraLinear::backward_input(const Tensor& dy, const Tensor& projected, uint32_t first_token,
                                bool accumulate, Tensor& dx) {
  ProductTail tail{.accumulate = accumulate};
  if (active_ && !dropout_.active()) {
    tail.t = projected;
    tail.u = &back_;
  }
  base_->backward_input(dy, tail, dx);
  if (!active_ || !dropout_.active()) return;
  for (size_t i = 0; i < slices_.size(); i++) {
    Tensor part = input_gradient_.take(dx.size(0), dx.size(1), dx.device());
    const Factors& f = factors_[i];
    at::mm_out(part, projected.narrow(1, f.rank_begin, f.rank), slices_[i].module->a);
    dropout_apply(part, slice_dropout(slices_[i], first_token), true, dx);
  }
}

Dropout LoraLinear::slice_dropout(const LoraSlice& slice, uint32_t first_token) const {
  Dropout d = dropout_;
  d.site = slice.dropout_site;
  d.first_token = first_token;
  return d;
}

Tensor LoraLinear::project(const Tensor& x, uint32_t first_token) {
  Tensor all = projected_.take(x.size(0), rank_, x.device());
  if (!dropout_.active()) {
    down_.product(x, all);
    return all;
  }
  for (size_t i = 0; i < slices_.size(); i++) {
    Tensor dropped = dropped_.take(x.size(0), x.size(1), x.device());
    dropout_apply(x, slice_dropout(slices_[i], first_token), false, dropped);
    Tensor columns = all.narrow(1, factors_[i].rank_begin, factors_[i].rank);
    factors_[i].down.product(dropped, columns);
  }
  return all;
}

}  // namespace peft
