#include <cmath>

#include "checks.h"
#include "weights.h"

namespace peft::cuda {
namespace {

struct Int8Case {
  int batch, rows, columns;
  float threshold;
  bool bias;
};

/// Ordinary rows, and one each of zeros, denormals, one huge value, nothing but outliers, NaN and infinity.
template <typename T>
Guarded<T> awkward_rows(int batch, int columns, float threshold) {
  Guarded<T> x = random_numbers<T>(static_cast<size_t>(batch) * columns, 19);
  std::mt19937 random(23);
  for (int t = 0; t < batch; t++) {
    T* const row = x.data() + static_cast<size_t>(t) * columns;
    const auto fill = [&](float value) {
      for (int c = 0; c < columns; c++) row[c] = Number<T>::make(c % 3 == 0 ? -value : value);
    };
    switch (t % 9) {
      case 1:
        fill(0.0f);
        break;
      case 2:
        fill(1e-40f);
        row[0] = Number<T>::make(0.0f);
        break;
      case 3:
        row[columns - 1] = Number<T>::make(60000.0f);
        break;
      case 4:
        fill(2 * threshold + 1);
        break;
      case 5:
        row[columns / 2] = Number<T>::make(NAN);
        break;
      case 6:
        row[columns / 2] = Number<T>::make(-INFINITY);
        break;
      case 7:
        row[0] = Number<T>::make(1e6f);
        break;
      default:
        break;
    }
    if (threshold == 0 || t % 9 == 1) continue;
    // At the threshold exactly, just below it, and beyond it in the first, the last and some other columns.
    for (int i = 0; i < 4; i++) {
      row[random() % static_cast<unsigned>(columns)] =
          Number<T>::make(i == 0 ? threshold : threshold * 1.7001f);
    }
    row[columns - 1] = Number<T>::make(-threshold * 1.333f);
    row[random() % static_cast<unsigned>(columns)] = Number<T>::make(threshold * 0.97f);
  }
  return x;
}

struct QuantizedRows {
  Guarded<signed char> codes;
  Guarded<float> absmax;
  Guarded<unsigned> bits;
  Guarded<int> count;
};

template <typename T>
QuantizedRows run_quantize(int set, shim::Order order, const Int8Case& c, const Guarded<T>& x) {
  const int words = (c.columns + 31) / 32;
  const auto batch = static_cast<size_t>(c.batch);
  QuantizedRows q = {Guarded<signed char>(batch * c.columns), Guarded<float>(batch),
                     Guarded<unsigned>(batch * words), Guarded<int>(batch)};
  const bool split = c.threshold > 0;
  const QuantizeRowsArgs args = {x.data(),
                                 q.codes.data(),
                                 q.absmax.data(),
                                 split ? q.bits.data() : nullptr,
                                 split ? q.count.data() : nullptr,
                                 c.threshold,
                                 c.batch,
                                 c.columns};
  shim::launch(shim::find_kernel(set, std::string("quantize_rows_") + Number<T>::suffix),
               {static_cast<unsigned>(c.batch), 1, 1}, kThreads, &args, order);
  return q;
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

template <typename T>
void check_quantized(const Int8Case& c, const Guarded<T>& x, const QuantizedRows& q) {
  const std::string what = std::string("quantize_rows_") + Number<T>::suffix + ", " +
                           std::to_string(c.columns) + " columns, threshold " + std::to_string(c.threshold) +
                           ": row ";
  const int words = (c.columns + 31) / 32;
  for (int t = 0; t < c.batch; t++) {
    const std::string where = what + std::to_string(t);
    const auto at = [&](int k) { return static_cast<size_t>(t) * c.columns + k; };
    const auto value = [&](int k) { return static_cast<float>(Number<T>::value(x[at(k)])); };
    const auto apart = [&](int k) { return c.threshold > 0 && std::fabs(value(k)) >= c.threshold; };
    float absmax = 0;
    int outliers = 0;
    for (int k = 0; k < c.columns; k++) {
      if (apart(k)) {
        outliers++;
      } else if (std::isnan(value(k)) || std::fabs(value(k)) > absmax) {
        absmax = std::fabs(value(k));
      }
      if (std::isnan(absmax)) break;
    }
    require(same(q.absmax[static_cast<size_t>(t)], absmax), where + ": absmax");
    const float inverse = absmax == 0 ? 0 : std::fmin(127.0f / absmax, 3.402823466e38f);
    for (int k = 0; k < c.columns; k++) {
      const float scaled = value(k) * inverse;
      int code = 0;
      if (!apart(k) && !std::isnan(scaled) && !std::isnan(absmax)) {
        code = static_cast<int>(std::nearbyint(std::fmin(std::fmax(scaled, -127.0f), 127.0f)));
      }
      // A NaN leaves the row without meaning; its other codes are not looked at.
      if (!std::isnan(absmax)) require(q.codes[at(k)] == code, where + ": code " + std::to_string(k));
      if (c.threshold > 0) {
        const unsigned word = q.bits[static_cast<size_t>(t) * words + k / 32];
        require((word >> (k % 32) & 1) == (apart(k) ? 1u : 0u), where + ": bit " + std::to_string(k));
      }
    }
    if (c.threshold == 0) continue;
    if (!std::isnan(absmax))
      require(q.count[static_cast<size_t>(t)] == outliers, where + ": count of outliers");
    if (c.columns % 32 != 0) {
      const unsigned last = q.bits[static_cast<size_t>(t + 1) * words - 1];
      require(last >> (c.columns % 32) == 0, where + ": bits beyond the last column");
    }
  }
  q.codes.check_around(what + "codes");
  q.absmax.check_around(what + "absmax");
  q.bits.check_around(what + "bits");
  q.count.check_around(what + "count");
}

/// From x to y, through an exact integer product.
template <typename T>
void check_product(int set, shim::Order order, const Int8Case& c) {
  const Guarded<T> x = awkward_rows<T>(c.batch, c.columns, c.threshold);
  const QuantizedRows q = run_quantize(set, order, c, x);
  check_quantized(c, x, q);

  std::mt19937 random(29);
  Guarded<signed char> w(static_cast<size_t>(c.rows) * c.columns);
  for (size_t i = 0; i < w.size(); i++)
    w[i] = static_cast<signed char>(static_cast<int>(random() % 255) - 127);
  Guarded<float> w_absmax(static_cast<size_t>(c.rows));
  for (size_t i = 0; i < w_absmax.size(); i++)
    w_absmax[i] = 0.5f + static_cast<float>(random() % 1000) / 500.0f;
  const Guarded<float> bias = random_numbers<float>(static_cast<size_t>(c.rows), 31);
  const size_t entries = static_cast<size_t>(c.batch) * c.rows;
  Guarded<int> product(entries);
  for (int t = 0; t < c.batch; t++) {
    for (int row = 0; row < c.rows; row++) {
      int sum = 0;
      for (int k = 0; k < c.columns; k++) {
        sum += q.codes[static_cast<size_t>(t) * c.columns + k] * w[static_cast<size_t>(row) * c.columns + k];
      }
      product[static_cast<size_t>(t) * c.rows + row] = sum;
    }
  }
  const int stride = c.rows + c.batch % 4;
  Guarded<T> y(static_cast<size_t>(c.batch - 1) * stride + c.rows);
  const bool split = c.threshold > 0;
  const FinishInt8Args args = {product.data(),
                               q.absmax.data(),
                               w_absmax.data(),
                               c.bias ? bias.data() : nullptr,
                               x.data(),
                               w.data(),
                               split ? q.bits.data() : nullptr,
                               split ? q.count.data() : nullptr,
                               y.data(),
                               c.batch,
                               c.rows,
                               c.columns,
                               stride};
  const std::string name = std::string("finish_int8_") + Number<T>::suffix;
  shim::launch(shim::find_kernel(set, name),
               {static_cast<unsigned>(c.batch), blocks_for(c.rows, kThreads), 1}, kThreads, &args, order);

  for (int t = 0; t < c.batch; t++) {
    for (int row = 0; row < c.rows; row++) {
      const size_t at = static_cast<size_t>(t) * c.rows + row;
      const double absmax = w_absmax[static_cast<size_t>(row)];
      double sum = static_cast<double>(product[at]) * q.absmax[static_cast<size_t>(t)] * absmax / 127 / 127;
      double size = std::fabs(sum);
      for (int k = 0; k < c.columns; k++) {
        const double value = Number<T>::value(x[static_cast<size_t>(t) * c.columns + k]);
        if (!(c.threshold > 0 && std::fabs(value) >= c.threshold)) continue;
        const double half = rounded_to_half(value);
        const double kept = std::isfinite(value) && std::isinf(half) ? value : half;
        const double term = kept * w[static_cast<size_t>(row) * c.columns + k] * absmax / 127;
        sum += term;
        size += std::fabs(term);
      }
      if (c.bias) sum += bias[static_cast<size_t>(row)];
      const double found = Number<T>::value(y[static_cast<size_t>(t) * stride + row]);
      const double expected = Number<T>::round(sum);
      const bool finite = std::isfinite(expected) && std::isfinite(found);
      const bool ok =
          finite ? std::fabs(found - sum) <= 1e-6 * size + Number<T>::epsilon * std::fabs(sum) + 1e-30
          : std::isnan(sum) ? std::isnan(found)
                            : found == expected;
      require(ok, name + ", " + std::to_string(c.rows) + "x" + std::to_string(c.columns) + ": y[" +
                      std::to_string(t) + ", " + std::to_string(row) + "] is " + std::to_string(found) +
                      ", not " + std::to_string(sum));
    }
  }
  check_gaps(y, c.rows, stride, name);
  y.check_around(name);
}

template <typename Out>
void check_dequantize_int8(int set, shim::Order order, int rows, int columns) {
  std::mt19937 random(37);
  Guarded<signed char> codes(static_cast<size_t>(rows) * columns);
  for (size_t i = 0; i < codes.size(); i++) {
    codes[i] = static_cast<signed char>(static_cast<int>(random() % 255) - 127);
  }
  const Guarded<float> absmax = random_numbers<float>(static_cast<size_t>(rows), 41);
  Guarded<Out> out(codes.size());
  const DequantizeInt8Args args = {codes.data(), absmax.data(), out.data(), rows, columns};
  const std::string name = std::string("dequantize_int8_") + Number<Out>::suffix;
  shim::launch(shim::find_kernel(set, name), {static_cast<unsigned>(rows), 1, 1}, kThreads, &args, order);
  for (size_t i = 0; i < codes.size(); i++) {
    const float scale = absmax[i / static_cast<size_t>(columns)] / 127.0f;
    const float expected = static_cast<float>(codes[i]) * scale;
    require(Number<Out>::value(out[i]) == Number<Out>::round(expected),
            name + ": weight " + std::to_string(i));
  }
  out.check_around(name);
}

}  // namespace

void check_int8(int set, shim::Order order) {
  constexpr Int8Case kCases[] = {
      {1, 1, 1, 0.0f, false},    {9, 5, 31, 6.0f, true},   {9, 3, 33, 6.0f, false},
      {10, 260, 40, 2.5f, true}, {9, 7, 257, 6.0f, true},  {4, 6, 384, 0.0f, true},
      {11, 9, 300, 6.0f, true},  {2, 513, 64, 0.5f, true}, {9, 2, 1537, 1.0f, false},
  };
  for (const Int8Case& c : kCases) {
    check_product<float>(set, order, c);
    check_product<Half>(set, order, c);
    check_product<Bfloat16>(set, order, c);
  }
  check_dequantize_int8<float>(set, order, 3, 257);
  check_dequantize_int8<Half>(set, order, 1, 1);
  check_dequantize_int8<Bfloat16>(set, order, 5, 513);
}

}  // namespace peft::cuda
