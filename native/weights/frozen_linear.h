#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "kernels/cpu/table.h"
#include "weights/blockwise.h"
#include "weights/low_rank.h"
#include "weights/row_int8.h"
#include "weights/weight_storage.h"

namespace peft {

using at::Tensor;

/// The weight of a linear layer, W [out, in], as its products read it. A storage format is one
/// implementation; what trains lies elsewhere, in fp32.
class FrozenLinear {
 public:
  virtual ~FrozenLinear() = default;

  virtual int64_t in_features() const = 0;
  virtual int64_t out_features() const = 0;
  /// Bytes that the weight occupies.
  virtual int64_t bytes() const = 0;
  /// A fresh copy of W as fp32 [out, in].
  virtual Tensor dequantize() const = 0;
  /// Bytes that the first call of backward_input adds to them.
  virtual int64_t gradient_bytes() const { return 0; }
  /// The most floats that come and go within a call of so many rows, forward or, in training, backward too.
  virtual int64_t passing_floats(int64_t rows, bool training) const {
    (void)rows, (void)training;
    return 0;
  }
  /// out [T, out] = x W' + tail.
  virtual void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const = 0;
  /// dx [T, in] = dy W + tail.
  virtual void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) = 0;
};

/// W in fp32.
std::unique_ptr<FrozenLinear> make_dense_linear(const Tensor& weight);

/// W in fp16 or bfloat16, multiplied in fp32.
std::unique_ptr<FrozenLinear> make_half_linear(const Tensor& weight,
                                               const CpuKernels& kernels = cpu_kernels());

/// W rounded to fp16 or bfloat16, and what it is multiplied with too; sums are fp32.
std::unique_ptr<FrozenLinear> make_rounded_linear(const Tensor& weight, at::ScalarType type,
                                                  const CpuKernels& kernels = cpu_kernels());

/// A W in fp32 that training changes: `version`, which must outlive this, counts the changes. `products` is
/// what both operands of a product are rounded to. Bytes are those of the packed copies, without W itself.
std::unique_ptr<FrozenLinear> make_trained_linear(const Tensor& weight, const uint64_t& version,
                                                  WeightFormat products);

/// W in 4-bit codes, as one or more parts [out_i, in] of the same storage, one below the other; multiplied in
/// fp32.
std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device,
                                                   const CpuKernels& kernels = cpu_kernels());

/// How the input gradient of an 8-bit weight is multiplied: dy times the dequantised W in fp32, or both
/// rounded to 8 bits, W once more with a scale for every column.
enum class Int8Gradient { kExact, kRounded };

/// W in 8 bits. Forward rounds each row of x to 8 bits too and sums in int32; entries of x that reach
/// `threshold` (0: none) are multiplied in fp16 precision with the matching columns instead.
std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device,
                                               Int8Gradient gradient = Int8Gradient::kExact,
                                               const CpuKernels& kernels = cpu_kernels());

/// The same weights in plain ATen calls, for devices other than the CPU and as the reference of the tests.
namespace reference {
std::unique_ptr<FrozenLinear> make_half_linear(const Tensor& weight);
std::unique_ptr<FrozenLinear> make_rounded_linear(const Tensor& weight, at::ScalarType type);
std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device);
std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device,
                                               Int8Gradient gradient = Int8Gradient::kExact);
}  // namespace reference

}  // namespace peft
