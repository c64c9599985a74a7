#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>
#include <filesystem>

#include "check.h"
#include "oracle.h"
#include "weights/bert_weights.h"
#include "weights/quant_file.h"
#include "weights/quantize_model.h"
#include "weights/safetensors.h"

// Whole quantised models and what may be wrong with them; int8 files; what does not depend on the machine.

namespace peft::test {
namespace {

bool go_on(int64_t, int64_t) { return true; }

WeightStorage nf4(int64_t block, bool double_quant) {
  return {WeightFormat::kNf4, block, double_quant, 0, 6};
}

Weights read_all(const std::string& path) {
  const SafetensorsFile file(path);
  Weights all;
  for (const auto& [key, entry] : file.table()) all[key] = file.read(key);
  return all;
}

Weights quantised(const ModelShape& shape, const WeightStorage& storage) {
  const TemporaryFile source("source.safetensors"), output("output.safetensors");
  write_safetensors(source.path(), random_bert(shape));
  quantize_model(source.path(), output.path(), shape, storage, go_on);
  return read_all(output.path());
}

}  // namespace

PEFT_TEST(query_key_and_value_are_held_alike) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile path("mixed.safetensors");
  const std::string key = "encoder.layer.0.attention.self.key";
  for (const auto& [other, told] :
       {std::pair{nf4(32, false), "in blocks of 32,"}, {nf4(64, true), "with 8-bit scales"}}) {
    Weights mixed = quantised(shape, nf4(64, false));
    for (const auto& [name, tensor] : mixed) {
      if (name.starts_with(key + ".weight")) check(tensor.defined(), name);
    }
    std::erase_if(mixed, [&](const auto& entry) { return entry.first.starts_with(key + ".weight"); });
    for (const auto& [name, tensor] : quantised(shape, other)) {
      if (name.starts_with(key + ".weight")) mixed[name] = tensor;
    }
    write_safetensors(path.path(), mixed);
    check_error([&] { load_bert_weights(path.path(), shape, std::nullopt, at::kCPU); }, "QUANT_STATE", told);
    check_error([&] { load_bert_weights(path.path(), shape, std::nullopt, at::kCPU); }, "QUANT_STATE", key);
  }
}

PEFT_TEST(sources_that_do_not_fit_their_config_are_not_quantised) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile source("source.safetensors"), output("output.safetensors");
  Weights bert = random_bert(shape);
  const std::string key = "encoder.layer.1.output.dense.weight";
  bert[key] = bert.at(key).t().contiguous();
  write_safetensors(source.path(), bert);
  check_error([&] { quantize_model(source.path(), output.path(), shape, nf4(64, false), go_on); },
              "MODEL_CORRUPT", key);
  bert = random_bert(shape);
  bert[key] = bert.at(key) * 1e7;
  write_safetensors(source.path(), bert);
  WeightStorage eight;
  eight.format = WeightFormat::kInt8;
  check_error([&] { quantize_model(source.path(), output.path(), shape, eight, go_on); }, "NOT_FINITE", key);
  check(!std::filesystem::exists(output.path()), "nothing half-written");
}

PEFT_TEST(layers_that_the_config_does_not_count_are_left_out) {
  ModelShape shape = tiny_shape();
  const TemporaryFile source("source.safetensors"), output("output.safetensors");
  write_safetensors(source.path(), random_bert(shape));
  shape.num_layers--;
  quantize_model(source.path(), output.path(), shape, nf4(64, true), go_on);
  const std::string beyond = "encoder.layer." + std::to_string(shape.num_layers) + ".";
  for (const auto& [key, tensor] : read_all(output.path())) check(!key.starts_with(beyond), key);
  load_bert_weights(output.path(), shape, std::nullopt, at::kCPU);
}

/// 36,864 blocks: ATen would add up that many in as many parts as there are threads.
PEFT_TEST(double_quantisation_does_not_depend_on_threads) {
  at::manual_seed(21);
  const at::Tensor w = at::randn({1536, 1536}) * 0.05;
  const int threads = at::get_num_threads();
  const auto offset = [&](int count) {
    at::set_num_threads(count);
    const BlockwiseWeight q = quantize_blockwise(w, nf4(64, true));
    at::set_num_threads(threads);
    return q.nested_offset;
  };
  const BlockwiseWeight plain = quantize_blockwise(w, nf4(64, false));
  at::set_num_threads(1);
  const float expected = at::mean(plain.absmax).item<float>();
  at::set_num_threads(threads);
  for (const int count : {1, 2, 3}) check(offset(count) == expected, std::to_string(count) + " threads");
  const BlockwiseWeight q = quantize_blockwise(w, nf4(64, true));
  check(static_cast<double>(q.bytes()) < 0.52 * static_cast<double>(w.numel()), "bytes a weight");
}

PEFT_TEST(broken_int8_files_are_refused) {
  Weights good;
  put_row_int8(good, "m", quantize_rows(at::randn({8, 48})));
  const auto refused = [&](const std::string& name, const at::Tensor& tensor, const std::string& part) {
    Weights bad = good;
    if (tensor.defined()) {
      bad[name] = tensor;
    } else {
      bad.erase(name);
    }
    const TemporaryFile path("bad.safetensors");
    write_safetensors(path.path(), bad);
    const SafetensorsFile file(path.path());
    check_error([&] { read_row_int8(file, "m", 8, 48); }, "QUANT_STATE", part);
  };
  refused("m.SCB", {}, "m.SCB\" is missing");
  refused("m.SCB", good["m.SCB"] * NAN, "NaN");
  refused("m.SCB", -good["m.SCB"], "negative");
  refused("m.SCB", good["m.SCB"].to(at::kHalf), "is F16, expected F32");
  refused("m.weight", good["m.weight"].narrow(0, 0, 7).contiguous(), "another shape");
  refused("m.weight", at::full_like(good["m.weight"], -128), "holds -128");
  refused("m.weight_format", at::ones({}, at::kByte), "layout other than row");
  refused("m.weight.outlier_value", at::ones({1}, at::kHalf), "keep no weights apart");
}

}  // namespace peft::test
