#include "core/weight_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/sum.h>

#include "kernels/cpu/table.h"

namespace peft {

void WeightGradient::add(const Tensor& x, const Tensor& dy, const LinearTensors& gradients) {
  if (gradients.bias.defined()) gradients.bias.add_(dy.sum(0));
  const Tensor& weight = gradients.weight;
  if (!weight.defined()) return;
  if (!x.device().is_cpu()) {
    weight.addmm_(dy.t(), x);
    return;
  }
  const int64_t tokens = x.size(0), in = x.size(1), out = dy.size(1);
  const CpuKernels& kernels = cpu_kernels();
  const Tensor rows = transposed_.take(out, tokens, x.device());
  rows.copy_(dy.t());
  const Tensor packed = packed_.take(kernels.packed_floats(tokens, in), 0, x.device());
  kernels.pack(x.const_data_ptr<float>(), x.stride(0), 1, tokens, in, packed.mutable_data_ptr<float>());
  Tail tail;
  tail.accumulate = true;
  kernels.product_packed(rows.const_data_ptr<float>(), tokens, packed.const_data_ptr<float>(), out, tokens,
                         in, tail, weight.mutable_data_ptr<float>(), weight.stride(0));
}

void add_norm_gradients(const Tensor& dout, const Tensor& y, const RowMoments& moments,
                        const LayerNormWeights& norm, const NormTensors& gradients) {
  if (!gradients.any()) return;
  const auto [none, gamma, beta] = at::native_layer_norm_backward(
      dout, y, {y.size(1)}, moments.mean.unsqueeze(1), moments.rstd.unsqueeze(1), norm.gamma, norm.beta,
      {false, gradients.gamma.defined(), gradients.beta.defined()});
  if (gamma.defined()) gradients.gamma.add_(gamma);
  if (beta.defined()) gradients.beta.add_(beta);
}

}  // namespace peft
