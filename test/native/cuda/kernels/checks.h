#pragma once

#include <string>

#include "shim.h"

// Each runs the kernels of a set over many shapes in one order and throws at the first number that is not
// what plain C++ gives.

namespace peft::cuda {

/// The shim itself, and the reference's number formats.
void check_shim();

void check_dequantize(int set, shim::Order order);
void check_four_bit_linear(int set, shim::Order order);
void check_int8(int set, shim::Order order);
void check_attention(int set, shim::Order order);
void check_attention_backward(int set, shim::Order order);
void check_layer_norm(int set, shim::Order order);
void check_gelu(int set, shim::Order order);
void check_pooling(int set, shim::Order order);

inline void require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}

inline unsigned blocks_for(long long count, long long each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace peft::cuda
