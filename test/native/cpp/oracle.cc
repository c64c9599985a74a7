#include "oracle.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "kernels/kernels.h"

namespace peft::test {
namespace {

using at::Tensor;

std::string layer_key(int64_t i) { return "encoder.layer." + std::to_string(i) + "."; }

class Oracle {
 public:
  Oracle(const ModelShape& shape, const Weights& bert, const AdapterSpec& spec, const Weights& adapter,
         bool training, const PassOptions& pass, bool train_model)
      : shape_(shape), bert_(bert), spec_(spec), training_(training), pass_(pass) {
    for (const auto& [key, value] : adapter) {
      const int64_t axis = key.find("lora_A") != std::string::npos ? 0 : 1;
      const bool halves = splits_base(spec.init);
      const int64_t size = halves ? value.size(axis) / 2 : 0;
      lora_[key] = (halves ? value.narrow(axis, 0, size) : value).clone().requires_grad_(true);
      if (halves) origin_[key] = value.narrow(axis, size, size).clone();
    }
    if (!train_model) return;
    for (auto& [key, value] : bert_) value = value.clone().requires_grad_(true);
  }

  Tensor embed_text(const TokenBatch& batch, int64_t text, Pooling pooling) {
    first_ = batch.offsets[text];
    const int64_t length = batch.offsets[text + 1] - first_;
    const Tensor ids =
        at::tensor(std::vector<int64_t>(batch.ids.begin() + first_, batch.ids.begin() + first_ + length));
    Tensor x = w("embeddings.word_embeddings.weight").index_select(0, ids) +
               w("embeddings.position_embeddings.weight").slice(0, 0, length) +
               w("embeddings.token_type_embeddings.weight")[0];
    x = drop(norm(x, "embeddings.LayerNorm"), shape_.hidden_dropout, 0);
    for (int64_t i = 0; i < shape_.num_layers; i++) x = layer(i, x);
    return pooling == Pooling::kCls ? x[0] : x.mean(0);
  }

  void stop_dropout() { training_ = false; }

  Weights gradients() const {
    Weights out;
    for (const Weights* weights : {&lora_, &bert_}) {
      for (const auto& [key, value] : *weights) {
        if (value.grad().defined()) out[key] = value.grad();
      }
    }
    return out;
  }

 private:
  const Tensor& w(const std::string& key) const { return bert_.at(key); }

  Tensor norm(const Tensor& x, const std::string& key) const {
    return at::layer_norm(x, {shape_.hidden_size}, w(key + ".weight"), w(key + ".bias"),
                          shape_.layer_norm_eps);
  }

  Dropout of(double rate, uint32_t site) const {
    return {static_cast<float>(rate), pass_.seed, pass_.step, site, static_cast<uint32_t>(first_)};
  }

  Tensor drop(const Tensor& x, double rate, uint32_t site) const {
    if (!training_ || rate == 0) return x;
    return x * reference::dropout_mask(of(rate, site), x.size(0), x.size(1), at::kCPU);
  }

  Tensor linear(const Tensor& x, const std::string& module, uint32_t lora_site) const {
    Tensor y = at::linear(x, w(module + ".weight"), w(module + ".bias"));
    for (const LoraModuleSpec& m : spec_.modules) {
      if (m.name != module) continue;
      const std::string key = "base_model.model." + module;
      const Tensor a = lora_.at(key + ".lora_A.weight"), b = lora_.at(key + ".lora_B.weight");
      const Tensor seen = drop(x, spec_.dropout, lora_site);
      Tensor change = m.scale * seen.matmul(a.t()).matmul(b.t());
      if (spec_.bias) change = change + m.scale * lora_.at(key + ".lora_B.bias");
      if (spec_.dora) {
        // As PEFT has it: the norm is no part of the graph.
        const Tensor& weight = w(module + ".weight");
        const Tensor norm = (weight + m.scale * b.detach().matmul(a.detach())).norm(2, {1});
        const Tensor gain = lora_.at(key + ".lora_magnitude_vector") / norm;
        change = (gain - 1) * seen.matmul(weight.t()) + gain * change;
      }
      if (splits_base(spec_.init)) {
        change = change + m.scale * x.matmul(origin_.at(key + ".lora_A.weight").t())
                                        .matmul(origin_.at(key + ".lora_B.weight").t());
      }
      y = y + change;
    }
    return y;
  }

  Tensor layer(int64_t i, const Tensor& x) const {
    const std::string at = layer_key(i);
    const auto site = [&](DropoutSite s) { return dropout_site(i, s); };
    const Tensor q = linear(x, at + "attention.self.query", site(DropoutSite::kQuery));
    const Tensor k = linear(x, at + "attention.self.key", site(DropoutSite::kKey));
    const Tensor v = linear(x, at + "attention.self.value", site(DropoutSite::kValue));
    const int64_t size = shape_.head_size();
    std::vector<Tensor> contexts;
    for (int64_t h = 0; h < shape_.num_heads; h++) {
      const auto head = [&](const Tensor& t) { return t.slice(1, h * size, (h + 1) * size); };
      const Tensor scores = head(q).matmul(head(k).t()) / std::sqrt(static_cast<double>(size));
      const Dropout dropout = of(shape_.attention_dropout, site(DropoutSite::kAttention)).at_head(h);
      Tensor p = at::softmax(scores, 1);
      if (training_ && dropout.active())
        p = p * reference::attention_dropout_mask(dropout, p.size(0), p.size(1), at::kCPU);
      contexts.push_back(p.matmul(head(v)));
    }
    const Tensor attended =
        linear(at::cat(contexts, 1), at + "attention.output.dense", site(DropoutSite::kLoraAttentionOutput));
    const Tensor h = norm(drop(attended, shape_.hidden_dropout, site(DropoutSite::kAttentionOutput)) + x,
                          at + "attention.output.LayerNorm");
    const Tensor u = at::gelu(linear(h, at + "intermediate.dense", site(DropoutSite::kLoraIntermediate)));
    const Tensor y = linear(u, at + "output.dense", site(DropoutSite::kLoraOutput));
    return norm(drop(y, shape_.hidden_dropout, site(DropoutSite::kOutput)) + h, at + "output.LayerNorm");
  }

  const ModelShape& shape_;
  Weights bert_;
  const AdapterSpec& spec_;
  bool training_;
  PassOptions pass_;
  Weights lora_, origin_;  // the origin as the file has it, its sign in B
  int64_t first_ = 0;
};

Tensor row_of(const std::vector<float>& vectors, size_t row, int64_t dimension) {
  const auto first = vectors.begin() + static_cast<int64_t>(row) * dimension;
  return at::tensor(std::vector<float>(first, first + dimension));
}

Tensor pair_loss(const std::vector<Tensor>& rows, const std::vector<float>& labels) {
  Tensor loss = at::zeros({});
  for (size_t i = 0; i < labels.size(); i++) {
    const Tensor cosine = (rows[2 * i] * rows[2 * i + 1]).sum();
    loss = loss + (labels[i] * (1 - cosine) + (1 - labels[i]) * cosine.clamp_min(0)).square();
  }
  return loss / static_cast<double>(labels.size());
}

Tensor ranking_loss(const std::vector<Tensor>& rows, int64_t each, double scale) {
  const Tensor vectors = at::stack(rows).view({-1, each, rows[0].size(0)});
  std::vector<Tensor> candidates;
  for (int64_t i = 1; i < each; i++) candidates.push_back(vectors.select(1, i));
  const Tensor scores = scale * vectors.select(1, 0).mm(at::cat(candidates).t());
  return (scores.logsumexp(1) - scores.diagonal()).mean();
}

}  // namespace

ModelShape tiny_shape() {
  ModelShape s;
  s.vocab_size = 101;
  s.hidden_size = 48;
  s.num_layers = 3;
  s.num_heads = 3;
  s.intermediate_size = 96;
  s.max_positions = 80;
  s.type_vocab_size = 2;
  return s;
}

Weights random_bert(const ModelShape& s) {
  at::manual_seed(5);
  const int64_t d = s.hidden_size, f = s.intermediate_size;
  Weights w;
  const auto norm = [&](const std::string& key) {
    w[key + ".weight"] = 1 + 0.3 * at::randn({d});
    w[key + ".bias"] = 0.3 * at::randn({d});
  };
  const auto linear = [&](const std::string& key, int64_t out, int64_t in) {
    w[key + ".weight"] = at::randn({out, in}) / std::sqrt(static_cast<double>(in));
    w[key + ".bias"] = 0.1 * at::randn({out});
  };
  w["embeddings.word_embeddings.weight"] = at::randn({s.vocab_size, d});
  w["embeddings.position_embeddings.weight"] = 0.3 * at::randn({s.max_positions, d});
  w["embeddings.token_type_embeddings.weight"] = 0.3 * at::randn({s.type_vocab_size, d});
  norm("embeddings.LayerNorm");
  for (int64_t i = 0; i < s.num_layers; i++) {
    for (const char* name : {"query", "key", "value"}) linear(layer_key(i) + "attention.self." + name, d, d);
    linear(layer_key(i) + "attention.output.dense", d, d);
    linear(layer_key(i) + "intermediate.dense", f, d);
    linear(layer_key(i) + "output.dense", d, f);
    norm(layer_key(i) + "attention.output.LayerNorm");
    norm(layer_key(i) + "output.LayerNorm");
  }
  linear("pooler.dense", d, d);
  return w;
}

AdapterSpec spec_for(const ModelShape& shape, const std::vector<std::string>& suffixes, int64_t rank,
                     double scale, double dropout) {
  AdapterSpec spec;
  spec.dropout = dropout;
  for (int64_t i = 0; i < shape.num_layers; i++) {
    for (const std::string& suffix : suffixes) spec.modules.push_back({layer_key(i) + suffix, rank, scale});
  }
  return spec;
}

Weights random_adapter(const AdapterSpec& spec, const ModelShape& shape) {
  at::manual_seed(6);
  Weights w;
  for (const LoraModuleSpec& m : spec.modules) {
    const auto ends_with = [&](const std::string& s) {
      return m.name.size() >= s.size() && m.name.compare(m.name.size() - s.size(), s.size(), s) == 0;
    };
    const bool up = ends_with("intermediate.dense"),
               down = ends_with(".output.dense") && !ends_with("attention.output.dense");
    const int64_t in = down ? shape.intermediate_size : shape.hidden_size,
                  out = up ? shape.intermediate_size : shape.hidden_size;
    const int64_t rank = splits_base(spec.init) ? 2 * m.rank : m.rank;
    w["base_model.model." + m.name + ".lora_A.weight"] =
        at::randn({rank, in}) / std::sqrt(static_cast<double>(in));
    w["base_model.model." + m.name + ".lora_B.weight"] = 0.3 * at::randn({out, rank});
    if (spec.bias) w["base_model.model." + m.name + ".lora_B.bias"] = 0.3 * at::randn({out});
    if (spec.dora) w["base_model.model." + m.name + ".lora_magnitude_vector"] = 1 + 0.3 * at::randn({out});
  }
  return w;
}

OracleResult run_oracle(const ModelShape& shape, const Weights& bert, const AdapterSpec& spec,
                        const Weights& adapter, Pooling pooling, const ExampleBatch& batch, bool training,
                        const PassOptions& pass, bool train_model) {
  Oracle oracle(shape, bert, spec, adapter, training, pass, train_model);
  const auto unit = [&](const TokenBatch& texts, int64_t text) {
    const Tensor pooled = oracle.embed_text(texts, text, pooling);
    return pooled / pooled.norm().clamp_min(1e-12);
  };
  std::vector<Tensor> rows;
  int64_t encoded = 0;
  size_t given = 0;
  for (int64_t i = 0; i < batch.examples() * batch.texts_per_example; i++) {
    const int64_t place = i % batch.texts_per_example - batch.fixed.first;
    const bool fixed = place >= 0 && place < batch.fixed.count;
    rows.push_back(fixed ? row_of(batch.fixed.vectors, given++, shape.hidden_size)
                         : unit(batch.tokens, encoded++));
  }
  Tensor loss = pass.loss.kind == LossKind::kMultipleNegativesRanking
                    ? ranking_loss(rows, batch.texts_per_example, pass.loss.scale)
                    : pair_loss(rows, batch.labels);
  if (batch.kept.weight > 0) {
    oracle.stop_dropout();
    const int64_t texts = batch.kept.tokens.texts();
    Tensor drift = at::zeros({});
    for (int64_t i = 0; i < texts; i++) {
      const Tensor base = row_of(batch.kept.vectors, static_cast<size_t>(i), shape.hidden_size);
      drift = drift + 1 - (unit(batch.kept.tokens, i) * base).sum();
    }
    loss = loss + batch.kept.weight * drift / static_cast<double>(texts);
  }
  loss.backward();
  return {at::stack(rows).detach(), loss.item<double>(), oracle.gradients()};
}

ExampleBatch some_pairs(const ModelShape& shape, const std::vector<int32_t>& lengths) {
  at::manual_seed(7);
  ExampleBatch batch;
  batch.tokens.offsets = {0};
  for (const int32_t n : lengths) batch.tokens.offsets.push_back(batch.tokens.offsets.back() + n);
  const Tensor ids = at::randint(shape.vocab_size, {batch.tokens.offsets.back()}, at::kInt);
  batch.tokens.ids.assign(ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel());
  for (size_t i = 0; i < lengths.size() / 2; i++) batch.labels.push_back(i % 2 == 0 ? 1.0f : 0.0f);
  return batch;
}

TemporaryFile::TemporaryFile(const std::string& name) {
  const char* folder = std::getenv("TMPDIR");
  path_ = std::string(folder != nullptr ? folder : "/tmp") + "/peft-train-" + std::to_string(::getpid()) +
          "-" + name;
}

TemporaryFile::~TemporaryFile() { ::unlink(path_.c_str()); }

}  // namespace peft::test
