#include "core/pairwise_loss.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

namespace peft {
namespace {

std::vector<double> to_doubles(const Tensor& scores) {
  const Tensor host = scores.to(at::kCPU, at::kDouble).contiguous();
  const double* data = host.const_data_ptr<double>();
  return std::vector<double>(data, data + host.numel());
}

Tensor to_tensor(const std::vector<double>& values, at::Device device) {
  Tensor t = at::empty({static_cast<int64_t>(values.size())}, at::TensorOptions().dtype(at::kFloat));
  std::copy(values.begin(), values.end(), t.mutable_data_ptr<float>());
  return t.to(device);
}

}  // namespace

PairwiseLoss::PairwiseLoss(Comparison comparison, ScoreLoss loss, bool separable)
    : comparison_(comparison), loss_(std::move(loss)), separable_(separable) {}

LossValue PairwiseLoss::operator()(const Tensor& vectors, at::ArrayRef<float> labels,
                                   int64_t batch_examples) const {
  const Tensor a = vectors.select(1, 0), b = vectors.select(1, 1);
  const std::vector<double> scores = to_doubles(comparison_(a, b));
  std::vector<double> slopes(scores.size(), 0.0);
  LossValue result;
  result.value = loss_(scores, labels, static_cast<double>(batch_examples), slopes);
  result.gradient = at::zeros_like(vectors);
  comparison_.backward(a, b, to_tensor(slopes, vectors.device()), result.gradient.select(1, 0),
                       result.gradient.select(1, 1));
  return result;
}

}  // namespace peft
