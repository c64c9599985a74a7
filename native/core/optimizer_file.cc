#include "core/optimizer_file.h"

#include <ATen/ops/full.h>

#include <map>

#include "error.h"
#include "weights/safetensors.h"

namespace peft {
namespace {

constexpr const char* kSteps = "step";

/// Both moments as views in the shapes of the matrices that they belong to.
std::map<std::string, Tensor> named_moments(const TrainedParameters& parameters, const Adam& adam) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [key, view] : parameters.named_like_trained(adam.first_moment()))
    tensors["exp_avg." + key] = view;
  for (const auto& [key, view] : parameters.named_like_trained(adam.second_moment()))
    tensors["exp_avg_sq." + key] = view;
  return tensors;
}

EngineError not_ours(const std::string& path, const std::string& what) {
  return EngineError("CHECKPOINT_CORRUPT", path + ": " + what,
                     "It does not belong to these weights; go on from another checkpoint.");
}

}  // namespace

void save_optimizer(const std::string& path, const TrainedParameters& parameters, const Adam& adam) {
  std::map<std::string, Tensor> tensors = named_moments(parameters, adam);
  tensors[kSteps] = at::full({1}, adam.steps(), at::TensorOptions().dtype(at::kLong));
  write_safetensors(path, tensors);
}

void load_optimizer(const std::string& path, const TrainedParameters& parameters, Adam& adam) {
  const SafetensorsFile file(path);
  const std::map<std::string, Tensor> targets = named_moments(parameters, adam);
  if (!file.has(kSteps)) throw not_ours(path, std::string("tensor \"") + kSteps + "\" is missing");
  const Tensor steps = file.read(kSteps);
  if (steps.scalar_type() != at::kLong || steps.numel() != 1 || steps.item<int64_t>() < 0)
    throw not_ours(path, std::string("\"") + kSteps + "\" is not one whole number");
  for (const auto& [key, entry] : file.table()) {
    if (key != kSteps && targets.count(key) == 0) throw not_ours(path, "unexpected tensor \"" + key + "\"");
  }
  std::map<std::string, Tensor> values;
  for (const auto& [key, target] : targets) {
    if (!file.has(key)) throw not_ours(path, "tensor \"" + key + "\" is missing");
    const Tensor value = file.read_float(key);
    if (value.sizes() != target.sizes())
      throw not_ours(path, "tensor \"" + key + "\" has another shape than what it belongs to");
    values[key] = value;
  }
  for (const auto& [key, target] : targets) target.copy_(values.at(key));
  adam.set_steps(steps.item<int64_t>());
}

}  // namespace peft
