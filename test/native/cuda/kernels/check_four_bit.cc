#include <cmath>

#include "checks.h"
#include "weights.h"

namespace peft::cuda {
namespace {

std::string describe(const FourBitCase& c) {
  return std::to_string(c.rows) + "x" + std::to_string(c.columns) + " in blocks of " +
         std::to_string(c.block_size) + (c.nested ? ", nested" : "");
}

/// Weights first to first + count - 1, to the bit.
template <typename Out>
void check_range(int set, shim::Order order, const FourBitWeight& weight, const Outliers& outliers,
                 long long first, long long count) {
  const std::string what =
      describe(weight.shape) + " to " + Number<Out>::suffix + " from " + std::to_string(first) + " on";
  // Both an aligned matrix and one that is a part of a larger one.
  Guarded<Out> out(static_cast<size_t>(count), count % 3 != 0 ? 16 : alignof(Out));
  const DequantizeArgs args = {weight.view(), out.data(), first, count};
  const long long groups = (first + count + kGroup - 1) / kGroup - first / kGroup;
  const std::string suffix = Number<Out>::suffix;
  shim::launch(shim::find_kernel(set, "dequantize_" + suffix), {blocks_for(groups, kThreads), 1, 1}, kThreads,
               &args, order);
  const auto expect = [&](const std::vector<double>& expected) {
    for (long long i = 0; i < count; i++) {
      const double found = Number<Out>::value(out[static_cast<size_t>(i)]);
      require(found == expected[static_cast<size_t>(i)], what + ": weight " + std::to_string(first + i));
    }
    out.check_around(what);
  };
  std::vector<double> expected(static_cast<size_t>(count));
  for (long long i = 0; i < count; i++) {
    expected[static_cast<size_t>(i)] = Number<Out>::round(weight.value(first + i));
  }
  expect(expected);

  const auto n = static_cast<long long>(outliers.index.size());
  if (n == 0) return;
  const PutOutliersArgs put = {outliers.index.data(), outliers.value.data(), out.data(), n, first, count};
  shim::launch(shim::find_kernel(set, "put_outliers_" + suffix), {blocks_for(n, kThreads), 1, 1}, kThreads,
               &put, order);
  for (size_t i = 0; i < outliers.index.size(); i++) {
    const long long at = outliers.index[i] - first;
    if (at < 0 || at >= count) continue;
    expected[static_cast<size_t>(at)] = Number<Out>::round(Number<Half>::value(outliers.value[i]));
  }
  expect(expected);
}

/// The error that rounding may leave: `size` is the sum of the magnitudes that were added.
double tolerance(double epsilon, double expected, double size) {
  return 4e-6 * size + epsilon * std::fabs(expected) + 1e-30;
}

template <typename T>
void check_linear(int set, shim::Order order, const FourBitCase& shape, int batch, double outlier_share,
                  bool with_bias) {
  const auto [rows, columns, block_size, nested] = shape;
  const FourBitWeight weight(shape, 7u * static_cast<unsigned>(columns) + static_cast<unsigned>(rows));
  const Outliers outliers(rows, columns, outlier_share, outlier_share > 0 ? rows / 2 : -1, 11);
  const Guarded<T> x = random_numbers<T>(static_cast<size_t>(batch) * columns, 13);
  const Guarded<float> bias = random_numbers<float>(static_cast<size_t>(rows), 17);
  // y may be some columns of a wider matrix.
  const int stride = rows + batch % 3;
  Guarded<T> y(static_cast<size_t>(batch - 1) * stride + rows);

  const bool any = outlier_share > 0;
  const FourBitLinearArgs args = {weight.view(),
                                  x.data(),
                                  with_bias ? bias.data() : nullptr,
                                  any ? outliers.rows.data() : nullptr,
                                  any ? outliers.index.data() : nullptr,
                                  any ? outliers.value.data() : nullptr,
                                  y.data(),
                                  batch,
                                  rows,
                                  columns,
                                  stride};
  int variant = 1;
  while (variant < batch) variant *= 2;
  const std::string name = "four_bit_linear_" + std::to_string(variant) + "_" + Number<T>::suffix;
  shim::launch(shim::find_kernel(set, name), {blocks_for(rows, kLinearRows), 1, 1}, kThreads, &args, order);

  std::vector<double> w(static_cast<size_t>(weight.count()));
  for (size_t e = 0; e < w.size(); e++) w[e] = weight.value(static_cast<long long>(e));
  for (size_t i = 0; i < outliers.index.size(); i++) {
    w[static_cast<size_t>(outliers.index[i])] = Number<Half>::value(outliers.value[i]);
  }
  for (int t = 0; t < batch; t++) {
    for (int row = 0; row < rows; row++) {
      double sum = with_bias ? bias[static_cast<size_t>(row)] : 0.0, size = std::fabs(sum);
      for (int k = 0; k < columns; k++) {
        const double term = w[static_cast<size_t>(row) * columns + k] *
                            Number<T>::value(x[static_cast<size_t>(t) * columns + k]);
        sum += term;
        size += std::fabs(term);
      }
      const double found = Number<T>::value(y[static_cast<size_t>(t) * stride + row]);
      require(std::fabs(found - sum) <= tolerance(Number<T>::epsilon, sum, size),
              name + ", " + describe(shape) + ": y[" + std::to_string(t) + ", " + std::to_string(row) +
                  "] is " + std::to_string(found) + ", not " + std::to_string(sum));
    }
  }
  check_gaps(y, rows, stride, name);
  y.check_around(name);
}

}  // namespace

void check_dequantize(int set, shim::Order order) {
  constexpr FourBitCase kCases[] = {
      {1, 1, 32, false},     {1, 7, 32, true},     {1, 8, 64, false},    {1, 9, 32, false},
      {1, 65, 64, true},     {5, 13, 32, false},   {3, 64, 64, true},    {7, 301, 128, false},
      {37, 129, 32, true},   {16, 128, 256, true}, {6, 1000, 512, true}, {9, 333, 1024, false},
      {5, 2048, 4096, true}, {65, 384, 64, true},  {1, 16448, 32, true},  // more than 256 blocks: two nested
                                                                          // ones
  };
  unsigned seed = 1;
  for (const FourBitCase& shape : kCases) {
    // The kernel reads whole words: the first byte has to be aligned, whatever the count.
    const FourBitCase flat = {1, shape.rows * shape.columns, shape.block_size, shape.nested};
    const FourBitWeight weight(flat, seed++);
    const long long count = weight.count();
    const Outliers outliers(shape.rows, shape.columns, seed % 3 == 0 ? 0.0 : 0.02, -1, seed);
    const long long row = shape.columns;
    check_range<float>(set, order, weight, outliers, 0, count);
    check_range<Half>(set, order, weight, outliers, 0, count);
    check_range<Bfloat16>(set, order, weight, outliers, 0, count);
    if (shape.rows < 3) continue;
    check_range<float>(set, order, weight, outliers, row, count - 2 * row);
    check_range<Half>(set, order, weight, outliers, 2 * row, row);
    check_range<Bfloat16>(set, order, weight, outliers, row, count - row);
  }
}

void check_four_bit_linear(int set, shim::Order order) {
  check_linear<float>(set, order, {1, 1, 32, false}, 1, 0, false);
  check_linear<float>(set, order, {3, 8, 32, true}, 3, 0.2, true);
  check_linear<float>(set, order, {17, 300, 32, true}, 2, 0.01, true);
  check_linear<float>(set, order, {5, 520, 64, false}, 5, 0.01, true);
  check_linear<float>(set, order, {33, 257, 128, false}, 1, 0.005, false);
  check_linear<float>(set, order, {16, 776, 256, true}, 9, 0.005, true);
  check_linear<float>(set, order, {7, 772, 32, false}, 16, 0, true);
  check_linear<Half>(set, order, {18, 384, 64, true}, 4, 0.005, true);
  check_linear<Half>(set, order, {4, 1021, 4096, false}, 11, 0.01, false);
  check_linear<Half>(set, order, {3, 130, 32, true}, 1, 0, true);
  check_linear<Half>(set, order, {19, 256, 512, true}, 2, 0, true);
  check_linear<Bfloat16>(set, order, {15, 512, 64, true}, 1, 0.01, true);
  check_linear<Bfloat16>(set, order, {2, 1023, 1024, true}, 7, 0.01, true);
  check_linear<Bfloat16>(set, order, {20, 264, 2048, false}, 3, 0.005, false);
  check_linear<Bfloat16>(set, order, {9, 255, 64, false}, 2, 0, true);
  check_linear<Bfloat16>(set, order, {6, 40, 64, false}, 13, 0.05, true);
}

}  // namespace peft::cuda
