#include <cmath>

#include "checks.h"
#include "packed.h"
#include "weights.h"

// The operations that go row by row: LayerNorm and dropout, GELU, mean pooling.

namespace peft::cuda {
namespace {

struct RowsCase {
  int rows, columns;
  float rate;
};
constexpr RowsCase kRowsCases[] = {{1, 8, 0.4f},   {9, 31, 0.0f},  {17, 64, 0.2f},
                                   {3, 100, 0.1f}, {8, 129, 0.0f}, {11, 384, 0.3f}};
constexpr float kEpsilon = 0.1f;  // large enough to show

std::string describe(const char* kernel, const RowsCase& c) {
  return std::string(kernel) + ", " + std::to_string(c.rows) + "x" + std::to_string(c.columns) +
         ", dropout " + std::to_string(c.rate);
}

size_t entries(const RowsCase& c) { return static_cast<size_t>(c.rows) * c.columns; }

template <typename Args>
void launch_rows(int set, shim::Order order, const char* kernel, int rows, const Args& args) {
  shim::launch(shim::find_kernel(set, std::string(kernel) + "_f32"), {blocks_for(rows, kWarpRows), 1, 1},
               kThreads, &args, order);
}

template <typename Args>
void launch_entries(int set, shim::Order order, const char* kernel, int rows, int columns, const Args& args) {
  shim::launch(shim::find_kernel(set, std::string(kernel) + "_f32"),
               {static_cast<unsigned>(rows), blocks_for(columns, kThreads), 1}, kThreads, &args, order);
}

struct PlainNorm {
  double mean = 0, rstd = 0;
  template <typename Value>
  PlainNorm(int columns, const Value& value) {
    for (int c = 0; c < columns; c++) mean += value(c) / columns;
    double variance = 0;
    for (int c = 0; c < columns; c++) variance += (value(c) - mean) * (value(c) - mean) / columns;
    rstd = 1 / std::sqrt(variance + kEpsilon);
  }
};

/// Calls check(t, c, at, where) for every entry.
template <typename Check>
void for_entries(const RowsCase& shape, const std::string& what, const Check& check) {
  for (int t = 0; t < shape.rows; t++) {
    for (int c = 0; c < shape.columns; c++) {
      check(t, c, static_cast<size_t>(t) * shape.columns + c,
            what + ": row " + std::to_string(t) + " column " + std::to_string(c));
    }
  }
}

struct NormInputs {
  explicit NormInputs(const RowsCase& c)
      : gamma(random_numbers<float>(static_cast<size_t>(c.columns), 43)),
        beta(random_numbers<float>(static_cast<size_t>(c.columns), 47)),
        bias(random_numbers<float>(static_cast<size_t>(c.columns), 53)),
        x(random_numbers<float>(entries(c), 59)),
        residual(random_numbers<float>(entries(c), 61)),
        mean(static_cast<size_t>(c.rows)),
        rstd(static_cast<size_t>(c.rows)),
        out(entries(c)) {
    // A mean far from 0 is what a variance of squares would lose its digits to.
    for (size_t i = 0; i < residual.size(); i++) residual[i] += 100;
  }
  Guarded<float> gamma, beta, bias, x, residual, mean, rstd, out;
};

void check_residual(int set, shim::Order order, const RowsCase& shape) {
  const std::string what = describe("residual_layer_norm", shape);
  const Dropout dropout = some_dropout(shape.rate);
  NormInputs in(shape);
  Guarded<float> y = random_numbers<float>(entries(shape), 59);
  launch_rows(set, order, "residual_layer_norm", shape.rows,
              ResidualLayerNormArgs{y.data(), in.bias.data(), in.residual.data(), in.gamma.data(),
                                    in.beta.data(), in.out.data(), in.mean.data(), in.rstd.data(),
                                    view(dropout), kEpsilon, shape.rows, shape.columns});
  const auto sum = [&](int t, int c) {
    const size_t at = static_cast<size_t>(t) * shape.columns + c;
    return (static_cast<double>(in.x[at]) + in.bias[static_cast<size_t>(c)]) * keep_of(dropout, t, c) +
           in.residual[at];
  };
  for (int t = 0; t < shape.rows; t++) {
    const PlainNorm norm(shape.columns, [&](int c) { return sum(t, c); });
    require_near(in.mean[static_cast<size_t>(t)], norm.mean, 30, what + ": mean");
    require_near(in.rstd[static_cast<size_t>(t)], norm.rstd, 10 * norm.rstd, what + ": rstd");
    for (int c = 0; c < shape.columns; c++) {
      const size_t at = static_cast<size_t>(t) * shape.columns + c;
      const double expected = (sum(t, c) - norm.mean) * norm.rstd * in.gamma[static_cast<size_t>(c)] +
                              in.beta[static_cast<size_t>(c)];
      require_near(y[at], sum(t, c), 30, what + ": the sum");
      require_near(in.out[at], expected, 30, what);
    }
  }
  // From what was kept, to the bit.
  Guarded<float> again(entries(shape));
  launch_rows(set, order, "layer_norm_apply", shape.rows,
              LayerNormApplyArgs{y.data(), in.mean.data(), in.rstd.data(), in.gamma.data(), in.beta.data(),
                                 again.data(), shape.rows, shape.columns});
  for_entries(shape, what, [&](int, int, size_t at, const std::string& where) {
    require(again[at] == in.out[at], where + " from kept moments");
  });
  for (const Guarded<float>* each : {&y, &in.out, &in.mean, &in.rstd, &again}) each->check_around(what);
}

void check_backward(int set, shim::Order order, const RowsCase& shape) {
  const std::string what = describe("layer_norm_backward", shape);
  const Dropout dropout = some_dropout(shape.rate);
  NormInputs in(shape);
  const Guarded<float> dout = random_numbers<float>(entries(shape), 67);
  Guarded<float> dy(entries(shape)), dmasked(entries(shape));
  std::vector<PlainNorm> norms;
  for (int t = 0; t < shape.rows; t++) {
    norms.emplace_back(shape.columns,
                       [&](int c) { return in.x[static_cast<size_t>(t) * shape.columns + c]; });
    in.mean[static_cast<size_t>(t)] = static_cast<float>(norms.back().mean);
    in.rstd[static_cast<size_t>(t)] = static_cast<float>(norms.back().rstd);
  }
  launch_rows(set, order, "layer_norm_backward", shape.rows,
              LayerNormBackwardArgs{dout.data(), in.x.data(), in.mean.data(), in.rstd.data(), in.gamma.data(),
                                    dy.data(), dropout.active() ? dmasked.data() : nullptr, view(dropout),
                                    shape.rows, shape.columns});
  for_entries(shape, what, [&](int t, int c, size_t at, const std::string& where) {
    const PlainNorm& norm = norms[static_cast<size_t>(t)];
    const auto g = [&](int i) {
      return static_cast<double>(dout[at - c + i]) * in.gamma[static_cast<size_t>(i)];
    };
    const auto normed = [&](int i) { return (in.x[at - c + i] - norm.mean) * norm.rstd; };
    double by_one = 0, by_normed = 0;
    for (int i = 0; i < shape.columns; i++) {
      by_one += g(i) / shape.columns;
      by_normed += g(i) * normed(i) / shape.columns;
    }
    const double expected = (g(c) - by_one - normed(c) * by_normed) * norm.rstd;
    require_near(dy[at], expected, 10, where);
    if (dropout.active()) require_near(dmasked[at], expected * keep_of(dropout, t, c), 20, where + " masked");
  });
  dy.check_around(what);
  dmasked.check_around(what);
}

void check_embed(int set, shim::Order order, const RowsCase& shape) {
  const std::string what = describe("embed", shape);
  const Dropout dropout = some_dropout(shape.rate);
  NormInputs in(shape);
  constexpr int kWords = 13, kPositions = 5;
  const auto table = [&](int rows, unsigned seed) {
    return random_numbers<float>(static_cast<size_t>(rows) * shape.columns, seed);
  };
  const Guarded<float> word = table(kWords, 71), position = table(kPositions, 73), type = table(1, 79);
  Guarded<int> ids(static_cast<size_t>(shape.rows)), positions(static_cast<size_t>(shape.rows));
  for (int t = 0; t < shape.rows; t++) {
    ids[static_cast<size_t>(t)] = (t * 5 + 12) % kWords;
    positions[static_cast<size_t>(t)] = (t + 4) % kPositions;
  }
  launch_rows(
      set, order, "embed", shape.rows,
      EmbedArgs{ids.data(), positions.data(), word.data(), position.data(), type.data(), in.gamma.data(),
                in.beta.data(), in.out.data(), view(dropout), kEpsilon, shape.rows, shape.columns});
  for_entries(shape, what, [&](int t, int c, size_t at, const std::string& where) {
    const auto value = [&](int i) {
      const auto of = [&](const Guarded<float>& rows, int row) {
        return static_cast<double>(rows[static_cast<size_t>(row) * shape.columns + i]);
      };
      return of(word, ids[static_cast<size_t>(t)]) + of(position, positions[static_cast<size_t>(t)]) +
             of(type, 0);
    };
    const PlainNorm norm(shape.columns, value);
    const double expected = (value(c) - norm.mean) * norm.rstd * in.gamma[static_cast<size_t>(c)] +
                            in.beta[static_cast<size_t>(c)];
    require_near(in.out[at], expected * keep_of(dropout, t, c), 10, where);
  });
  in.out.check_around(what);
}

void check_dropout(int set, shim::Order order, const RowsCase& shape) {
  const std::string what = describe("dropout", shape);
  const Dropout dropout = some_dropout(shape.rate);
  const Guarded<float> x = random_numbers<float>(entries(shape), 83);
  for (const bool accumulate : {false, true}) {
    Guarded<float> out = random_numbers<float>(entries(shape), 89);
    const Guarded<float> before = random_numbers<float>(entries(shape), 89);
    launch_rows(set, order, "dropout", shape.rows,
                DropoutArgs{x.data(), out.data(), view(dropout), accumulate, shape.rows, shape.columns});
    for_entries(shape, what, [&](int t, int c, size_t at, const std::string& where) {
      require_near(out[at], x[at] * keep_of(dropout, t, c) + (accumulate ? before[at] : 0), 1, where);
    });
    out.check_around(what);
  }
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double normal_density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)); }

}  // namespace

void check_layer_norm(int set, shim::Order order) {
  for (const RowsCase& shape : kRowsCases) {
    check_residual(set, order, shape);
    check_backward(set, order, shape);
    check_embed(set, order, shape);
    check_dropout(set, order, shape);
  }
}

void check_gelu(int set, shim::Order order) {
  for (const RowsCase& shape : {RowsCase{1, 1, 0}, {3, 255, 0}, {2, 256, 0}, {5, 300, 0}}) {
    const std::string what = describe("gelu", shape);
    const Guarded<float> x = random_numbers<float>(entries(shape), 97),
                         bias = random_numbers<float>(static_cast<size_t>(shape.columns), 101),
                         gradient = random_numbers<float>(entries(shape), 103);
    Guarded<float> u = random_numbers<float>(entries(shape), 97), out(entries(shape)), again(entries(shape));
    launch_entries(set, order, "bias_gelu", shape.rows, shape.columns,
                   BiasGeluArgs{u.data(), bias.data(), out.data(), shape.columns});
    for_entries(shape, what, [&](int, int c, size_t at, const std::string& where) {
      const double sum = static_cast<double>(x[at]) + bias[static_cast<size_t>(c)];
      require_near(u[at], sum, 1, where + " with bias");
      require_near(out[at], sum * normal_cdf(sum), 1, where);
    });
    for (const bool output : {false, true}) {
      Guarded<float> du = random_numbers<float>(entries(shape), 103);
      launch_entries(set, order, "gelu_backward", shape.rows, shape.columns,
                     GeluBackwardArgs{du.data(), u.data(), output ? again.data() : nullptr, shape.columns});
      for_entries(shape, what, [&](int, int, size_t at, const std::string& where) {
        const double v = u[at];
        require_near(du[at], gradient[at] * (normal_cdf(v) + v * normal_density(v)), 1, where + " gradient");
        if (output) require(again[at] == out[at], where + " again");
      });
      du.check_around(what);
    }
    for (const Guarded<float>* each : {&u, &out, &again}) each->check_around(what);
  }
}

void check_pooling(int set, shim::Order order) {
  const PackedTexts packed({1, 6, 30, 2});
  for (const int columns : {1, 33, 256, 300}) {
    const std::string what = "mean_pool, " + std::to_string(columns) + " columns";
    const auto width = static_cast<size_t>(columns);
    const Guarded<float> x = random_numbers<float>(packed.texts.size() * width, 107),
                         dout = random_numbers<float>(static_cast<size_t>(packed.count()) * width, 109);
    Guarded<float> out(dout.size()), dx(x.size());
    launch_entries(set, order, "mean_pool", packed.count(), columns,
                   MeanPoolArgs{x.data(), packed.view(), out.data(), columns});
    launch_entries(set, order, "mean_pool_backward", packed.tokens(), columns,
                   MeanPoolBackwardArgs{dout.data(), packed.view(), dx.data(), columns});
    for (int text = 0; text < packed.count(); text++) {
      const int begin = packed.offsets[static_cast<size_t>(text)],
                end = packed.offsets[static_cast<size_t>(text) + 1];
      for (size_t c = 0; c < width; c++) {
        double sum = 0;
        const size_t at = static_cast<size_t>(text) * width + c;
        for (int t = begin; t < end; t++) {
          sum += x[static_cast<size_t>(t) * width + c];
          require_near(dx[static_cast<size_t>(t) * width + c], dout[at] / static_cast<double>(end - begin), 1,
                       what + " backward: token " + std::to_string(t));
        }
        require_near(out[at], sum / (end - begin), 1, what + ": text " + std::to_string(text));
      }
    }
    out.check_around(what);
    dx.check_around(what);
  }
}

}  // namespace peft::cuda
