#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <random>

#include "check.h"
#include "oracle.h"
#include "weights/blockwise.h"
#include "weights/code_book.h"
#include "weights/quant_file.h"
#include "weights/quant_state.h"
#include "weights/quantize_model.h"
#include "weights/row_int8.h"

// Quantisation against the files that bitsandbytes' own CPU code wrote
// (test/fixtures/quant/make_quant_golden.py), and there and back through our own files.

namespace peft::test {
namespace {

std::string fixture(const std::string& name) { return std::string(PEFT_FIXTURES "/quant/") + name; }

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.numel() == b.numel() &&
         std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0;
}

/// Names of the cases of a golden file: keys that end in `.input`.
std::vector<std::string> cases_of(const SafetensorsFile& file) {
  std::vector<std::string> names;
  for (const auto& [key, entry] : file.table()) {
    if (key.ends_with(".input")) names.push_back(key.substr(0, key.size() - 6));
  }
  return names;
}

/// {nf4|fp4}_{block}_{plain|double}_{label}
WeightStorage storage_of(const std::string& name) {
  const size_t first = name.find('_'), second = name.find('_', first + 1);
  WeightStorage s;
  s.format = parse_weight_format(name.substr(0, first));
  s.block_size = std::stoll(name.substr(first + 1, second - first - 1));
  s.double_quant = name.compare(second + 1, 6, "double") == 0;
  return s;
}

WeightStorage four_bit(WeightFormat format, int64_t block, bool double_quant, double fraction) {
  return {format, block, double_quant, fraction, 6};
}

/// Matrices of every shape that a block can meet, with some entries far from the others.
at::Tensor random_matrix(std::mt19937& random) {
  const int64_t out = 1 + static_cast<int64_t>(random() % 70), in = 1 + static_cast<int64_t>(random() % 200);
  at::Tensor w = at::randn({out, in}) * 0.05;
  if (random() % 2 == 0) w = w * (1 + 20 * (at::rand({out, in}) > 0.98).to(at::kFloat));
  return w;
}

void check_same(const BlockwiseWeight& a, const BlockwiseWeight& b, const std::string& what) {
  check(same_bits(a.codes, b.codes), what + ": codes");
  check(a.double_quant() == b.double_quant(), what + ": kind of absmax");
  if (a.double_quant()) {
    check(same_bits(a.absmax_codes, b.absmax_codes), what + ": absmax codes");
    check(same_bits(a.nested_absmax, b.nested_absmax), what + ": nested absmax");
    check(a.nested_offset == b.nested_offset, what + ": offset");
  } else {
    check(same_bits(a.absmax, b.absmax), what + ": absmax");
  }
  check(a.outlier_index.defined() == b.outlier_index.defined(), what + ": outliers");
  if (!a.outlier_index.defined()) return;
  check(same_bits(a.outlier_index, b.outlier_index), what + ": outlier places");
  check(same_bits(a.outlier_value, b.outlier_value), what + ": outlier values");
}

}  // namespace

PEFT_TEST(four_bit_codes_are_those_of_bitsandbytes) {
  const SafetensorsFile golden(fixture("blockwise.safetensors"));
  const std::vector<std::string> names = cases_of(golden);
  check(names.size() >= 40, "the golden file holds its cases");
  for (const std::string& name : names) {
    const WeightStorage storage = storage_of(name);
    const BlockwiseWeight w = quantize_blockwise(golden.read(name + ".input"), storage);
    check(same_bits(w.codes, golden.read(name + ".weight").flatten()), name + ": codes");
    const at::Tensor map = golden.read(name + ".quant_map");
    check(std::memcmp(map.data_ptr(), four_bit_code_book(storage.format).value.data(), 64) == 0,
          name + ": map");
    if (storage.double_quant) {
      check(same_bits(w.absmax_codes, golden.read(name + ".absmax")), name + ": absmax codes");
      check(same_bits(w.nested_absmax, golden.read(name + ".nested_absmax")), name + ": nested absmax");
      check(w.nested_offset == golden.read(name + ".nested_offset").item<float>(), name + ": offset");
      const at::Tensor nested = golden.read(name + ".nested_quant_map");
      check(std::memcmp(nested.data_ptr(), dynamic_code_book().value.data(), 1024) == 0,
            name + ": nested map");
    } else {
      check(same_bits(w.absmax, golden.read(name + ".absmax")), name + ": absmax");
    }
    // Equal, not the same bits: bitsandbytes' vector code gives the zero of FP4's code 8 a sign.
    check(at::equal(dequantize_blockwise(w), golden.read(name + ".dequantized")), name + ": dequantised");
  }
}

PEFT_TEST(int8_codes_are_those_of_bitsandbytes) {
  const SafetensorsFile golden(fixture("int8.safetensors"));
  for (const std::string& name : cases_of(golden)) {
    const RowInt8Weight w = quantize_rows(golden.read(name + ".input"));
    check(same_bits(w.codes, golden.read(name + ".weight")), name + ": codes");
    check(same_bits(w.absmax, golden.read(name + ".SCB")), name + ": row scales");
  }
}

PEFT_TEST(quantised_weights_survive_a_file) {
  std::mt19937 random(7);
  at::manual_seed(7);
  for (int round = 0; round < 60; round++) {
    const at::Tensor w = random_matrix(random);
    const WeightStorage storage =
        four_bit(round % 2 ? WeightFormat::kNf4 : WeightFormat::kFp4, int64_t{32} << random() % 8,
                 random() % 2 == 0, random() % 3 == 0 ? 0.0 : 0.02);
    const BlockwiseWeight before = quantize_blockwise(w, storage);
    const RowInt8Weight rows = quantize_rows(w);
    std::map<std::string, at::Tensor> tensors;
    put_blockwise(tensors, "four", before);
    put_row_int8(tensors, "eight", rows);
    const TemporaryFile path("quant.safetensors");
    write_safetensors(path.path(), tensors);
    const SafetensorsFile file(path.path());
    check(stored_format(file, "four") == storage.format, "format of four bits");
    check(stored_format(file, "eight") == WeightFormat::kInt8, "format of eight bits");
    check_same(read_blockwise(file, "four", w.size(0), w.size(1)), before, "round " + std::to_string(round));
    const RowInt8Weight again = read_row_int8(file, "eight", w.size(0), w.size(1));
    check(same_bits(again.codes, rows.codes) && same_bits(again.absmax, rows.absmax), "int8");
    // Half a step of the coarsest gap of the map, or half a step of 127.
    const at::Tensor error = (dequantize_blockwise(before) - w).abs().max();
    // Scales in 8 bits add up to 1 % of the largest of their group.
    const float share = storage.double_quant ? 0.19f : 0.17f;
    check(error.item<float>() <= share * w.abs().max().item<float>() + 1e-6f, "error of four bits");
    const at::Tensor eight = (dequantize_rows(rows) - w).abs();
    check((eight <= w.abs().amax(1, true) * (0.5 / 127 + 1e-3)).all().item<bool>(), "error of eight bits");
  }
}

PEFT_TEST(outliers_keep_the_budget_and_lower_the_error) {
  at::manual_seed(3);
  for (const double fraction : {0.001, 0.005, 0.02}) {
    for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
      const at::Tensor w = at::randn({96, 200}) * (1 + 15 * (at::rand({96, 200}) > 0.995).to(at::kFloat));
      const auto error = [&](const BlockwiseWeight& q) {
        return (dequantize_blockwise(q) - w).square().sum().item<double>();
      };
      const BlockwiseWeight plain = quantize_blockwise(w, four_bit(format, 64, false, 0));
      const BlockwiseWeight kept = quantize_blockwise(w, four_bit(format, 64, false, fraction));
      const int64_t count = kept.outlier_index.numel();
      const auto budget = static_cast<int64_t>(fraction * static_cast<double>(w.numel()));
      check(count <= budget && count >= budget * 9 / 10, "budget " + std::to_string(count));
      check(error(kept) < 0.95 * error(plain), "error with outliers");
      const at::Tensor at = kept.outlier_index.to(at::kLong);
      check(at::equal(dequantize_blockwise(kept).flatten().index_select(0, at),
                      w.flatten().index_select(0, at).to(at::kHalf).to(at::kFloat)),
            "outliers come back as fp16");
    }
  }
}

PEFT_TEST(broken_quantisation_states_are_refused) {
  const at::Tensor w = at::randn({8, 48});
  std::map<std::string, at::Tensor> good;
  put_blockwise(good, "m", quantize_blockwise(w, four_bit(WeightFormat::kNf4, 64, true, 0.02)));
  const auto refused = [&](const std::map<std::string, at::Tensor>& tensors, const std::string& part) {
    const TemporaryFile path("bad.safetensors");
    write_safetensors(path.path(), tensors);
    const SafetensorsFile file(path.path());
    check_error([&] { read_blockwise(file, "m", 8, 48); }, "QUANT_STATE", part);
  };
  const std::string key = "m.weight", state = key + ".quant_state.bitsandbytes__nf4";
  for (const std::string name : {".quant_map", ".absmax", ".nested_absmax", ".nested_quant_map"}) {
    auto bad = good;
    bad.erase(key + name);
    refused(bad, key + name + "\" is missing");
    bad = good;
    bad[key + name] = good[key + name].narrow(0, 0, good[key + name].numel() - 1).contiguous();
    refused(bad, "its quantisation state asks for");
  }
  auto bad = good;
  bad[key] = good[key].narrow(0, 0, 100).contiguous();
  refused(bad, "has 100 elements");
  bad = good;
  bad[key + ".quant_map"] = good[key + ".quant_map"] + 1;
  refused(bad, "differs at code 0");
  bad = good;
  bad[key + ".nested_absmax"] = good[key + ".nested_absmax"] * NAN;
  refused(bad, "NaN");
  bad = good;
  bad[key + ".outlier_index"] = good[key + ".outlier_index"] + 8 * 48;
  refused(bad, "does not rise");
  bad[key + ".outlier_index"] = at::zeros_like(good[key + ".outlier_index"]);
  refused(bad, "does not rise");
  bad[key + ".outlier_index"] = good[key + ".outlier_index"] - 8 * 48;
  refused(bad, "does not rise");
  bad[key + ".outlier_index"] = good[key + ".outlier_index"].to(at::kLong);
  refused(bad, "is I64, expected I32");
  bad[key + ".outlier_index"] = at::empty({0}, at::kInt);
  refused(bad, "its quantisation state asks for 0");
  bad.erase(key + ".outlier_index");
  refused(bad, "outlier_index\" is missing beside its values");
  bad = good;
  bad.erase(key + ".outlier_value");
  refused(bad, "outlier_value\" is missing beside its places");
  bad = good;
  bad[key + ".outlier_value"] = good[key + ".outlier_value"] * NAN;
  refused(bad, "NaN");
  bad = good;
  bad[key + ".quant_state.bitsandbytes__fp4"] = good[state];
  refused(bad, "has a state of nf4 and one of fp4");
  const auto with_state = [&](const std::string& json) {
    auto tensors = good;
    at::Tensor text = at::empty({static_cast<int64_t>(json.size())}, at::kByte);
    std::memcpy(text.data_ptr(), json.data(), json.size());
    tensors[state] = text;
    return tensors;
  };
  const std::string tail = R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5})";
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 64, "shape": [8, 47])" + tail), "another shape");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 48, "shape": [8, 48])" + tail), "Block size 48");
  refused(with_state(R"({"quant_type": "fp4", "blocksize": 64, "shape": [8, 48])" + tail),
          "another quant_type");
  refused(with_state(R"({"quant_type": "int3", "blocksize": 64, "shape": [8, 48])" + tail), "int3");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 64)"), "a value is missing");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": "64", "shape": [8, 48])" + tail), "is no number");
  refused(with_state(R"({"quant_type": "nf4", "blocksize": 64, "shape": [8, 48], "nested_blocksize": 256, )"
                     R"("nested_offset": 1e300})"),
          "no finite number of float32");
  refused(with_state("{}"), "expected '\"'");
  refused(with_state(""), "expected '{'");
}

PEFT_TEST(quant_states_are_written_as_python_writes_them) {
  QuantState state;
  state.shape = {64, 64};
  state.nested = true;
  state.nested_offset = 2.6196627616882324;
  check(format_quant_state(state) ==
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [64, 64], )"
            R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 2.6196627616882324})",
        format_quant_state(state));
  for (const double offset : {0.0, 1e-38, 0.0001, 1.0, 3.4028234663852886e38}) {
    state.nested_offset = offset;
    check(parse_quant_state(format_quant_state(state), "test").nested_offset == offset, "offset round trip");
  }
}

PEFT_TEST(models_are_quantised_once_and_whole) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile source("source.safetensors"), output("output.safetensors"), twice("twice.safetensors");
  const Weights bert = random_bert(shape);
  write_safetensors(source.path(), bert);
  const WeightStorage storage = four_bit(WeightFormat::kNf4, 64, true, 0.005);
  int64_t calls = 0;
  const QuantizeReport report =
      quantize_model(source.path(), output.path(), shape, storage, [&](int64_t done, int64_t total) {
        check(done == ++calls && total == 6 * shape.num_layers + 1, "progress");
        return true;
      });
  check(report.tensors == calls, "every matrix is counted");
  check(report.relative_error > 0.01 && report.relative_error < 0.15, "error of NF4");
  check(report.bytes < report.source_bytes / 5, "bytes");
  check_error(
      [&] {
        quantize_model(output.path(), twice.path(), shape, storage, [](int64_t, int64_t) { return true; });
      },
      "ALREADY_QUANTIZED", "quantised already");
  check(!std::filesystem::exists(twice.path()), "nothing half-written");
  int64_t seen = 0;
  check_error(
      [&] {
        quantize_model(source.path(), twice.path(), shape, storage,
                       [&](int64_t done, int64_t) { return (seen = done) < 2; });
      },
      "ABORTED", "stopped");
  check(seen == 2 && !std::filesystem::exists(twice.path()), "stopped at once, and nothing half-written");
  Weights broken = bert;
  broken["encoder.layer.0.intermediate.dense.weight"] =
      bert.at("encoder.layer.0.intermediate.dense.weight") * NAN;
  write_safetensors(source.path(), broken);
  check_error(
      [&] {
        quantize_model(source.path(), twice.path(), shape, storage, [](int64_t, int64_t) { return true; });
      },
      "NOT_FINITE", "encoder.layer.0.intermediate.dense.weight");
  WeightStorage half;
  half.format = WeightFormat::kFloat16;
  check_error(
      [&] {
        quantize_model(source.path(), twice.path(), shape, half, [](int64_t, int64_t) { return true; });
      },
      "USAGE", "float16");
}

}  // namespace peft::test
