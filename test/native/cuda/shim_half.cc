#include <algorithm>

#include "shim.h"

// Half precision by arithmetic, rounded to nearest, ties to even.

namespace shim {

float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
}

uint16_t float_to_half(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::fabs(value);
  if (std::isnan(value)) return 0x7fff;
  if (size >= 65520.0f) return sign | 0x7c00;
  if (size == 0) return sign;
  int exponent = 0;
  std::frexp(size, &exponent);  // size = f 2^exponent, 0.5 <= f < 1
  const int unit = std::max(exponent - 11, -24);
  // nearbyint rounds ties to even, as the default mode says.
  const int units = static_cast<int>(std::nearbyint(std::ldexp(size, -unit)));
  if (unit == -24) return sign | static_cast<uint16_t>(units);  // a carry into the exponent is right as it is
  return sign | static_cast<uint16_t>(((unit + 24) << 10) + units);
}

}  // namespace shim
