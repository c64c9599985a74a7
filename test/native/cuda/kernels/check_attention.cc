#include <algorithm>
#include <cmath>
#include <memory>

#include "checks.h"
#include "packed.h"
#include "weights.h"

namespace peft::cuda {
namespace {

struct AttentionCase {
  int heads, size;
  std::vector<int> lengths;
  float rate;
  /// The size of queries and keys: large ones make a softmax of one key.
  float spread = 1;
  /// A text of NaN, which must not show in any other; -1 for none.
  int poisoned = -1;
};

const AttentionCase kCases[] = {
    {2, 8, {1, 2, 31}, 0},      {2, 32, {5, 33, 1, 3, 19}, 0.3f}, {1, 20, {70, 6}, 0.2f},
    {2, 64, {7, 40}, 0},        {1, 64, {1, 33, 2}, 0.2f},        {1, 128, {18, 3, 16, 31}, 0.2f},
    {3, 100, {9}, 0},           {1, 32, {20, 45}, 0, 20},         {2, 32, {3, 10, 40}, 0.1f, 1, 1},
    {1, 8, {2, 512, 31}, 0.1f},
};

std::string describe(const AttentionCase& c) {
  std::string text = std::to_string(c.heads) + " heads of " + std::to_string(c.size) + ", texts of";
  for (const int length : c.lengths) text.append(" ").append(std::to_string(length));
  return text + ", dropout " + std::to_string(c.rate);
}

using Numbers = std::vector<double>;

/// Everything in double precision and all at once, [tokens, heads * size] and so on.
struct Plain {
  const AttentionCase& shape;
  PackedTexts packed;
  int d;
  Dropout dropout;
  Guarded<float> qkv, dcontext;
  Numbers context, dqkv, lse;
  double scale;

  explicit Plain(const AttentionCase& c)
      : shape(c),
        packed(c.lengths),
        d(c.heads * c.size),
        dropout(some_dropout(c.rate)),
        qkv(random_numbers<float>(static_cast<size_t>(packed.tokens()) * 3 * d, 37)),
        dcontext(random_numbers<float>(static_cast<size_t>(packed.tokens()) * d, 41)),
        context(dcontext.size()),
        dqkv(qkv.size()),
        lse(static_cast<size_t>(packed.tokens()) * c.heads),
        scale(1 / std::sqrt(static_cast<double>(c.size))) {
    for (size_t i = 0; i < qkv.size(); i++) {
      if (static_cast<int>(i % (3 * d)) < 2 * d) qkv[i] *= c.spread;
    }
    for (int t = 0; t < packed.tokens(); t++) {
      if (!poisoned(t)) continue;
      std::fill_n(qkv.data() + static_cast<size_t>(t) * 3 * d, 3 * d, NAN);
      std::fill_n(dcontext.data() + static_cast<size_t>(t) * d, d, NAN);
    }
    for (int text = 0; text < packed.count(); text++) {
      for (int head = 0; head < c.heads; head++)
        compute(packed.offsets[text], packed.offsets[text + 1], head);
    }
  }

  bool poisoned(int token) const { return packed.texts[static_cast<size_t>(token)] == shape.poisoned; }
  size_t at(int part, int token, int head, int column) const {
    return static_cast<size_t>(token) * 3 * d + static_cast<size_t>(part) * d + head * shape.size + column;
  }
  size_t out(int token, int head, int column) const {
    return static_cast<size_t>(token) * d + head * shape.size + column;
  }

 private:
  double dot(int query, int key, int head) const {
    double sum = 0;
    for (int c = 0; c < shape.size; c++)
      sum += static_cast<double>(qkv[at(0, query, head, c)]) * qkv[at(1, key, head, c)];
    return sum * scale;
  }

  void compute(int begin, int end, int head) {
    for (int query = begin; query < end; query++) {
      Numbers p, dp;
      double highest = -INFINITY, sum = 0, delta = 0;
      for (int key = begin; key < end; key++) p.push_back(dot(query, key, head));
      for (const double score : p) highest = std::fmax(highest, score);
      for (double& each : p) sum += each = std::exp(each - highest);
      lse[static_cast<size_t>(query) * shape.heads + head] = highest + std::log(sum);
      for (int key = begin; key < end; key++) {
        double& weight = p[static_cast<size_t>(key - begin)];
        weight /= sum;
        double value = 0;
        for (int c = 0; c < shape.size; c++)
          value += static_cast<double>(dcontext[out(query, head, c)]) * qkv[at(2, key, head, c)];
        dp.push_back(value * keep_of_key(dropout, head, query, key - begin));
        delta += weight * dp.back();
      }
      for (int key = begin; key < end; key++) {
        const double weight = p[static_cast<size_t>(key - begin)];
        const double kept = weight * keep_of_key(dropout, head, query, key - begin);
        const double ds = weight * (dp[static_cast<size_t>(key - begin)] - delta) * scale;
        for (int c = 0; c < shape.size; c++) {
          context[out(query, head, c)] += kept * qkv[at(2, key, head, c)];
          dqkv[at(0, query, head, c)] += ds * qkv[at(1, key, head, c)];
          dqkv[at(1, key, head, c)] += ds * qkv[at(0, query, head, c)];
          dqkv[at(2, key, head, c)] += kept * dcontext[out(query, head, c)];
        }
      }
    }
  }
};

const Plain& plain(size_t index) {
  static std::vector<std::unique_ptr<Plain>> all;
  if (all.empty()) {
    for (const AttentionCase& c : kCases) all.push_back(std::make_unique<Plain>(c));
  }
  return *all[index];
}

/// A number for each token and head, by token or, in every other case, by head.
struct ByHead {
  ByHead(const Plain& p, size_t index)
      : values(p.lse.size()),
        view{values.data(), index % 2 == 0 ? p.shape.heads : 1, index % 2 == 0 ? 1 : p.packed.tokens()} {}
  float& operator()(int token, int head) {
    return values[static_cast<size_t>(token * view.token_stride + head * view.head_stride)];
  }

  Guarded<float> values;
  HeadNumbers view;
};

std::string kernel_of(const Plain& p, const char* name) {
  const int width = p.shape.size <= 32 ? 32 : p.shape.size <= 64 ? 64 : 128;
  return std::string(name) + "_" + std::to_string(width) + "_f32";
}

template <typename Args>
void launch(int set, shim::Order order, const Plain& p, const char* name, const Args& args) {
  const unsigned rows = p.shape.size <= 64 ? 32 : 16;
  shim::launch(shim::find_kernel(set, kernel_of(p, name)),
               {blocks_for(p.packed.tokens(), rows), static_cast<unsigned>(p.shape.heads), 1}, kThreads,
               &args, order);
}

/// What a score is off by, the exponential makes a relative error; scores are as large as the spread's
/// square.
double size_of(const Plain& p) { return 4.0 * p.shape.spread * p.shape.spread; }

void check_forward(int set, shim::Order order, size_t index) {
  const Plain& p = plain(index);
  const std::string what = "attention, " + describe(p.shape);
  Guarded<float> context(p.context.size());
  ByHead lse(p, index);
  launch(set, order, p, "attention",
         AttentionArgs{p.qkv.data(), context.data(), lse.view, p.packed.view(), view(p.dropout),
                       static_cast<float>(p.scale), p.shape.heads, p.shape.size});
  for (int t = 0; t < p.packed.tokens(); t++) {
    for (int head = 0; head < p.shape.heads && !p.poisoned(t); head++) {
      const std::string where = what + ": token " + std::to_string(t) + " head " + std::to_string(head);
      const double expected = p.lse[static_cast<size_t>(t) * p.shape.heads + head];
      require_near(lse(t, head), expected, 1 + std::fabs(expected), where + " lse");
      for (int c = 0; c < p.shape.size; c++)
        require_near(context[p.out(t, head, c)], p.context[p.out(t, head, c)], size_of(p), where);
    }
  }
  context.check_around(what);
  lse.values.check_around(what + " lse");
}

void check_backward(int set, shim::Order order, size_t index) {
  const Plain& p = plain(index);
  const std::string what = "attention backward, " + describe(p.shape);
  Guarded<float> dqkv(p.dqkv.size());
  ByHead lse(p, index), delta(p, index + 1);
  for (int t = 0; t < p.packed.tokens(); t++) {
    for (int head = 0; head < p.shape.heads; head++)
      lse(t, head) = static_cast<float>(p.lse[static_cast<size_t>(t) * p.shape.heads + head]);
  }
  const AttentionBackwardArgs args{
      p.dcontext.data(), p.qkv.data(),    dqkv.data(),     lse.view,
      delta.view,        p.packed.view(), view(p.dropout), static_cast<float>(p.scale),
      p.shape.heads,     p.shape.size};
  launch(set, order, p, "attention_query_gradient", args);
  launch(set, order, p, "attention_key_value_gradient", args);
  for (int t = 0; t < p.packed.tokens(); t++) {
    if (p.poisoned(t)) continue;
    for (int part = 0; part < 3; part++) {
      for (int head = 0; head < p.shape.heads; head++) {
        for (int c = 0; c < p.shape.size; c++) {
          require_near(dqkv[p.at(part, t, head, c)], p.dqkv[p.at(part, t, head, c)], 3 * size_of(p),
                       what + ": token " + std::to_string(t) + " part " + std::to_string(part) + " head " +
                           std::to_string(head));
        }
      }
    }
  }
  dqkv.check_around(what);
  delta.values.check_around(what + " delta");
}

}  // namespace

void check_attention(int set, shim::Order order) {
  for (size_t i = 0; i < std::size(kCases); i++) check_forward(set, order, i);
}

void check_attention_backward(int set, shim::Order order) {
  for (size_t i = 0; i < std::size(kCases); i++) check_backward(set, order, i);
}

}  // namespace peft::cuda
