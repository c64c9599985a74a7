#include "weights/safetensors.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>
#include <fstream>

#include "check.h"
#include "core/base_matrices.h"
#include "oracle.h"

namespace peft::test {
namespace {

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string file_with(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + data;
}

void check_refused(const std::string& bytes, const std::string& part) {
  const TemporaryFile file("bad.safetensors");
  write_bytes(file.path(), bytes);
  check_error([&] { SafetensorsFile(file.path()); }, "MODEL_CORRUPT", part);
}

std::string entry(const std::string& key, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + key + R"(":{"dtype":")" + dtype + R"(","shape":[)" + shape + R"(],"data_offsets":[)" +
         offsets + "]}";
}

}  // namespace

PEFT_TEST(safetensors_round_trip) {
  const TemporaryFile file("round.safetensors");
  const std::map<std::string, at::Tensor> tensors = {
      {"a", at::randn({3, 5})}, {"b.c", at::randn({7})}, {"empty", at::empty({0, 4})}};
  write_safetensors(file.path(), tensors);
  const SafetensorsFile read(file.path());
  check(read.table().size() == 3, "number of tensors");
  for (const auto& [key, value] : tensors) check(at::equal(read.read_float(key), value), key);
}

PEFT_TEST(safetensors_converts_other_floats) {
  const TemporaryFile file("half.safetensors");
  const at::Tensor half = at::tensor({1.5f, -2.0f}).to(at::kHalf),
                   brain = at::tensor({3.0f}).to(at::kBFloat16);
  const std::string data = std::string(static_cast<const char*>(half.const_data_ptr()), 4) +
                           std::string(static_cast<const char*>(brain.const_data_ptr()), 2);
  write_bytes(file.path(),
              file_with("{" + entry("h", "F16", "2", "0,4") + "," + entry("b", "BF16", "1", "4,6") + "," +
                            entry("i", "I8", "0", "6,6") + "}",
                        data));
  const SafetensorsFile read(file.path());
  check(at::equal(read.read_float("h"), at::tensor({1.5f, -2.0f})), "half");
  check(at::equal(read.read_float("b"), at::tensor({3.0f})), "bfloat16");
  check_error([&] { read.read_float("i"); }, "MODEL_UNSUPPORTED", "I8");
}

PEFT_TEST(safetensors_refuses_what_is_not_finite) {
  const TemporaryFile file("nan.safetensors");
  write_safetensors(file.path(), {{"w", at::tensor({1.0f, NAN})}});
  check_error([&] { SafetensorsFile(file.path()).read_float("w"); }, "NOT_FINITE", "\"w\"");
}

PEFT_TEST(safetensors_refuses_broken_files) {
  const std::string four(4, '\0'), eight(8, '\0');
  check_error([] { SafetensorsFile("/nonexistent/model.safetensors"); }, "FILE_NOT_FOUND", "/nonexistent");
  check_refused("", "only 0 bytes");
  check_refused("version https://git-lfs.github.com/spec/v1", "cut short");
  check_refused(std::string(8, '\xff'), "cut short");
  check_refused(file_with("", ""), "expected '{'");
  check_refused(file_with("[]", ""), "expected '{'");
  check_refused(file_with("{} x", ""), "after the end");
  check_refused(file_with("{" + std::string(100000, '['), ""), "expected '\"'");
  check_refused(
      file_with("{" + entry("a", "F32", "1", "0,4") + "," + entry("a", "F32", "1", "4,8") + "}", eight),
      "twice");
  check_refused(file_with("{" + entry("a", "F99", "1", "0,4") + "}", four), "unknown dtype");
  check_refused(file_with("{" + entry("a", "F32", "2", "0,4") + "}", four), "do not fill");
  check_refused(file_with("{" + entry("a", "F32", "4294967296,4294967296", "0,4") + "}", four),
                "do not fill");
  check_refused(file_with("{" + entry("a", "F32", "1", "4,0") + "}", four), "end before");
  check_refused(file_with("{" + entry("a", "F32", "1", "4,8") + "}", eight), "hole");
  check_refused(
      file_with("{" + entry("a", "F32", "1", "0,4") + "," + entry("b", "F32", "1", "0,4") + "}", eight),
      "overlap");
  check_refused(file_with("{" + entry("a", "F32", "1", "0,4") + "}", eight), "describes 4 bytes");
  check_refused(file_with("{" + entry("a", "F32", "-1", "0,4") + "}", four), "whole number");
  check_refused(file_with("{" + entry("a", "F32", "99999999999999999999", "0,4") + "}", four), "64 bits");
  check_refused(file_with(R"({"a":{"dtype":"F32","shape":[1]}})", four), "needs dtype");
}

PEFT_TEST(safetensors_survives_every_truncation_and_flip) {
  const TemporaryFile file("whole.safetensors"), broken("broken.safetensors");
  write_safetensors(file.path(), {{"a", at::ones({2, 3})}, {"b", at::ones({4})}});
  std::ifstream stream(file.path(), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  for (size_t n = 0; n < bytes.size(); n++) check_refused(bytes.substr(0, n), "");
  for (size_t bit = 0; bit < bytes.size() * 8; bit++) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    write_bytes(broken.path(), flipped);
    try {
      const SafetensorsFile read(broken.path());
      for (const auto& [key, entry] : read.table()) read.read_float(key);
    } catch (const std::exception&) {
      // Refused is fine; crashing or reading out of bounds is not.
    }
  }
}

PEFT_TEST(adapter_files_in_both_layouts_load_and_strays_are_errors) {
  const ModelShape shape = tiny_shape();
  const AdapterSpec spec = spec_for(shape, {"attention.self.query"}, 4, 2.0, 0);
  const Weights weights = random_adapter(spec, shape);
  const TemporaryFile file("adapter.safetensors"), again("again.safetensors");
  Adapter adapter(spec, shape, true, at::kCPU);
  const BertWeights none;  // plain LoRA asks nothing of them
  const BaseMatrices base(none, shape, "");
  Weights doubled;
  for (const auto& [key, value] : weights) doubled["base_model.model.model." + key.substr(17)] = value;
  for (const Weights& layout : {weights, doubled}) {
    write_safetensors(file.path(), layout);
    adapter.load(file.path(), base);
    for (const auto& [key, value] : adapter.named_weights()) check(at::equal(value, weights.at(key)), key);
    adapter.save(again.path());
    check(SafetensorsFile(again.path())
              .has("base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"),
          "saved keys");
  }
  Weights missing = weights, extra = weights, resized = weights, both = weights;
  both.insert(doubled.begin(), doubled.end());
  missing.erase(missing.begin());
  extra["base_model.model.encoder.layer.0.attention.self.key.lora_A.weight"] = at::zeros({4, 48});
  resized.begin()->second = at::zeros({4, 47});
  const auto load = [&](const Weights& w) {
    write_safetensors(file.path(), w);
    adapter.load(file.path(), base);
  };
  check_error([&] { load(both); }, "ADAPTER_MISMATCH", "both key layouts");
  check_error([&] { load(missing); }, "ADAPTER_MISMATCH", "is missing");
  check_error([&] { load(extra); }, "ADAPTER_MISMATCH", "unexpected tensor");
  check_error([&] { load(resized); }, "ADAPTER_MISMATCH", "shape");
}

}  // namespace peft::test
