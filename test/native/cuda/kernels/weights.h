#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "guarded.h"
#include "kernel_args.h"

// Inputs of the kernels, and what their numbers mean, written apart from the kernels.

namespace peft::cuda {

struct FourBitCase {
  int rows, columns;
  int block_size;
  bool nested;
};

/// A 4-bit weight of random codes.
struct FourBitWeight {
  FourBitWeight(const FourBitCase& shape, unsigned seed);

  long long count() const { return static_cast<long long>(shape.rows) * shape.columns; }
  FourBitView view() const;
  /// Without outliers.
  float value(long long element) const;

  FourBitCase shape;
  Guarded<unsigned char> codes;
  Guarded<float> table, absmax;
  Guarded<unsigned char> absmax_codes;
  Guarded<float> absmax_table, nested_absmax;
  float absmax_offset = 0;
};

struct Outliers {
  /// About `share` of all, the ends of every row, and all of `dense_row`; none where share is 0 and dense_row
  /// is -1.
  Outliers(int rows, int columns, double share, int dense_row, unsigned seed);

  Guarded<int> index;
  Guarded<Half> value;
  Guarded<int> rows;  // where each row's begin
};

/// x rounded to 11 or 8 bits (half precision, bfloat16) as a double, ties to even.
double rounded_to_half(double x);
double rounded_to_bfloat16(double x);

template <typename T>
struct Number;
template <>
struct Number<float> {
  static constexpr const char* suffix = "f32";
  static constexpr double epsilon = 0x1p-24;
  static float make(float x) { return x; }
  static double value(float x) { return x; }
  static double round(double x) { return static_cast<float>(x); }
};
template <>
struct Number<Half> {
  static constexpr const char* suffix = "f16";
  static constexpr double epsilon = 0x1p-11;
  static Half make(float x);
  static double value(Half x);
  static double round(double x) { return rounded_to_half(x); }
};
template <>
struct Number<Bfloat16> {
  static constexpr const char* suffix = "bf16";
  static constexpr double epsilon = 0x1p-8;
  static Bfloat16 make(float x);
  static double value(Bfloat16 x);
  static double round(double x) { return rounded_to_bfloat16(x); }
};

/// Normally distributed.
template <typename T>
Guarded<T> random_numbers(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Guarded<T> out(count);
  for (size_t i = 0; i < count; i++) out[i] = Number<T>::make(normal(random));
  return out;
}

}  // namespace peft::cuda
