#include "weights.h"

#include <algorithm>
#include <cmath>

#include "shim.h"

namespace peft::cuda {
namespace {

std::vector<unsigned char> random_bytes(size_t count, std::mt19937& random) {
  std::vector<unsigned char> out(count);
  for (unsigned char& each : out) each = static_cast<unsigned char>(random());
  return out;
}

std::vector<float> random_floats(size_t count, float low, float high, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> out(count);
  for (float& each : out) each = uniform(random);
  return out;
}

size_t blocks_of(const FourBitCase& shape) {
  const long long count = static_cast<long long>(shape.rows) * shape.columns;
  return static_cast<size_t>((count + shape.block_size - 1) / shape.block_size);
}

int log2_of(int power) {
  int shift = 0;
  while (1 << shift < power) shift++;
  return shift;
}

/// Rounds to `bits` significant bits, no finer than 2^lowest, infinite from `limit` on.
double rounded(double x, int bits, int lowest, double limit) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent = 0;
  std::frexp(x, &exponent);
  const int unit = std::max(exponent - bits, lowest);
  const double out = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  return std::fabs(out) >= limit ? std::copysign(INFINITY, x) : out;
}

/// An odd count of bytes moves the first one off its alignment, or leaves room behind the last. Only rows of
/// whole groups are read word by word in `four_bit_linear`; `dequantize` reads all that way.
size_t code_alignment(const FourBitCase& shape) { return shape.columns % 8 == 0 || shape.rows == 1 ? 4 : 1; }

}  // namespace

FourBitWeight::FourBitWeight(const FourBitCase& shape, unsigned seed)
    : shape(shape), codes(0), table(0), absmax(0), absmax_codes(0), absmax_table(0), nested_absmax(0) {
  std::mt19937 random(seed);
  const size_t blocks = blocks_of(shape);
  codes = Guarded<unsigned char>(random_bytes(static_cast<size_t>(count() + 1) / 2, random),
                                 code_alignment(shape));
  table = Guarded<float>(random_floats(16, -1, 1, random));
  if (!shape.nested) {
    absmax = Guarded<float>(random_floats(blocks, 0.1f, 2, random));
    return;
  }
  absmax_codes = Guarded<unsigned char>(random_bytes(blocks, random));
  absmax_table = Guarded<float>(random_floats(256, -1, 1, random));
  nested_absmax = Guarded<float>(random_floats((blocks + 255) / 256, 0.1f, 0.5f, random));
  absmax_offset = 0.7310586f;
}

FourBitView FourBitWeight::view() const {
  const bool nested = shape.nested;
  return {codes.data(),
          table.data(),
          nested ? nullptr : absmax.data(),
          nested ? absmax_codes.data() : nullptr,
          nested ? absmax_table.data() : nullptr,
          nested ? nested_absmax.data() : nullptr,
          absmax_offset,
          log2_of(shape.block_size),
          8};
}

float FourBitWeight::value(long long element) const {
  const unsigned char byte = codes[static_cast<size_t>(element / 2)];
  const int code = element % 2 == 0 ? byte / 16 : byte % 16;
  const auto block = static_cast<size_t>(element / shape.block_size);
  float scale = 0;
  if (shape.nested) {
    const float part = absmax_table[absmax_codes[block]] * nested_absmax[block / 256];
    scale = part + absmax_offset;
  } else {
    scale = absmax[block];
  }
  return table[static_cast<size_t>(code)] * scale;
}

Outliers::Outliers(int rows, int columns, double share, int dense_row, unsigned seed)
    : index(0), value(0), rows(0) {
  std::mt19937 random(seed);
  std::bernoulli_distribution chosen(share);
  std::normal_distribution<float> normal(0, 20);
  std::vector<int> indices, starts = {0};
  std::vector<Half> values;
  for (int row = 0; row < rows; row++) {
    for (int k = 0; k < columns; k++) {
      const int element = row * columns + k;
      // The ends of rows too: the places where bounds go wrong.
      const bool edge = share > 0 && (k == 0 || k == columns - 1);
      if (!chosen(random) && row != dense_row && !edge) continue;
      indices.push_back(element);
      values.push_back(Number<Half>::make(normal(random)));
    }
    starts.push_back(static_cast<int>(indices.size()));
  }
  index = Guarded<int>(indices);
  value = Guarded<Half>(values);
  this->rows = Guarded<int>(starts);
}

double rounded_to_half(double x) { return rounded(x, 11, -24, 65536); }
double rounded_to_bfloat16(double x) { return rounded(x, 8, -133, 0x1p128); }

Half Number<Half>::make(float x) { return {shim::float_to_half(x)}; }
double Number<Half>::value(Half x) { return shim::half_to_float(x.bits); }
Bfloat16 Number<Bfloat16>::make(float x) {
  const auto nearest = static_cast<float>(rounded_to_bfloat16(x));
  return {static_cast<unsigned short>(__float_as_uint(nearest) >> 16)};
}
double Number<Bfloat16>::value(Bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

}  // namespace peft::cuda
