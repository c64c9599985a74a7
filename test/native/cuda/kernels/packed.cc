#include "packed.h"

#include <cmath>

#include "checks.h"
#include "kernels/philox.h"

namespace peft::cuda {
namespace {

std::vector<int> starts_of(const std::vector<int>& lengths) {
  std::vector<int> starts = {0};
  for (const int length : lengths) starts.push_back(starts.back() + length);
  return starts;
}

double keep(const Dropout& d, std::array<uint32_t, 4> counter, int word) {
  if (!d.active()) return 1;
  const auto words = philox(counter, {static_cast<uint32_t>(d.seed), static_cast<uint32_t>(d.seed >> 32)});
  return words[static_cast<size_t>(word)] < d.threshold() ? 0 : d.scale();
}

}  // namespace

PackedTexts::PackedTexts(const std::vector<int>& lengths)
    : texts(static_cast<size_t>(starts_of(lengths).back())), offsets(starts_of(lengths)) {
  for (int text = 0; text < count(); text++) {
    for (int t = offsets[text]; t < offsets[text + 1]; t++) texts[static_cast<size_t>(t)] = text;
  }
}

Dropout some_dropout(float rate) { return {rate, 0x123456789ABCDEF, 7, 19, 0xfffffff0}; }

DropoutView view(const Dropout& d) {
  return {
      d.threshold(), d.scale(),    static_cast<unsigned>(d.seed), static_cast<unsigned>(d.seed >> 32), d.step,
      d.site,        d.first_token};
}

double keep_of(const Dropout& d, int row, int column) {
  const auto lane = static_cast<uint32_t>(column / 64 * 16 + column % 16);
  return keep(d, {lane, d.first_token + static_cast<uint32_t>(row), d.step, d.site}, column / 16 % 4);
}

double keep_of_key(const Dropout& d, int head, int query, int key) {
  const Dropout of_head = d.at_head(head);
  return keep(
      of_head,
      {d.first_token + static_cast<uint32_t>(query), static_cast<uint32_t>(key / 4), d.step, of_head.site},
      key % 4);
}

void require_near(float found, double expected, double size, const std::string& what) {
  // Also false for NaN.
  require(std::fabs(found - expected) <= 4e-6 * size,
          what + " is " + std::to_string(found) + ", not " + std::to_string(expected));
}

}  // namespace peft::cuda
