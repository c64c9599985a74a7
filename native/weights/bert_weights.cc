#include "weights/bert_weights.h"

#include <ATen/ops/cat.h>

#include <algorithm>

#include "error.h"
#include "weights/bert_tensors.h"
#include "weights/linear_parts.h"
#include "weights/quant_file.h"
#include "weights/safetensors.h"

namespace peft {
namespace {

constexpr const char* kQuantiseWhole = "Quantise the whole model at once with `npx peft-train quantize`.";

std::string describe(const BlockwiseWeight& w) {
  return "in blocks of " + std::to_string(w.block_size) + (w.double_quant() ? " with 8-bit scales" : "");
}

class BertReader {
 public:
  BertReader(const std::string& path, const ModelShape& shape, const std::optional<WeightStorage>& storage,
             at::Device device)
      : file_(path), shape_(shape), device_(device), prefix_(bert_prefix(file_)) {
    stored_ = first_stored_format(file_, prefix_ + "encoder.layer.");
    if (storage) storage_ = *storage;
    if (!stored_) return;
    if (storage && storage->format != *stored_) {
      throw EngineError("ALREADY_QUANTIZED",
                        path + ": the weights are " + weight_format_name(*stored_) + " already; " +
                            weight_format_name(storage->format) + " was asked for",
                        "Leave the option out, or start from the model before it was quantised.");
    }
    storage_.format = *stored_;
    check_storage(storage_);
  }

  BertWeights read() {
    const int64_t d = shape_.hidden_size;
    BertWeights w;
    const std::string word = prefix_ + "embeddings.word_embeddings.weight";
    w.word = rounded_weight(plain(word, {shape_.vocab_size, d}), plain_type(storage_.format), named(word))
                 .to(device_);
    w.position =
        plain(prefix_ + "embeddings.position_embeddings.weight", {shape_.max_positions, d}).to(device_);
    w.token_type =
        plain(prefix_ + "embeddings.token_type_embeddings.weight", {shape_.type_vocab_size, d})[0].clone().to(
            device_);
    w.embedding_norm = norm("embeddings.LayerNorm");
    for (int64_t i = 0; i < shape_.num_layers; i++) w.layers.push_back(layer(i));
    w.has_pooler = file_.has(prefix_ + "pooler.dense.weight");
    if (w.has_pooler) parameters_ += d * d + d;
    w.storage = storage_;
    w.parameters = parameters_;
    w.other_bytes = other_bytes_;
    return w;
  }

 private:
  LayerWeights layer(int64_t index) {
    const std::string at = "encoder.layer." + std::to_string(index) + ".";
    const std::string self = at + "attention.self.";
    const int64_t d = shape_.hidden_size, f = shape_.intermediate_size;
    LayerWeights w;
    w.qkv = linear({self + "query", self + "key", self + "value"}, d, d, w.qkv_bias);
    w.attention_output = linear({at + "attention.output.dense"}, d, d, w.attention_output_bias);
    w.intermediate = linear({at + "intermediate.dense"}, f, d, w.intermediate_bias);
    w.output = linear({at + "output.dense"}, d, f, w.output_bias);
    w.attention_norm = norm(at + "attention.output.LayerNorm");
    w.output_norm = norm(at + "output.LayerNorm");
    w.products = plain_type(storage_.products);
    return w;
  }

  /// One matrix of all modules, each [out, in], one below the other.
  std::unique_ptr<FrozenLinear> linear(const std::vector<std::string>& modules, int64_t out, int64_t in,
                                       Tensor& bias) {
    std::vector<Tensor> biases;
    LinearParts parts(storage_, device_);
    for (const std::string& module : modules) {
      biases.push_back(vector(prefix_ + module + ".bias", out));
      require_format(module);
      const std::string key = prefix_ + module + ".weight";
      if (!stored_) {
        parts.add(plain(key, {out, in}), named(key));
        continue;
      }
      parameters_ += out * in;
      if (is_four_bit(storage_.format)) {
        parts.add(four_bit(module, out, in));
      } else {
        parts.add(read_row_int8(file_, prefix_ + module, out, in));
      }
    }
    bias = at::cat(biases);
    return parts.join();
  }

  /// A file is in one format throughout, as bitsandbytes writes it.
  void require_format(const std::string& module) const {
    const std::optional<WeightFormat> found = stored_format(file_, prefix_ + module);
    if (found == stored_) return;
    throw EngineError("QUANT_STATE",
                      file_.path() + ": tensor \"" + state_key(prefix_ + module, *stored_) +
                          "\" is missing; the matrix is " +
                          (found ? std::string("in ") + weight_format_name(*found) : "not quantised") +
                          ", others are in " + weight_format_name(*stored_),
                      kQuantiseWhole);
  }

  BlockwiseWeight four_bit(const std::string& module, int64_t out, int64_t in) {
    BlockwiseWeight w = read_blockwise(file_, prefix_ + module, out, in);
    if (first_.empty()) {
      first_ = module;
      first_blocks_ = describe(w);
      storage_.block_size = w.block_size;
      storage_.double_quant = w.double_quant();
      storage_.outlier_fraction = 0;
    }
    if (w.outlier_index.defined()) {
      // As many again may be left out of a matrix that is held as these are.
      const double fraction =
          (static_cast<double>(w.outlier_index.numel()) + 0.5) / static_cast<double>(w.elements());
      storage_.outlier_fraction = std::max(storage_.outlier_fraction, fraction);
    }
    // Query, key and value are one matrix here, and what is told of a model's blocks is told of all of it.
    if (describe(w) != first_blocks_) {
      throw EngineError("QUANT_STATE",
                        file_.path() + ": \"" + prefix_ + module + "\" is quantised " + describe(w) + ", \"" +
                            prefix_ + first_ + "\" " + first_blocks_ + "; all must be held alike",
                        kQuantiseWhole);
    }
    return w;
  }

  LayerNormWeights norm(const std::string& key) {
    const NormKeys names = norm_keys(file_, prefix_ + key);
    const int64_t d = shape_.hidden_size;
    return {vector(names.weight, d), vector(names.bias, d), shape_.layer_norm_eps};
  }

  /// A bias or a LayerNorm's weight, on the device.
  Tensor vector(const std::string& key, int64_t size) {
    const Tensor value = plain(key, {size}).to(device_);
    other_bytes_ += static_cast<int64_t>(value.nbytes());
    return value;
  }

  /// A tensor that is not quantised, in fp32 on the CPU.
  Tensor plain(const std::string& key, at::IntArrayRef expected) {
    require_tensor(file_, key, expected);
    const Tensor value = file_.read_float(key);
    parameters_ += value.numel();
    return value;
  }

  std::string named(const std::string& key) const { return file_.path() + ": \"" + key + "\""; }

  SafetensorsFile file_;
  const ModelShape& shape_;
  at::Device device_;
  std::string prefix_;
  std::optional<WeightFormat> stored_;  // how the file has the linear layers, if not as plain numbers
  std::string first_, first_blocks_;    // the first 4-bit matrix of the file, and its blocks
  WeightStorage storage_;
  int64_t parameters_ = 0;
  int64_t other_bytes_ = 0;
};

}  // namespace

int64_t BertWeights::linear_bytes() const {
  int64_t total = 0;
  for (const LayerWeights& l : layers) {
    total += l.qkv->bytes() + l.attention_output->bytes() + l.intermediate->bytes() + l.output->bytes();
  }
  return total;
}

int64_t BertWeights::embedding_bytes() const {
  return static_cast<int64_t>(word.nbytes() + position.nbytes() + token_type.nbytes());
}

BertWeights load_bert_weights(const std::string& path, const ModelShape& shape,
                              const std::optional<WeightStorage>& storage, at::Device device) {
  if (storage) check_storage(*storage);
  return BertReader(path, shape, storage, device).read();
}

}  // namespace peft
