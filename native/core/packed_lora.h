#pragma once

#include <vector>

#include "core/adapter.h"
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

/// What an adapter is packed for: to encode, one A and one B of all slices; to train, also what its gradients
/// are computed with; to plan what memory passes will take, nothing.
enum class LoraUse { kPlan, kForward, kTraining };

/// One adapter's part in one frozen matrix: its slices and their factors, packed for the products when they
/// are first used.
class PackedLora {
 public:
  /// One slice's factors as the products take them, and its columns among those of all slices.
  struct Slice {
    LoraSlice of;
    int64_t rank_begin, rank;
    bool origin;          // what the module runs without: subtracted, never dropped out, not trained
    ThinWeight down;      // A', where every slice sees another x
    ThinWeight gradient;  // scale * B, on the CPU

    const Tensor& a() const { return origin ? of.module->origin_a : of.module->a; }
    const Tensor& b() const { return origin ? of.module->origin_b : of.module->b; }
    double scale() const { return origin ? -of.module->scale : of.module->scale; }
  };

  explicit PackedLora(const std::vector<LoraSlice>& slices);

  bool empty() const { return slices_.empty(); }
  /// Of all slices.
  int64_t rank() const { return rank_; }
  const std::vector<Slice>& slices() const { return slices_; }

  bool dora() const { return !empty() && slices_.front().of.module->magnitude.defined(); }

  /// Packs the adapter's weights for a layer of this matrix and bias, unless those of this version are packed
  /// for this use. With `apart`, x is dropped out for every slice on its own.
  void pack(uint64_t version, LoraUse use, bool apart, const FrozenLinear& base, const Tensor& bias);
  /// out [T, rank of all slices] = scale * dy B of every slice, for dy [T, out].
  void project_gradient(const Tensor& dy, Tensor& out) const;
  const ThinWeight& down() const { return down_; }
  const WideFactor& up() const { return up_; }
  const WideFactor& back() const { return back_; }
  /// What becomes of the columns of W x + bias + the term: they are multiplied by the gain, then moved by the
  /// shift; [out], either may be undefined. With a gain, |W + scale * B A| of every row.
  const Tensor& gain() const { return gain_; }
  const Tensor& shift() const { return shift_; }
  const Tensor& norm() const { return norm_; }
  /// Of what is packed, beside the weights themselves.
  int64_t bytes() const;

 private:
  void pack_outputs(const FrozenLinear& base, const Tensor& bias);

  std::vector<Slice> slices_;
  int64_t rank_ = 0;
  uint64_t version_ = 0;
  LoraUse use_ = LoraUse::kPlan;
  bool apart_ = false;
  ThinWeight down_;  // A' of all slices, where all see the same x
  WideFactor up_;    // scale * B' of all slices, for y
  WideFactor back_;  // A of all slices, for dx
  Tensor gain_, shift_, norm_;
};

}  // namespace peft
