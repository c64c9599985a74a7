#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "weights/weight_storage.h"

namespace peft {

/// What `<weight>.quant_state.bitsandbytes__nf4` (or `__fp4`) holds: the JSON that bitsandbytes' QuantState
/// packs.
struct QuantState {
  WeightFormat format = WeightFormat::kNf4;
  int64_t block_size = 64;
  std::vector<int64_t> shape;
  bool nested = false;
  int64_t nested_block_size = 256;
  double nested_offset = 0;
};

/// Throws QUANT_STATE naming `where` for text that is not such a JSON or a value that is out of range.
QuantState parse_quant_state(const std::string& json, const std::string& where);

/// The same text as Python's json.dumps gives, `dtype` being float32.
std::string format_quant_state(const QuantState& state);

}  // namespace peft
