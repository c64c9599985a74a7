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

/// A and B with scale * B A near `weight` [out, in], for an adapter that runs over what they leave of it.
/// kPissa: its first singular values, the best of their rank; with `iterations`, by subspace iteration from a
/// random start (Halko, Martinsson and Tropp, 2011). kOlora: the first rows of R and columns of Q of weight =
/// Q R. Throws USAGE for a rank beyond the matrix's.
InitialFactors factors_of(const Tensor& weight, AdapterInit init, int64_t iterations, int64_t rank,
                          double scale, const InitKey& key);

}  // namespace peft
