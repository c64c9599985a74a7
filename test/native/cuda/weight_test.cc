#include <ATen/ATen.h>

#include "check.h"
#include "cuda/quant_kernels.h"

// What kernels do not check has to be refused before.

namespace peft::test {
namespace {

cuda::FourBitWeight some_weight() {
  cuda::FourBitWeight w;
  w.rows = 3, w.columns = 43, w.block_size = 64;
  w.codes = at::zeros({65}, at::kByte);
  w.table = at::zeros({16});
  w.absmax = at::zeros({3});
  return w;
}

}  // namespace

PEFT_TEST(quantised_weights_that_do_not_fit_together_are_refused) {
  using cuda::check_weight;
  using Change = std::function<void(cuda::FourBitWeight&)>;
  check_weight(some_weight());
  const std::vector<std::pair<const char*, Change>> changes = {
      {"blocks of 48", [](auto& w) { w.block_size = 48; }},
      {"blocks of 16", [](auto& w) { w.block_size = 16; }},
      {"codes has 64", [](auto& w) { w.codes = at::zeros({64}, at::kByte); }},
      {"codes is Char", [](auto& w) { w.codes = at::zeros({65}, at::kChar); }},
      {"aligned", [](auto& w) { w.codes = at::zeros({66}, at::kByte).narrow(0, 1, 65); }},
      {"absmax has 2", [](auto& w) { w.absmax = at::zeros({2}); }},
      {"absmax is missing", [](auto& w) { w.absmax = at::Tensor(); }},
      {"strided", [](auto& w) { w.table = at::zeros({32}).slice(0, 0, 32, 2); }},
      {"shape 0x43", [](auto& w) { w.rows = 0; }},
      {"values is missing", [](auto& w) { w.outlier_index = at::zeros({1}, at::kInt); }},
  };
  for (const auto& [part, change] : changes) {
    cuda::FourBitWeight w = some_weight();
    change(w);
    check_error([&] { check_weight(w); }, "MODEL_CORRUPT", part);
  }
  const cuda::Int8Weight w{at::zeros({2, 3}, at::kChar), at::zeros({3})};
  check_error([&] { check_weight(w); }, "MODEL_CORRUPT", "absmax has 3");
}

PEFT_TEST(outliers_are_found_by_row) {
  const auto starts = [](const std::vector<int>& index) {
    const at::Tensor t = cuda::outlier_row_starts(at::tensor(index, at::kInt), 4, 10);
    return std::vector<int>(t.const_data_ptr<int>(), t.const_data_ptr<int>() + t.numel());
  };
  check(starts({}) == std::vector<int>({0, 0, 0, 0, 0}), "none");
  check(starts({0, 9, 10, 39}) == std::vector<int>({0, 2, 3, 3, 4}), "at the ends of rows");
  check(starts({25}) == std::vector<int>({0, 0, 0, 1, 1}), "in one row");
  check_error([&] { starts({3, 3}); }, "MODEL_CORRUPT", "outlier 1");
  check_error([&] { starts({7, 2}); }, "MODEL_CORRUPT", "outlier 1");
  check_error([&] { starts({40}); }, "MODEL_CORRUPT", "weight 40 of 40");
  check_error([&] { starts({-1}); }, "MODEL_CORRUPT", "weight -1");
}

}  // namespace peft::test
