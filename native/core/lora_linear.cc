#include "core/lora_linear.h"

#include <ATen/ops/mm.h>

namespace peft {

void LoraLinear::prepare(bool use_adapter, const Dropout& dropout) {
  dropout_ = dropout;
  if (!use_adapter || slices_.empty()) {
    mode_ = Mode::kBase;
    return;
  }
  mode_ = dropout.active() || !base_->dense() ? Mode::kApart : Mode::kFolded;
  if (mode_ != Mode::kFolded) return;
  const Tensor whole = base_->dequantize();
  for (const LoraSlice& s : slices_) {
    Tensor rows = whole.narrow(0, s.begin, s.size);
    multiply(s.module->b, s.module->a, s.module->scale, true, rows);
  }
  folded_.assign(whole);
}

void LoraLinear::forward(const Tensor& x, uint32_t first_token, Tensor& out) {
  if (mode_ == Mode::kFolded) return folded_.forward(x, bias_, out);
  base_->forward(x, bias_, out);
  if (mode_ == Mode::kBase) return;
  for (const LoraSlice& s : slices_) {
    Tensor columns = out.narrow(1, s.begin, s.size);
    const Tensor xa = at::mm(dropped(s, x, first_token), s.module->a.t());
    multiply(xa, s.module->b.t(), s.module->scale, true, columns);
  }
}

void LoraLinear::backward_parameters(const Tensor& x, const Tensor& dy, uint32_t first_token) {
  for (const LoraSlice& s : slices_) {
    LoraModule& m = *s.module;
    const Tensor xd = dropped(s, x, first_token), dys = dy.narrow(1, s.begin, s.size);
    multiply(dys.t(), at::mm(xd, m.a.t()), m.scale, true, m.grad_b);
    multiply(at::mm(dys, m.b).t(), xd, m.scale, true, m.grad_a);
  }
}

void LoraLinear::backward_input(const Tensor& dy, uint32_t first_token, bool accumulate, Tensor& dx) {
  if (mode_ == Mode::kFolded) return folded_.backward_input(dy, accumulate, dx);
  base_->backward_input(dy, accumulate, dx);
  if (mode_ == Mode::kBase) return;
  for (const LoraSlice& s : slices_) {
    const Tensor dxa = at::mm(dy.narrow(1, s.begin, s.size), s.module->b);
    const Dropout d = slice_dropout(s, first_token);
    if (!d.active()) {
      multiply(dxa, s.module->a, s.module->scale, true, dx);
      continue;
    }
    Tensor dxd = input_gradient_.take(dx.size(0), dx.size(1), dx.device());
    multiply(dxa, s.module->a, s.module->scale, false, dxd);
    dropout_apply(dxd, d, true, dx);
  }
}

Dropout LoraLinear::slice_dropout(const LoraSlice& slice, uint32_t first_token) const {
  Dropout d = dropout_;
  d.site = slice.dropout_site;
  d.first_token = first_token;
  return d;
}

Tensor LoraLinear::dropped(const LoraSlice& slice, const Tensor& x, uint32_t first_token) {
  const Dropout d = slice_dropout(slice, first_token);
  if (!d.active()) return x;
  Tensor out = dropped_.take(x.size(0), x.size(1), x.device());
  dropout_apply(x, d, false, out);
  return out;
}

}  // namespace peft
