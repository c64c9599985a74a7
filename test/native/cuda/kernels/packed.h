#pragma once

#include <vector>

#include "guarded.h"
#include "kernel_args.h"
#include "kernels/dropout.h"

// Batches of texts and dropout masks, written apart from the kernels.

namespace peft::cuda {

struct PackedTexts {
  explicit PackedTexts(const std::vector<int>& lengths);

  int tokens() const { return static_cast<int>(texts.size()); }
  int count() const { return static_cast<int>(offsets.size()) - 1; }
  PackedView view() const { return {texts.data(), offsets.data(), tokens()}; }

  Guarded<int> texts, offsets;
};

/// Some place in a run, high bits of the seed and the token in use.
Dropout some_dropout(float rate);
DropoutView view(const Dropout& dropout);
/// The keep factor of an entry of a matrix [tokens, columns], and of the probability of key `key` for a
/// query.
double keep_of(const Dropout& dropout, int row, int column);
double keep_of_key(const Dropout& dropout, int head, int query, int key);

/// Throws where a number is further from `expected` than fp32 sums of numbers as large as `size` may be.
void require_near(float found, double expected, double size, const std::string& what);

}  // namespace peft::cuda
