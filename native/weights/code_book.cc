#include "weights/code_book.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace peft {
namespace {

template <int N>
CodeBook<N> with_thresholds(const std::array<float, N>& value, const std::array<uint8_t, N>& order) {
  CodeBook<N> book{value, order, {}};
  for (int i = 0; i + 1 < N; i++) book.threshold[i] = (value[order[i]] + value[order[i + 1]]) / 2;
  return book;
}

CodeBook<16> make_nf4() {
  std::array<uint8_t, 16> order;
  for (int i = 0; i < 16; i++) order[i] = static_cast<uint8_t>(i);
  return with_thresholds<16>(
      {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
       -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
       0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
       0.7229568362236023f, 1.0f},
      order);
}

CodeBook<16> make_fp4() {
  constexpr float kTwelfths[8] = {0, 0.0625f, 8, 12, 4, 6, 2, 3};
  std::array<float, 16> value;
  for (int i = 0; i < 8; i++) {
    value[i] = kTwelfths[i] / 12;
    value[8 + i] = i == 0 ? 0.0f : -value[i];
  }
  // Code 8 is a second zero; the lower one of the two comes first.
  return with_thresholds<16>(value, {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3});
}

CodeBook<256> make_dynamic() {
  std::vector<float> all = {0.0f, 1.0f};
  for (int exponent = 0; exponent < 7; exponent++) {
    // 2^exponent values between 0.1 and 1 for each power of ten: the middles of a linspace in fp32.
    const int steps = 1 << exponent;
    const float step = (1.0f - 0.1f) / static_cast<float>(steps);
    // As torch.linspace: counted from the nearer end, product and sum rounded once.
    const auto at = [&](int i) {
      return i < (steps + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1f)
                                 : std::fma(-step, static_cast<float>(steps - i), 1.0f);
    };
    const auto scale = static_cast<float>(std::pow(10.0, exponent - 6));
    for (int i = 0; i < steps; i++) {
      const float middle = (at(i) + at(i + 1)) / 2.0f * scale;
      all.push_back(middle);
      all.push_back(-middle);
    }
  }
  std::sort(all.begin(), all.end());
  std::array<float, 256> value;
  std::array<uint8_t, 256> order;
  for (int i = 0; i < 256; i++) {
    value[i] = all[i];
    order[i] = static_cast<uint8_t>(i);
  }
  return with_thresholds<256>(value, order);
}

}  // namespace

const CodeBook<16>& four_bit_code_book(WeightFormat format) {
  static const CodeBook<16> nf4 = make_nf4(), fp4 = make_fp4();
  return format == WeightFormat::kNf4 ? nf4 : fp4;
}

const CodeBook<256>& dynamic_code_book() {
  static const CodeBook<256> book = make_dynamic();
  return book;
}

}  // namespace peft
