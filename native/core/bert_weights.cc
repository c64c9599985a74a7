#include "core/bert_weights.h"

#include <ATen/ops/cat.h>

#include "core/error.h"
#include "core/safetensors.h"

namespace peft {
namespace {

std::string format_shape(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

class BertReader {
 public:
  BertReader(const std::string& path, const ModelShape& shape, at::Device device)
      : file_(path), shape_(shape), device_(device) {
    for (const char* prefix : {"", "bert.", "model."}) {
      if (file_.has(std::string(prefix) + "embeddings.word_embeddings.weight")) {
        prefix_ = prefix;
        return;
      }
    }
    throw EngineError(
        "MODEL_CORRUPT",
        path +
            ": no tensor embeddings.word_embeddings.weight (nor below bert.); not the weights of a BertModel",
        "Give a folder that transformers' BertModel.save_pretrained wrote.");
  }

  BertWeights read() {
    const int64_t d = shape_.hidden_size, f = shape_.intermediate_size;
    BertWeights w;
    w.word = tensor("embeddings.word_embeddings.weight", {shape_.vocab_size, d});
    w.position = tensor("embeddings.position_embeddings.weight", {shape_.max_positions, d});
    w.token_type =
        tensor("embeddings.token_type_embeddings.weight", {shape_.type_vocab_size, d})[0].contiguous();
    w.embedding_norm = norm("embeddings.LayerNorm");
    for (int64_t i = 0; i < shape_.num_layers; i++) w.layers.push_back(layer(i, d, f));
    w.has_pooler = file_.has(prefix_ + "pooler.dense.weight");
    if (w.has_pooler) parameters_ += d * d + d;
    w.parameters = parameters_;
    w.bytes = bytes_;
    return w;
  }

 private:
  LayerWeights layer(int64_t index, int64_t d, int64_t f) {
    const std::string at = "encoder.layer." + std::to_string(index) + ".";
    const std::string self = at + "attention.self.";
    LayerWeights w;
    std::vector<Tensor> weights, biases;
    for (const char* name : {"query", "key", "value"}) {
      weights.push_back(tensor(self + name + ".weight", {d, d}));
      biases.push_back(tensor(self + name + ".bias", {d}));
    }
    w.qkv = make_dense_linear(at::cat(weights));
    w.qkv_bias = at::cat(biases);
    w.attention_output = linear(at + "attention.output.dense", d, d, w.attention_output_bias);
    w.intermediate = linear(at + "intermediate.dense", f, d, w.intermediate_bias);
    w.output = linear(at + "output.dense", d, f, w.output_bias);
    w.attention_norm = norm(at + "attention.output.LayerNorm");
    w.output_norm = norm(at + "output.LayerNorm");
    return w;
  }

  std::unique_ptr<FrozenLinear> linear(const std::string& key, int64_t out, int64_t in, Tensor& bias) {
    bias = tensor(key + ".bias", {out});
    return make_dense_linear(tensor(key + ".weight", {out, in}));
  }

  LayerNormWeights norm(const std::string& key) {
    // Checkpoints converted from TensorFlow before 2019 call them gamma and beta.
    const bool old = file_.has(prefix_ + key + ".gamma");
    return {tensor(key + (old ? ".gamma" : ".weight"), {shape_.hidden_size}),
            tensor(key + (old ? ".beta" : ".bias"), {shape_.hidden_size}), shape_.layer_norm_eps};
  }

  Tensor tensor(const std::string& name, at::IntArrayRef expected) {
    const std::string key = prefix_ + name;
    if (!file_.has(key)) {
      throw EngineError(
          "MODEL_CORRUPT", file_.path() + ": tensor \"" + key + "\" is missing",
          "config.json and model.safetensors do not belong together, or the file is incomplete.");
    }
    const std::vector<int64_t>& found = file_.table().at(key).shape;
    if (at::IntArrayRef(found) != expected) {
      throw EngineError("MODEL_CORRUPT",
                        file_.path() + ": tensor \"" + key + "\" has shape " + format_shape(found) +
                            ", config.json asks for " + format_shape(expected),
                        "config.json and model.safetensors do not belong together.");
    }
    const Tensor value = file_.read_float(key).to(device_);
    parameters_ += value.numel();
    bytes_ += static_cast<int64_t>(value.nbytes());
    return value;
  }

  SafetensorsFile file_;
  const ModelShape& shape_;
  at::Device device_;
  std::string prefix_;
  int64_t parameters_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace

BertWeights load_bert_weights(const std::string& path, const ModelShape& shape, at::Device device) {
  return BertReader(path, shape, device).read();
}

}  // namespace peft
