#pragma once

#include <vector>

#include "core/encoder.h"
#include "core/loaded_adapter.h"

namespace peft {

/// Session::encode with the adapters that the texts take.
std::vector<float> encode_texts(Encoder& encoder, const TokenBatch& batch, const TextAdapters& used,
                                bool normalize, int64_t micro_batch_tokens);

}  // namespace peft
