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

/// What is told of a model's blocks is told of all of it; and a matrix without its state is no other shape.
PEFT_TEST(all_matrices_of_a_file_are_held_alike) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile path("mixed.safetensors");
  const Weights good = quantised(shape, nf4(64, true));
  const auto refused = [&](const Weights& weights, const std::string& part) {
    write_safetensors(path.path(), weights);
    check_error([&] { load_bert_weights(path.path(), shape, nf4(64, true), at::kCPU); }, "QUANT_STATE", part);
  };
  const auto replaced = [&](const std::string& module, const WeightStorage& storage) {
    Weights mixed = good;
    std::erase_if(mixed, [&](const auto& entry) { return entry.first.starts_with(module + ".weight"); });
    for (const auto& [name, tensor] : quantised(shape, storage)) {
      if (name.starts_with(module + ".")) mixed[name] = tensor;
    }
    return mixed;
  };
  const std::string last = "encoder.layer.2.output.dense", query = "encoder.layer.0.attention.self.query";
  WeightStorage fp4 = nf4(64, true), int8;
  fp4.format = WeightFormat::kFp4;
  int8.format = WeightFormat::kInt8;
  refused(replaced(last, nf4(128, true)), last + "\" is quantised in blocks of 128 with 8-bit scales");
  refused(replaced(last, nf4(64, false)), last + "\" is quantised in blocks of 64,");
  refused(replaced(last, fp4),
          last + ".weight.quant_state.bitsandbytes__nf4\" is missing; the matrix is in fp4");
  refused(replaced(last, int8), "the matrix is in int8, others are in nf4");
  for (const std::string& module : {query, last}) {
    Weights stateless = good;
    check(stateless.erase(module + ".weight.quant_state.bitsandbytes__nf4") == 1, "the state was there");
    refused(stateless,
            module + ".weight.quant_state.bitsandbytes__nf4\" is missing; the matrix is not quantised");
  }
}

PEFT_TEST(scales_that_no_model_can_have_are_refused) {
  const at::Tensor w = at::randn({8, 48});
  const auto refused = [](Weights weights, const std::string& key, const at::Tensor& value,
                          const std::string& part) {
    weights[key] = value;
    const TemporaryFile path("absurd.safetensors");
    write_safetensors(path.path(), weights);
    const SafetensorsFile file(path.path());
    check_error(
        [&] {
          if (stored_format(file, "m") == WeightFormat::kInt8) read_row_int8(file, "m", 8, 48);
          read_blockwise(file, "m", 8, 48);
        },
        "QUANT_STATE", part);
  };
  Weights plain, nested, eight;
  put_blockwise(plain, "m", quantize_blockwise(w, nf4(64, false)));
  put_blockwise(nested, "m", quantize_blockwise(w, nf4(64, true)));
  put_row_int8(eight, "m", quantize_rows(w));
  refused(plain, "m.weight.absmax", at::full({6}, 3e38), "absmax\" holds a scale beyond 1.8e19");
  refused(nested, "m.weight.nested_absmax", at::full({1}, 1e30), "nested_absmax\" holds a scale beyond");
  refused(eight, "m.SCB", at::full({8}, 1e30), "m.SCB\" holds a scale beyond");
  for (const std::string offset : {"1e30", "-0.5"}) {
    const std::string json = R"({"quant_type": "nf4", "blocksize": 64, "shape": [8, 48], )"
                             R"("nested_blocksize": 256, "nested_offset": )" +
                             offset + "}";
    at::Tensor state = at::empty({static_cast<int64_t>(json.size())}, at::kByte);
    std::memcpy(state.data_ptr(), json.data(), json.size());
    refused(nested, "m.weight.quant_state.bitsandbytes__nf4", state, "nested_offset that is no mean");
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

PEFT_TEST(every_tensor_of_a_source_is_held_against_its_config_first) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile source("source.safetensors"), output("output.safetensors");
  const auto refused = [&](const Weights& weights, const ModelShape& asked, const std::string& part) {
    write_safetensors(source.path(), weights);
    const auto no_work = [](int64_t, int64_t) -> bool { throw std::runtime_error("a matrix was quantised"); };
    check_error([&] { quantize_model(source.path(), output.path(), asked, nf4(64, false), no_work); },
                "MODEL_CORRUPT", part);
    check(!std::filesystem::exists(output.path()), "nothing half-written");
  };
  for (const std::string key :
       {"encoder.layer.1.output.dense.weight", "encoder.layer.2.intermediate.dense.bias",
        "encoder.layer.0.attention.output.LayerNorm.weight", "embeddings.LayerNorm.bias",
        "embeddings.position_embeddings.weight", "pooler.dense.weight"}) {
    Weights broken = random_bert(shape);
    broken[key] = at::ones({7, 3});
    refused(broken, shape, "\"" + key + "\" has shape [7, 3], config.json asks for [");
    if (key == "pooler.dense.weight") continue;
    broken.erase(key);
    refused(broken, shape, "\"" + key + "\" is missing");
  }
  ModelShape deeper = shape;
  deeper.num_layers = 1'000'000'000;
  refused(random_bert(shape), deeper, "\"encoder.layer.3.attention.self.query.weight\" is missing");
}

PEFT_TEST(layers_that_the_config_does_not_count_are_left_out) {
  ModelShape shape = tiny_shape();
  const TemporaryFile source("source.safetensors"), output("output.safetensors");
  write_safetensors(source.path(), random_bert(shape));
  shape.num_layers--;
  const QuantizeReport report = quantize_model(source.path(), output.path(), shape, nf4(64, true), go_on);
  check(report.left_out == 16, "6 matrices with biases and 2 LayerNorms are told to be left out");
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
