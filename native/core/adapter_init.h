#pragma once

#include "core/adapter.h"

namespace peft {

struct InitialFactors {
  Tensor a, b;  // [rank, in], [out, rank], fp32 on the CPU
};

/// Where the random numbers of a module come from.
struct InitKey {
  uint64_t seed;
  uint32_t module;  // its number in the adapter
};

/// A and B of a fresh module, in the distributions of PEFT's LoraLayer.reset_lora_parameters and
/// orthogonal_init. Throws USAGE for an odd rank where it must be even.
InitialFactors initial_factors(AdapterInit init, int64_t rank, int64_t in, int64_t out, const InitKey& key);

}  // namespace peft
