#pragma once

#include <vector>

#include "core/adapter.h"
#include "core/buffer.h"
#include "kernels/kernels.h"
#include "weights/frozen_linear.h"
#include "weights/gemm.h"

namespace peft {

/// A module of the adapter and the rows of the frozen matrix that it adds to: query, key and value share one
/// matrix.
struct LoraSlice {
  LoraModule* module;
  int64_t begin;
  int64_t size;
  /// Its dropout on x draws masks of its own.
  uint32_t dropout_site;
};

/// A frozen linear layer with LoRA on some or all of its rows.
///
/// Without dropout on x the adapter is folded into a dense copy once a step, W + scale * B A, so that forward
/// and the input gradient are one product each; otherwise the low-rank path runs apart. Both give the same
/// numbers.
class LoraLinear {
 public:
  LoraLinear(FrozenLinear* base, Tensor bias) : base_(base), bias_(std::move(bias)) {}

  void attach(std::vector<LoraSlice> slices) { slices_ = std::move(slices); }
  bool adapted() const { return !slices_.empty(); }
  /// Bytes that training packs beside the frozen weight where that is dense: one copy for the input gradient,
  /// and one more where the adapter is folded in.
  int64_t training_copies() const {
    return base_->dense() ? 4 * base_->in_features() * base_->out_features() * (adapted() ? 2 : 1) : 0;
  }

  /// Chooses how the next passes run; call it whenever the adapter's weights have changed. `dropout` is the
  /// adapter's (site and first token are filled in here and in the calls below).
  void prepare(bool use_adapter, const Dropout& dropout);

  /// out [T, out] = x W' + bias + scale * B(A(dropout(x))); bias is left out where it was given as undefined.
  void forward(const Tensor& x, uint32_t first_token, Tensor& out);
  /// Adds the gradients of A and B for output gradient dy [T, out].
  void backward_parameters(const Tensor& x, const Tensor& dy, uint32_t first_token);
  /// dx [T, in], added to if accumulate.
  void backward_input(const Tensor& dy, uint32_t first_token, bool accumulate, Tensor& dx);

 private:
  enum class Mode { kBase, kFolded, kApart };

  Dropout slice_dropout(const LoraSlice& slice, uint32_t first_token) const;
  /// x as this slice's A sees it.
  Tensor dropped(const LoraSlice& slice, const Tensor& x, uint32_t first_token);

  FrozenLinear* base_;
  Tensor bias_;
  std::vector<LoraSlice> slices_;
  Mode mode_ = Mode::kBase;
  Dropout dropout_;
  PackedWeight folded_;
  Buffer dropped_, input_gradient_;
};

}  // namespace peft
