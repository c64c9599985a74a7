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
  void assign(const Tensor& b, double scale);
  /// out [T, n] = scale * x [T, k] B.
  void product(const Tensor& x, Tensor& out) const;

 private:
  const CpuKernels* kernels_;
  int64_t k_ = 0, n_ = 0;
  Tensor packed_;  // on the CPU; elsewhere scale * B
};

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
  const Tensor& matrix() const { return matrix_; }
  /// The term t U on the CPU.
  void fill(const Tensor& t, Tail& tail) const;

 private:
  const CpuKernels* kernels_;
  Tensor matrix_;         // [rank, n]
  Tensor packed_, used_;  // as Tail has them; on the CPU
};

/// What a product adds to its result as it stores it: bias [n], which may be undefined, what is there
/// already, and a term t U.
struct ProductTail {
  Tensor bias = {};
  bool accumulate = false;
  Tensor t = {};  // [T, rank], or undefined
  const WideFactor* u = nullptr;
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
