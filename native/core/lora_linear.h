#pragma once

#include <algorithm>
#include <vector>

#include "core/buffer.h"
#include "core/packed_batch.h"
#include "core/packed_lora.h"
#include "kernels/kernels.h"
#include "weights/frozen_linear.h"

namespace peft {

/// Buffers that live within one call, or between the calls of one matrix's backward pass: shared by all.
struct LoraScratch {
  Buffer projected, gradient, dropped, input_gradient;

  int64_t bytes() const {
    return projected.bytes() + gradient.bytes() + dropped.bytes() + input_gradient.bytes();
  }
};

/// Floats of the scratch, and of what comes and goes within a call.
struct LoraFloats {
  int64_t scratch = 0, passing = 0;

  /// Of two that take turns.
  friend LoraFloats larger(const LoraFloats& a, const LoraFloats& b) {
    return {std::max(a.scratch, b.scratch), std::max(a.passing, b.passing)};
  }
};

/// A frozen linear layer with LoRA on some or all of its rows, of one adapter or of several that share a
/// batch.
///
/// What the adapter adds, scale * B(A(x)), and what it takes from the input gradient, ride along with the
/// frozen weight's product as a term of the rank of all slices together: it is never read or written apart.
class LoraLinear {
 public:
  LoraLinear(FrozenLinear* base, Tensor bias) : base_(base), bias_(std::move(bias)) {}

  /// Takes another weight and bias for the next passes; must come before use().
  void set_base(FrozenLinear* base, const Tensor& bias) {
    base_ = base;
    bias_ = bias;
  }
  /// An adapter of the next passes, and which of its changes this is.
  struct Versioned {
    PackedLora* lora;
    uint64_t version;
  };
  /// The adapters of the next passes, in the order that the rows of a batch count them; packs what has
  /// changed. `dropout` is theirs (site and first token are filled in by the calls below). `scratch` must
  /// outlive the passes.
  void use(const std::vector<Versioned>& adapters, LoraUse use, const Dropout& dropout, LoraScratch& scratch);
  bool adapted() const;
  /// What a pass of so many tokens takes for the adapters, and what passes within its products.
  LoraFloats planned(int64_t tokens, bool training) const;
  /// Bytes that training asks for beside the frozen weight.
  int64_t gradient_bytes() const { return base_->gradient_bytes(); }

  /// out [T, out] = x W' + bias + scale * B(A(dropout(x))), as LoraModule has it with a magnitude or an
  /// origin, for each row by its adapter; bias is left out where it was given as undefined. Every row comes
  /// out as if its adapter's rows were a batch of their own.
  void forward(const Tensor& x, const AdapterRows& rows, uint32_t first_token, Tensor& out);
  // Backward knows one adapter.
  /// scale * dy B, [T, rank of all slices]: what the two calls below share. Valid until the next.
  Tensor project_gradient(const Tensor& dy);
  /// Adds the gradients of what trains for output gradient dy [T, out].
  void backward_parameters(const Tensor& x, const Tensor& dy, const Tensor& projected, uint32_t first_token);
  /// dx [T, in], added to if accumulate. `projected` is read where there is an adapter.
  void backward_input(const Tensor& dy, const Tensor& projected, uint32_t first_token, bool accumulate,
                      Tensor& dx);

 private:
  using Slice = PackedLora::Slice;

  Dropout slice_dropout(const Slice& slice, uint32_t first_token) const;
  /// x as the slice sees it. Valid until the next call.
  Tensor seen_by(const Slice& slice, const Tensor& x, uint32_t first_token);
  /// A(dropout(x)) of every slice, [T, rank].
  Tensor project(const PackedLora& lora, const Tensor& x, uint32_t first_token);
  /// W + scale * B A of the slice's rows of W.
  static Tensor adapted_rows(const Slice& slice, const Tensor& w);
  /// The one that trains.
  const PackedLora& trained() const { return *adapters_.front(); }
  /// The gradient of what the gain multiplies.
  Tensor behind_gain(const Tensor& dy) const;
  void forward_mixed(const Tensor& x, const AdapterRows& rows, Tensor& out);
  void forward_dropped_dora(const PackedLora& lora, const Tensor& x, uint32_t first_token, Tensor& out);
  void backward_magnitude(const Tensor& x, const Tensor& dy, const Tensor& ax, uint32_t first_token);
  bool drops_dora(const PackedLora& lora) const { return dropout_.active() && lora.gain().defined(); }

  FrozenLinear* base_;
  Tensor bias_;
  std::vector<PackedLora*> adapters_;
  Dropout dropout_;
  LoraScratch* scratch_ = nullptr;
};

}  // namespace peft
