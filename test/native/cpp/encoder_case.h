#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "check.h"
#include "oracle.h"

namespace peft::test {

inline const std::vector<std::string> kQkv = {"attention.self.query", "attention.self.key",
                                              "attention.self.value"};
inline const std::vector<std::string> kAll = {"attention.self.query", "attention.self.key",
                                              "attention.self.value", "attention.output.dense",
                                              "intermediate.dense",   "output.dense"};
inline const std::vector<int32_t> kLengths = {5, 17, 1, 80, 33, 2, 24, 24, 49, 7};

/// A small model with random weights, an adapter over it, and a batch.
struct Setup {
  ModelShape shape;
  AdapterSpec spec;
  Weights bert, adapter;
  Pooling pooling = Pooling::kMean;
  std::optional<WeightStorage> storage;
  bool checkpointing = false;
  ExampleBatch batch;

  Setup(const ModelShape& s, AdapterSpec a)
      : shape(s),
        spec(std::move(a)),
        bert(random_bert(s)),
        adapter(random_adapter(spec, s)),
        batch(some_pairs(s, kLengths)) {}

  std::unique_ptr<Session> session() const {
    const TemporaryFile model("model.safetensors"), lora("adapter.safetensors");
    write_safetensors(model.path(), bert);
    write_safetensors(lora.path(), adapter);
    auto session = std::make_unique<Session>(
        SessionOptions{model.path(), shape, pooling, "cpu", 0, storage, checkpointing});
    session->load_adapter(lora.path(), spec);
    return session;
  }

  OracleResult oracle(bool training, const PassOptions& pass) const {
    return run_oracle(shape, bert, spec, adapter, pooling, batch, training, pass);
  }
};

inline at::Tensor as_tensor(const std::vector<float>& v) { return at::tensor(v); }

inline constexpr PassOptions kPass = {42, 3, 1000};

/// Cosines to 1e-6, which a loss may scale, every gradient to 1e-4 of its largest entry: fp32 sums in
/// another order.
void check_gradients(const Setup& setup, const PassOptions& pass, const std::string& what);
/// Of hidden states and of attention.
Setup with_dropout(AdapterSpec spec);
/// Gives the examples so many texts, those at these places as vectors. What was a text of them stays one of
/// another example.
void anchor(Setup& setup, int64_t texts_per_example, FixedTexts places);
/// Adds texts to keep, with vectors at random.
void keep(Setup& setup, double weight);

}  // namespace peft::test
