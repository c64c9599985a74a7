#include "core/input_components.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <utility>

#include "error.h"

namespace peft {
namespace {

constexpr std::array<std::pair<LayerMatrix, const char*>, 4> kNames = {{
    {LayerMatrix::kQkv, "qkv"},
    {LayerMatrix::kAttentionOutput, "attentionOutput"},
    {LayerMatrix::kIntermediate, "intermediate"},
    {LayerMatrix::kOutput, "output"},
}};

std::string key_of(const InputSite& site) {
  return std::to_string(site.layer) + "." + kNames[static_cast<size_t>(site.matrix)].second;
}

std::vector<float> to_vector(const Tensor& tensor) {
  const Tensor host = tensor.to(at::kCPU, at::kFloat).contiguous();
  const float* data = host.const_data_ptr<float>();
  return std::vector<float>(data, data + host.numel());
}

}  // namespace

LayerMatrix parse_layer_matrix(const std::string& name) {
  for (const auto& [matrix, known] : kNames) {
    if (name == known) return matrix;
  }
  throw EngineError("USAGE", "Unknown matrix \"" + name + "\" of a layer");
}

InputComponents::InputComponents(std::vector<InputSite> sites, const ModelShape& shape) {
  for (const InputSite& site : sites) {
    const int64_t in = site.matrix == LayerMatrix::kOutput ? shape.intermediate_size : shape.hidden_size;
    if (site.layer < 0 || site.layer >= shape.num_layers || site.count > in) {
      throw EngineError("USAGE", std::to_string(site.count) + " components of the input of " + key_of(site) +
                                     ": the model has " + std::to_string(shape.num_layers) +
                                     " layers, and the input " + std::to_string(in) + " numbers");
    }
    moments_.push_back({site, 0, {}, {}, {}});
  }
}

void InputComponents::add(int64_t layer, LayerMatrix matrix, const Tensor& x) {
  for (Moments& m : moments_) {
    if (m.site.layer != layer || m.site.matrix != matrix) continue;
    if (!m.shift.defined()) {
      const auto wide = x.options().dtype(at::kDouble);
      m.shift = x.mean(0);
      m.sum = at::zeros({x.size(1)}, wide);
      m.products = at::zeros({x.size(1), x.size(1)}, wide);
    }
    const Tensor y = x - m.shift;
    m.rows += x.size(0);
    m.sum.add_(y.sum(at::IntArrayRef{0}, false, at::kDouble));
    m.products.add_(at::mm(y.t(), y));
  }
}

std::map<std::string, std::vector<float>> InputComponents::result() const {
  std::map<std::string, std::vector<float>> out;
  for (const Moments& m : moments_) {
    if (m.rows == 0) throw EngineError("USAGE", "Principal components need at least one text");
    const Tensor mean = m.sum / m.rows;
    const Tensor covariance = m.products / m.rows - at::outer(mean, mean);
    const auto [values, vectors] = at::linalg_eigh(covariance);  // the smallest first
    const int64_t in = values.size(0), first = in - m.site.count;
    const Tensor leading = vectors.narrow(1, first, m.site.count).t().flip(0);
    const Tensor largest = leading.gather(1, leading.abs().argmax(1, true));
    const Tensor ratios = values.narrow(0, first, m.site.count).flip(0) / covariance.trace();
    if (!ratios.isfinite().all().item<bool>()) {
      throw EngineError("NOT_FINITE", "What goes into " + key_of(m.site) + " has no finite variance");
    }
    out[key_of(m.site) + ".components"] = to_vector(leading * largest.sign());
    out[key_of(m.site) + ".ratios"] = to_vector(ratios);
  }
  return out;
}

std::map<std::string, std::vector<float>> input_components(Encoder& encoder, const TokenBatch& batch,
                                                           const std::vector<InputSite>& sites,
                                                           int64_t micro_batch_tokens) {
  InputComponents components(sites, encoder.shape());
  encoder.use({}, LoraUse::kForward, {});
  encoder.observe(
      [&](int64_t layer, LayerMatrix matrix, const Tensor& x) { components.add(layer, matrix, x); });
  try {
    for (const auto& [first, texts] : split_batch(batch, 1, micro_batch_tokens))
      encoder.forward(make_micro_batch(batch, first, texts, encoder.device()), false);
  } catch (...) {
    encoder.observe({});
    throw;
  }
  encoder.observe({});
  return components.result();
}

}  // namespace peft
