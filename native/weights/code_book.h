#pragma once

#include <array>
#include <cstdint>

#include "weights/weight_storage.h"

namespace peft {

/// A quantisation map and the decision thresholds between its values, in rising order: the nearest code of x
/// is order[number of thresholds below x], so that a value on a threshold takes the lower code. Values, codes
/// and ties are those of bitsandbytes (backends/default/ops.py).
template <int N>
struct CodeBook {
  std::array<float, N> value;          // by code
  std::array<uint8_t, N> order;        // codes by rising value
  std::array<float, N - 1> threshold;  // halfway between neighbours, in fp32

  uint8_t nearest(float x) const {
    int low = 0, high = N - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (threshold[middle] < x) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return order[low];
  }
};

/// The 16 values of NF4 or FP4. NF4: quantiles of a normal distribution (QLoRA, appendix E); FP4: a sign, two
/// bits of exponent, one of mantissa.
const CodeBook<16>& four_bit_code_book(WeightFormat format);

/// The signed dynamic map of 8 bits that double quantisation stores absmax in (create_dynamic_map).
const CodeBook<256>& dynamic_code_book();

}  // namespace peft
