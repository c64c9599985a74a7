#pragma once

#include <vector>

#include "core/adapter.h"
#include "core/buffer.h"
#include "kernels/kernels.h"
#include "weights/frozen_linear.h"

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
/// What the adapter adds, scale * B(A(x)), and what it takes from the input gradient, ride along with the
/// frozen weight's product as a term of the rank of all slices together: it is never read or written apart.
class LoraLinear {
 public:
  LoraLinear(FrozenLinear* base, Tensor bias) : base_(base), bias_(std::move(bias)) {}

  void attach(std::vector<LoraSlice> slices);
  bool adapted() const { return !slices_.empty(); }
  /// Bytes that training asks for beside the frozen weight.
  int64_t gradient_bytes() const { return base_->gradient_bytes(); }

  /// Packs the adapter's weights for the next passes, unless those of this version are packed. `dropout` is
  /// the adapter's (site and first token are filled in here and in the calls below).
  void prepare(bool use_adapter, uint64_t version, const Dropout& dropout);

  /// out [T, out] = x W' + bias + scale * B(A(dropout(x))), as LoraModule has it with a magnitude or an
  /// origin; bias is left out where it was given as undefined.
  void forward(const Tensor& x, uint32_t first_token, Tensor& out);
  /// scale * dy B, [T, rank of all slices]: what the two calls below share. Valid until the next.
  Tensor project_gradient(const Tensor& dy);
  /// Adds the gradients of what trains for output gradient dy [T, out].
  void backward_parameters(const Tensor& x, const Tensor& dy, const Tensor& projected, uint32_t first_token);
  /// dx [T, in], added to if accumulate. `projected` is read where there is an adapter.
  void backward_input(const Tensor& dy, const Tensor& projected, uint32_t first_token, bool accumulate,
                      Tensor& dx);

 private:
  /// One slice's factors as the products take them, and its columns among those of all slices.
  struct Slice {
    LoraSlice of;
    int64_t rank_begin, rank;
    bool origin;          // what the module runs without: subtracted, never dropped out, not trained
    ThinWeight down;      // A', where every slice sees another x
    ThinWeight gradient;  // scale * B

    const Tensor& a() const { return origin ? of.module->origin_a : of.module->a; }
    const Tensor& b() const { return origin ? of.module->origin_b : of.module->b; }
    double scale() const { return origin ? -of.module->scale : of.module->scale; }
  };

  /// Gain, shift and norm for the adapter's weights.
  void pack_outputs();
  Dropout slice_dropout(const Slice& slice, uint32_t first_token) const;
  /// x as the slice sees it. Valid until the next call.
  Tensor seen_by(const Slice& slice, const Tensor& x, uint32_t first_token);
  /// A(dropout(x)) of every slice, [T, rank].
  Tensor project(const Tensor& x, uint32_t first_token);
  /// W + scale * B A of the slice's rows of W.
  static Tensor adapted_rows(const Slice& slice, const Tensor& w);
  /// The gradient of what the gain multiplies.
  Tensor behind_gain(const Tensor& dy) const { return gain_.defined() ? dy.mul(gain_) : dy; }
  void forward_dropped_dora(const Tensor& x, uint32_t first_token, Tensor& out);
  void backward_magnitude(const Tensor& x, const Tensor& dy, const Tensor& ax, uint32_t first_token);
  bool drops_dora() const { return dropout_.active() && gain_.defined(); }

  FrozenLinear* base_;
  Tensor bias_;
  std::vector<Slice> slices_;
  int64_t rank_ = 0;     // of all slices
  bool active_ = false;  // the adapter is on in the next passes
  uint64_t packed_version_ = 0;
  bool packed_apart_ = false;  // every slice's A for itself, since each sees another x
  Dropout dropout_;
  ThinWeight down_;  // A' of all slices, where all see the same x
  WideFactor up_;    // scale * B' of all slices, for y
  WideFactor back_;  // A of all slices, for dx
  /// What becomes of the columns of W x + bias + the term: they are multiplied by the gain, then moved by the
  /// shift; [out], either may be undefined. With a gain, |W + scale * B A| of every row.
  Tensor gain_, shift_, norm_;
  Buffer projected_, gradient_, dropped_, input_gradient_;
};

}  // namespace peft
