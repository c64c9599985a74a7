#pragma once

#include <cstdint>

namespace peft {

/// Dropout layers are numbered by where they stand in the model: below 16 bits, since attention adds its head
/// above. Site 0 is the embeddings'.
enum class DropoutSite : uint32_t {
  kAttention,
  kAttentionOutput,
  kOutput,
  kQuery,
  kKey,
  kValue,
  kLoraAttentionOutput,
  kLoraIntermediate,
  kLoraOutput,
  kCount
};

inline uint32_t dropout_site(int64_t layer, DropoutSite site) {
  return 1 + static_cast<uint32_t>(layer) * static_cast<uint32_t>(DropoutSite::kCount) +
         static_cast<uint32_t>(site);
}

}  // namespace peft
