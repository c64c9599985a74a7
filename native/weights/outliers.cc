#include "weights/outliers.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <queue>
#include <vector>

#include "weights/code_book.h"

namespace peft {
namespace {

constexpr float kLargestHalf = 65504.0f;

/// One block, its weights in falling order of magnitude; the first `taken` of them are outliers.
class Block {
 public:
  Block(const float* x, int64_t begin, int64_t end, const CodeBook<16>& book)
      : x_(x), begin_(begin), end_(end), book_(book) {
    error_ = error_without(0);
    gain_ = gain_of_next();
  }

  double gain() const { return gain_; }

  /// Takes the largest weight that is left; its index.
  int64_t take() {
    error_ -= gain_;
    const int64_t index = ranked(taken_++);
    gain_ = gain_of_next();
    return index;
  }

 private:
  /// Index of the weight with the rank-th largest magnitude. Few are ever taken, so no full sort is kept.
  int64_t ranked(int64_t rank) const {
    std::vector<int64_t> order(static_cast<size_t>(end_ - begin_));
    for (int64_t i = begin_; i < end_; i++) order[i - begin_] = i;
    std::nth_element(order.begin(), order.begin() + rank, order.end(), [&](int64_t a, int64_t b) {
      const float x = std::abs(x_[a]), y = std::abs(x_[b]);
      return x != y ? x > y : a < b;
    });
    return order[rank];
  }

  double gain_of_next() const {
    if (taken_ + 1 >= end_ - begin_ || std::abs(x_[ranked(taken_)]) > kLargestHalf) return 0;
    return error_ - error_without(taken_ + 1);
  }

  /// Squared error of the block's codes when its `count` largest weights are kept apart.
  double error_without(int64_t count) const {
    const int64_t cut = ranked(count);
    const float absmax = std::abs(x_[cut]), scale = 1.0f / std::max(absmax, 1e-38f);
    double error = 0;
    for (int64_t i = begin_; i < end_; i++) {
      const float magnitude = std::abs(x_[i]);
      if (magnitude > absmax || (magnitude == absmax && i < cut)) continue;
      const double difference = book_.value[book_.nearest(x_[i] * scale)] * absmax - x_[i];
      error += difference * difference;
    }
    return error;
  }

  const float* x_;
  int64_t begin_, end_;
  const CodeBook<16>& book_;
  int64_t taken_ = 0;
  double error_ = 0, gain_ = 0;
};

}  // namespace

void select_outliers(const at::Tensor& w, const WeightStorage& storage, at::Tensor& index,
                     at::Tensor& value) {
  const int64_t n = w.numel(), block = storage.block_size;
  const auto budget = static_cast<int64_t>(std::floor(storage.outlier_fraction * static_cast<double>(n)));
  if (budget == 0) return;
  const float* x = w.const_data_ptr<float>();
  const CodeBook<16>& book = four_bit_code_book(storage.format);
  const int64_t count = (n + block - 1) / block;
  std::vector<Block> blocks;
  blocks.reserve(static_cast<size_t>(count));
  for (int64_t b = 0; b < count; b++) blocks.emplace_back(x, b * block, std::min((b + 1) * block, n), book);
  // Equal gains in order of the blocks, so that the choice is the same everywhere.
  const auto less = [&](int64_t a, int64_t b) {
    return blocks[a].gain() != blocks[b].gain() ? blocks[a].gain() < blocks[b].gain() : a > b;
  };
  std::priority_queue<int64_t, std::vector<int64_t>, decltype(less)> queue(less);
  for (int64_t b = 0; b < count; b++) {
    if (blocks[b].gain() > 0) queue.push(b);
  }
  std::vector<int32_t> chosen;
  while (static_cast<int64_t>(chosen.size()) < budget && !queue.empty()) {
    const int64_t b = queue.top();
    queue.pop();
    chosen.push_back(static_cast<int32_t>(blocks[b].take()));
    if (blocks[b].gain() > 0) queue.push(b);
  }
  if (chosen.empty()) return;
  std::sort(chosen.begin(), chosen.end());
  index = at::empty({static_cast<int64_t>(chosen.size())}, at::TensorOptions().dtype(at::kInt));
  value = at::empty({static_cast<int64_t>(chosen.size())}, at::TensorOptions().dtype(at::kHalf));
  auto* index_data = index.mutable_data_ptr<int32_t>();
  auto* value_data = value.mutable_data_ptr<at::Half>();
  for (size_t i = 0; i < chosen.size(); i++) {
    index_data[i] = chosen[i];
    value_data[i] = static_cast<at::Half>(x[chosen[i]]);
  }
}

}  // namespace peft
