#include "core/packed_lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

namespace peft {

PackedLora::PackedLora(const std::vector<LoraSlice>& slices) {
  for (const LoraSlice& s : slices) {
    const int64_t rank = s.module->a.size(0);
    for (const bool origin : {false, true}) {
      if (origin && !s.module->origin_a.defined()) continue;
      slices_.push_back({s, rank_, rank, origin, ThinWeight(), ThinWeight()});
      rank_ += rank;
    }
  }
}

void PackedLora::pack(uint64_t version, LoraUse use, bool apart, const FrozenLinear& base,
                      const Tensor& bias) {
  if (empty() || use == LoraUse::kPlan) return;
  // What training packs holds all that forward asks for, but for A', which is packed one way or the other.
  const bool enough = use_ == use || use_ == LoraUse::kTraining;
  if (version_ == version && enough && apart_ == apart) return;
  version_ = version;
  use_ = use;
  apart_ = apart;
  std::vector<Tensor> each_a;
  std::vector<WideFactor::Block> up;
  for (Slice& slice : slices_) {
    if (use == LoraUse::kTraining && slice.b().is_cpu()) slice.gradient.assign(slice.b(), slice.scale());
    if (apart) slice.down.assign(slice.a().t(), 1);
    each_a.push_back(slice.a());
    up.push_back({slice.b().t(), slice.of.begin, slice.scale()});
  }
  const Tensor a = at::cat(each_a);
  if (!apart) down_.assign(a.t(), 1);
  up_.assign(base.out_features(), up);
  if (use == LoraUse::kTraining) back_.assign(base.in_features(), {{a, 0, 1}});
  pack_outputs(base, bias);
}

void PackedLora::project_gradient(const Tensor& dy, Tensor& out) const {
  if (!dy.is_cpu()) {
    // One launch in place of one a slice. Zeros between the slices cost a GPU nothing, and take what is not
    // finite from one to the others; such a step is not taken.
    at::mm_out(out, dy, up_.matrix().t());
    return;
  }
  for (const Slice& s : slices_) {
    Tensor columns = out.narrow(1, s.rank_begin, s.rank);
    s.gradient.product(dy.narrow(1, s.of.begin, s.of.size), columns);
  }
}

void PackedLora::pack_outputs(const FrozenLinear& base, const Tensor& bias) {
  gain_ = shift_ = norm_ = Tensor();
  const LoraModule& first = *slices_.front().of.module;
  const bool dora = first.magnitude.defined();
  if (!dora && !first.bias.defined()) return;
  const Tensor w = dora ? base.dequantize() : Tensor();
  const int64_t out = base.out_features();
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
  if (dora && bias.defined()) shift_ = bias * gain_.neg().add_(1);
}

int64_t PackedLora::bytes() const {
  int64_t total = down_.bytes() + up_.bytes() + back_.bytes();
  for (const Tensor* t : {&gain_, &shift_, &norm_}) {
    if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  }
  for (const Slice& s : slices_) total += s.down.bytes() + s.gradient.bytes();
  return total;
}

}  // namespace peft
