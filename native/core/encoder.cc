#include "core/encoder.h"

#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/native_layer_norm.h>

#include <algorithm>

namespace peft {
namespace {

/// table[rows[t]] += values[t] in the order of the tokens, whatever the device.
void add_rows(const Tensor& table, const Tensor& rows, const Tensor& values) {
  if (!table.defined()) return;
  if (table.device().is_cpu()) {
    table.index_add_(0, rows, values);
  } else {
    // index_add_ of a GPU adds in any order, this one sorts.
    table.index_put_({rows.to(at::kLong)}, values, true);
  }
}

}  // namespace

Encoder::Encoder(const ModelShape& shape, BertWeights weights, Pooling pooling, at::Device device,
                 bool recompute)
    : shape_(shape),
      weights_(std::move(weights)),
      pooling_(pooling),
      device_(device),
      recompute_(recompute),
      word_(weights_.word),
      position_(weights_.position),
      token_type_(weights_.token_type),
      embedding_norm_(weights_.embedding_norm),
      lowest_trained_(shape.num_layers),
      buffers_(shape.num_layers),
      kept_(shape.num_layers),
      outputs_(shape.num_layers) {
  for (int64_t i = 0; i < shape.num_layers; i++) layers_.emplace_back(shape_, weights_.layers[i], i);
}

void Encoder::take(const AdapterLayers* adapter) {
  const OwnParameters* own = adapter == nullptr ? nullptr : adapter->own();
  const MergedWeights* merged = adapter == nullptr ? nullptr : adapter->merged();
  const bool replaces = own != nullptr || merged != nullptr;
  if (!replaces && !replaced_) return;
  replaced_ = replaces;
  for (int64_t i = 0; i < shape_.num_layers; i++)
    layers_[i].take(own ? own->layer(i) : nullptr, merged ? &merged->layer(i) : nullptr);
  const EmbeddingTensors mine = own ? own->embeddings() : EmbeddingTensors{};
  const auto tensor = [](const Tensor& a, const Tensor& b) { return a.defined() ? a : b; };
  word_ = tensor(mine.word, weights_.word);
  position_ = tensor(mine.position, weights_.position);
  token_type_ = mine.token_type.defined() ? mine.token_type[0] : weights_.token_type;
  const LayerNormWeights& norm = weights_.embedding_norm;
  embedding_norm_ = {tensor(mine.norm.gamma, norm.gamma), tensor(mine.norm.beta, norm.beta), norm.eps};
  embedding_gradients_ = own ? own->embedding_gradients() : EmbeddingTensors{};
}

void Encoder::train(const ModelTensors& gradients) {
  embedding_gradients_ = gradients.embeddings;
  for (int64_t i = 0; i < shape_.num_layers; i++) layers_[i].train(gradients.layers[i]);
  find_lowest_trained();
}

void Encoder::find_lowest_trained() {
  const auto first = std::ranges::find_if(layers_, &EncoderLayer::trains);
  lowest_trained_ = embedding_gradients_.any() ? 0 : first - layers_.begin();
}

void Encoder::use(const std::vector<AdapterLayers*>& adapters, LoraUse use, const DropoutPlan& dropout) {
  dropout_ = dropout;
  adapted_ = !adapters.empty();
  take(adapters.size() == 1 ? adapters.front() : nullptr);
  for (EncoderLayer& layer : layers_) layer.use(adapters, use, dropout.adapter(), scratch_);
  find_lowest_trained();
}

Tensor Encoder::forward(const MicroBatch& micro, bool keep) {
  const int64_t tokens = micro.layout.tokens, d = shape_.hidden_size;
  // Layers that backward never reaches share the memory of one layer, and take turns with two buffers between
  // them.
  Tensor x = between_[0].take(tokens, d, device_);
  if (word_.scalar_type() == at::kFloat) {
    embed(micro.ids, micro.layout, word_, position_, token_type_, embedding_norm_,
          dropout_.hidden(0, micro.first_token), x);
  } else {
    // A table of 16 bits: its rows come out as a table of fp32 with one row a token.
    const Tensor rows = word_.index_select(0, micro.ids).to(at::kFloat);
    const Tensor each = at::arange(tokens, micro.ids.options());
    embed(each, micro.layout, rows, position_, token_type_, embedding_norm_,
          dropout_.hidden(0, micro.first_token), x);
  }
  for (int64_t i = 0; i < shape_.num_layers; i++) {
    const bool kept = keep && i >= lowest_trained_;
    kept_[i] =
        buffers_[kept && !recompute_ ? i : 0].take(tokens, shape_, layers_[i].keeps_context(), device_);
    kept_[i].input = x;
    Tensor out = (kept ? outputs_[i] : between_[(i + 1) % 2]).take(tokens, d, device_);
    layers_[i].forward(micro, dropout_, kept_[i], scratch_, out);
    x = out;
  }
  if (pooling_ == Pooling::kCls) {
    return x.index_select(0, micro.layout.device_offsets.narrow(0, 0, micro.texts));
  }
  Tensor pooled = at::empty({micro.texts, d}, x.options());
  mean_pool(x, micro.layout, pooled);
  return pooled;
}

void Encoder::backward(const MicroBatch& micro, const Tensor& dpooled) {
  if (lowest_trained_ == shape_.num_layers) return;
  Tensor gradient = gradient_.take(micro.layout.tokens, shape_.hidden_size, device_);
  if (pooling_ == Pooling::kCls) {
    gradient.zero_().index_copy_(0, micro.layout.device_offsets.narrow(0, 0, micro.texts).to(at::kLong),
                                 dpooled);
  } else {
    mean_pool_backward(dpooled, micro.layout, gradient);
  }
  for (int64_t i = shape_.num_layers - 1; i >= lowest_trained_; i--) {
    // The last layer's activations are still there. Dropout masks depend on seed, step and place alone.
    if (recompute_ && i < shape_.num_layers - 1) {
      Tensor out = recomputed_.take(micro.layout.tokens, shape_.hidden_size, device_);
      layers_[i].forward(micro, dropout_, kept_[i], scratch_, out);
    }
    const bool lowest = i == lowest_trained_ && !embedding_gradients_.any();
    layers_[i].backward(micro, dropout_, kept_[i], scratch_, lowest, gradient);
  }
  if (embedding_gradients_.any()) backward_embeddings(micro, gradient);
}

void Encoder::backward_embeddings(const MicroBatch& micro, const Tensor& gradient) {
  const int64_t tokens = micro.layout.tokens, d = shape_.hidden_size;
  // x = dropout(LayerNorm(word + position + type)): the sum and its moments were not kept.
  Tensor sum = scratch_.attention_normed.take(tokens, d, device_);
  sum.copy_(word_.index_select(0, micro.ids));  // which may have 16 bits
  sum.add_(position_.index_select(0, micro.layout.positions)).add_(token_type_);
  const LayerNormWeights& norm = embedding_norm_;
  const auto [unused, mean, rstd] = at::native_layer_norm(sum, {d}, norm.gamma, norm.beta, norm.eps);
  const RowMoments moments{mean.flatten(), rstd.flatten()};
  Tensor dnormed = gradient;
  const Dropout dropout = dropout_.hidden(0, micro.first_token);
  if (dropout.active()) {
    dnormed = scratch_.gradient_masked.take(tokens, d, device_);
    dropout_apply(gradient, dropout, false, dnormed);
  }
  add_norm_gradients(dnormed, sum, moments, norm, embedding_gradients_.norm);
  Tensor dsum = scratch_.gradient_sum.take(tokens, d, device_), none;
  layer_norm_backward(dnormed, sum, moments, norm, {}, dsum, none);
  add_rows(embedding_gradients_.word, micro.ids, dsum);
  add_rows(embedding_gradients_.position, micro.layout.positions, dsum);
  const Tensor& types = embedding_gradients_.token_type;
  if (types.defined()) types[0].add_(dsum.sum(0));
}

int64_t Encoder::buffer_bytes() const {
  const LayerScratch& s = scratch_;
  int64_t total = s.context.bytes() + s.attention_normed.bytes() + s.gelu.bytes() + s.gradient_sum.bytes() +
                  s.gradient_masked.bytes() + s.gradient_intermediate.bytes() + s.gradient_context.bytes() +
                  s.gradient_qkv.bytes() + gradient_.bytes() + between_[0].bytes() + between_[1].bytes() +
                  recomputed_.bytes() + s.weight_gradient.bytes() + s.lora.bytes();
  for (const LayerBuffers& b : buffers_) total += b.bytes();
  for (const Buffer& b : outputs_) total += b.bytes();
  return total;
}

int64_t Encoder::planned_activations(int64_t tokens, bool training) const {
  const int64_t d = shape_.hidden_size, f = shape_.intermediate_size;
  const int64_t kept = training ? shape_.num_layers - lowest_trained_ : 0;
  // As LayerBuffers::take, LayerScratch and the buffers of Encoder.
  const bool context = std::ranges::any_of(layers_, &EncoderLayer::keeps_context);
  const int64_t layer = 3 * d + (context ? d : 0) + shape_.num_heads + d + 2 + f + d + 2;
  const bool shared = recompute_ || kept < shape_.num_layers || kept == 0;
  const int64_t forward = 2 * d + d + d + f + (shared ? layer : 0);
  const int64_t backward = training ? d + d + f + d + 3 * d + d + (recompute_ ? d : 0) : 0;
  // WeightGradient, and what backward_embeddings takes.
  const int64_t weights =
      training && embedding_gradients_.any() ? std::max(3 * d, f) + std::max(d, f) + 2 * d : 0;
  LoraFloats lora;
  for (const EncoderLayer& one : layers_) lora = larger(lora, one.planned_lora(tokens, training));
  const int64_t row = forward + backward + weights + kept * (d + (recompute_ ? 0 : layer));
  return 4 * (Buffer::capacity(tokens * row) + lora.scratch + lora.passing);
}

int64_t Encoder::gradient_bytes() const {
  int64_t total = 0;
  for (int64_t i = lowest_trained_; i < shape_.num_layers; i++) total += layers_[i].gradient_bytes();
  return total;
}

}  // namespace peft
