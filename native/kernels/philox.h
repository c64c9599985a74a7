#pragma once

#include <array>
#include <cstdint>

namespace peft {

/// Philox4x32-10, a counter-based generator: a pure function of (counter, key), so a run needs no generator
/// state. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011. The vector kernels draw sixteen
/// at once.
inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t{0xD2511F53} * counter[0], p1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace peft
