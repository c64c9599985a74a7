#pragma once

#include <cstdint>

namespace peft {

/// Where a dropout mask is drawn. Masks are a pure function of (seed, step, site, token, column), never of
/// how a batch was split or threaded, so backward draws them again instead of keeping them.
///
/// Column j of row `token` is word (j / 16) % 4 of Philox4x32-10 with counter
/// {j / 64 * 16 + j % 16, token, step, site} and key {seed low, seed high}: 16 lanes of one draw fill 64
/// columns. The probabilities of attention, where texts are short and queries are lanes, have a layout of
/// their own: key j of query `token` is word j % 4 with counter {token, j / 4, step, site}.
struct Dropout {
  float rate = 0;
  uint64_t seed = 0;
  uint32_t step = 0;
  /// Which dropout layer of the model; attention adds the head in the upper bits.
  uint32_t site = 0;
  /// Row 0 of this call within the whole batch.
  uint32_t first_token = 0;

  bool active() const { return rate > 0; }
  /// A word below this is dropped.
  uint32_t threshold() const { return static_cast<uint32_t>(static_cast<double>(rate) * 4294967296.0); }
  float scale() const { return 1.0f / (1.0f - rate); }
  Dropout at_head(int64_t head) const {
    Dropout d = *this;
    d.site |= static_cast<uint32_t>(head + 1) << 16;
    return d;
  }
};

}  // namespace peft
