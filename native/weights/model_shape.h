#pragma once

#include <cstdint>

namespace peft {

/// Sizes and rates of a BERT encoder with absolute positions, post-norm and erf GELU.
struct ModelShape {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t intermediate_size = 0;
  int64_t max_positions = 0;
  int64_t type_vocab_size = 0;
  double layer_norm_eps = 1e-12;
  double hidden_dropout = 0;
  double attention_dropout = 0;

  int64_t head_size() const { return hidden_size / num_heads; }
};

enum class Pooling { kMean, kCls };

}  // namespace peft
