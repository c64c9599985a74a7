#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/cpu/table.h"

// LoRA's products: the narrow factors, packed for the kernels of their device.

namespace peft {

using at::Tensor;

/// A matrix B [k, n] of a few columns, for C = scale * A B.
class ThinWeight {
 public:
  explicit ThinWeight(const CpuKernels& kernels = cpu_kernels()) : kernels_(&kernels) {}
  /// Elsewhere than on the CPU a B without a scale is kept as it is, not copied.
  void assign(const Tensor& b, double scale);
  /// out [T, n] = scale * x [T, k] B.
  void product(const Tensor& x, Tensor& out) const;
  int64_t bytes() const { return packed_.defined() ? static_cast<int64_t>(packed_.nbytes()) : 0; }

 private:
  friend void product_by_rows(const Tensor& x, const std::vector<struct ThinRows>& parts, Tensor& out);

  const CpuKernels* kernels_;
  int64_t k_ = 0, n_ = 0;
  Tensor packed_;  // on the CPU; elsewhere scale * B
};

/// Rows [begin, end) of a batch and the weight of their own; null for none.
struct ThinRows {
  int64_t begin, end;
  const ThinWeight* weight;
};

/// out [T, most n] = scale * x [T, k] B for rows that each have a B of their own; what lies beside is left
/// alone. Every row comes out as if its part were a batch of its own, to the bit.
void product_by_rows(const Tensor& x, const std::vector<ThinRows>& parts, Tensor& out);

/// U [rank, n], the wide factor of a term t U that rides along with a product.
class WideFactor {
 public:
  struct Block {
    Tensor rows;  // [its rank, its columns]
    int64_t column;
    double scale;
  };

  explicit WideFactor(const CpuKernels& kernels = cpu_kernels()) : kernels_(&kernels) {}
  /// U of blocks, one below the other, zero elsewhere.
  void assign(int64_t n, const std::vector<Block>& blocks);
  /// [rank, n]; on the CPU a fresh copy.
  Tensor matrix() const;
  /// None but on the CPU.
  WidePanels panels() const {
    return {packed_.defined() ? packed_.const_data_ptr<float>() : nullptr, rows_.data()};
  }
  int64_t rank() const { return rank_; }
  int64_t bytes() const;

 private:
  void pack(const std::vector<Block>& blocks);

  const CpuKernels* kernels_;
  int64_t rank_ = 0, n_ = 0;
  Tensor matrix_;  // [rank, n], not on the CPU
  Tensor packed_;  // as WidePanels has it, on the CPU: B's own numbers and no zeros but those of padding
  std::vector<PanelRows> rows_;
};

/// Rows [begin, end) of a batch and the factor of their own; null for none.
struct WideRows {
  int64_t begin, end;
  const WideFactor* u;
};

/// The rows of a batch by their factors, part by part from the first row to the last.
class WideByRows {
 public:
  explicit WideByRows(std::vector<WideRows> parts);
  const std::vector<WideRows>& parts() const { return parts_; }
  void fill(Tail& tail) const;

 private:
  std::vector<WideRows> parts_;
  std::vector<WidePanels> panels_;  // on the CPU
  std::vector<int32_t> part_of_;    // each row
};

/// What a product adds to its result as it stores it: bias [n], which may be undefined, what is there
/// already, and a term t U, with one U or one for each part of the rows.
struct ProductTail {
  Tensor bias = {};
  bool accumulate = false;
  Tensor t = {};  // [T, rank], or undefined
  const WideFactor* u = nullptr;
  const WideByRows* by_rows = nullptr;
};

/// For the kernels of the CPU. The tail must outlive it.
Tail kernel_tail(const ProductTail& tail);
/// out = x W' + tail for a W [n, k] in plain fp32, by ATen.
void plain_product(const Tensor& x, const Tensor& transposed, const ProductTail& tail, Tensor& out);
/// out += t U, where the tail has one, by ATen.
void add_low_rank(const ProductTail& tail, Tensor& out);

/// out [m, n] += scale * a' b for a [T, m] of a few columns and b [T, n]; out may be a transposed view.
void add_outer_sum(const Tensor& a, const Tensor& b, double scale, Tensor out);

}  // namespace peft
