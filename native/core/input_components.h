#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "core/encoder.h"

namespace peft {

/// A matrix of which the principal components of its input are wanted, and how many.
struct InputSite {
  int64_t layer = 0;
  LayerMatrix matrix = LayerMatrix::kQkv;
  int64_t count = 0;
};

/// Throws USAGE for a name that is none.
LayerMatrix parse_layer_matrix(const std::string& name);

/// Principal components of what goes into matrices of an encoder, over all tokens of any number of passes.
class InputComponents {
 public:
  /// Throws USAGE for a layer that is none, or more components than an input has numbers.
  InputComponents(std::vector<InputSite> sites, const ModelShape& shape);

  /// Rows x [T, in] that go into a matrix; passed over where it is none of the sites.
  void add(int64_t layer, LayerMatrix matrix, const Tensor& x);
  /// `<layer>.<matrix>.components` [count, in], of length 1, the largest variance first, their largest entry
  /// positive; `<layer>.<matrix>.ratios` [count], their parts of the whole variance.
  std::map<std::string, std::vector<float>> result() const;

 private:
  struct Moments {
    InputSite site;
    int64_t rows = 0;
    Tensor shift;          // fp32 [in]: the mean of the first rows, so that sums keep their digits
    Tensor sum, products;  // fp64 [in], [in, in] of x - shift
  };
  std::vector<Moments> moments_;
};

/// InputComponents of what goes into the base model's matrices over all tokens of the texts.
std::map<std::string, std::vector<float>> input_components(Encoder& encoder, const TokenBatch& batch,
                                                           const std::vector<InputSite>& sites,
                                                           int64_t micro_batch_tokens);

}  // namespace peft
