#include "quant_cases.h"

#include <ATen/ATen.h>

#include "cuda/quant_linear.h"
#include "quant_reference.h"
#include "weights/code_book.h"

namespace peft::cuda {
namespace {

struct Context {
  at::Device device;
  Launcher& launcher;
};

/// Half precision and bfloat16 also round the result.
double rounding(at::ScalarType type) { return type == at::kFloat ? 2e-6 : type == at::kHalf ? 1e-3 : 8e-3; }

Tensor random(at::IntArrayRef shape, at::ScalarType type = at::kFloat) { return at::randn(shape).to(type); }

struct Shape {
  int64_t rows, columns;
  WeightStorage storage;
};

std::string describe(const Shape& s) {
  return std::to_string(s.rows) + "x" + std::to_string(s.columns) + " " +
         weight_format_name(s.storage.format) + " block " + std::to_string(s.storage.block_size) +
         (s.storage.double_quant ? " double" : "") + (s.storage.outlier_fraction > 0 ? " outliers" : "");
}

FourBitWeight on_cpu(const BlockwiseWeight& b) {
  FourBitWeight w;
  w.rows = b.out;
  w.columns = b.in;
  w.block_size = b.block_size;
  w.codes = b.codes;
  w.table = at::tensor(at::ArrayRef<float>(four_bit_code_book(b.format).value), at::kFloat);
  w.absmax = b.absmax;
  if (b.double_quant()) {
    w.absmax_codes = b.absmax_codes;
    w.absmax_table = at::tensor(at::ArrayRef<float>(dynamic_code_book().value), at::kFloat);
    w.nested_absmax = b.nested_absmax;
    w.absmax_offset = b.nested_offset;
  }
  if (b.outlier_index.defined()) {
    w.outlier_index = b.outlier_index;
    w.outlier_value = b.outlier_value;
    w.outlier_rows = outlier_row_starts(b.outlier_index, b.out, b.in);
  }
  check_weight(w);
  return w;
}

FourBitWeight moved(FourBitWeight w, at::Device device) {
  for (Tensor* t : {&w.codes, &w.table, &w.absmax, &w.absmax_codes, &w.absmax_table, &w.nested_absmax,
                    &w.outlier_index, &w.outlier_value, &w.outlier_rows}) {
    if (t->defined()) *t = t->to(device);
  }
  check_weight(w);
  return w;
}

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

void check_four_bit(const Context& c, const Shape& shape, const std::vector<int64_t>& batches) {
  at::manual_seed(shape.rows * 131 + shape.columns);
  const BlockwiseWeight blockwise = quantize_blockwise(random({shape.rows, shape.columns}), shape.storage);
  const FourBitWeight cpu = on_cpu(blockwise), w = moved(cpu, c.device);
  // The reference against the engine's own on the CPU, so that three agree.
  Tensor whole = at::empty({shape.rows, shape.columns});
  reference::dequantize(cpu, 0, whole);
  require_equal(whole, dequantize_blockwise(blockwise), "the reference");
  for (const at::ScalarType type : kTypes) {
    const std::string what = describe(shape) + " " + at::toString(type);
    const int64_t first = shape.rows / 3, rows = shape.rows - first;
    Tensor out = at::empty({rows, shape.columns}, at::TensorOptions().dtype(type).device(c.device));
    dequantize(c.launcher, w, first, out);
    require_equal(out, whole.narrow(0, first, rows).to(type), "dequantize " + what);
    for (const int64_t batch : batches) {
      const Tensor x = random({batch, shape.columns}, type),
                   bias = batch % 2 ? random({shape.rows}) : Tensor();
      Tensor expected = at::empty({batch, shape.rows});
      reference::linear(cpu, x.to(at::kFloat), bias, expected);
      // Columns of a wider matrix, as the three parts of a QKV weight write them.
      Tensor wide = at::full({batch, shape.rows + 5}, 7, out.options());
      Tensor y = wide.narrow(1, 3, shape.rows);
      linear(c.launcher, w, x.to(c.device), bias.defined() ? bias.to(c.device) : bias, y);
      require_close(y, expected, rounding(type), "linear of " + std::to_string(batch) + " rows, " + what);
      require(wide.narrow(1, 0, 3).eq(7).all().item<bool>() &&
                  wide.narrow(1, shape.rows + 3, 2).eq(7).all().item<bool>(),
              "linear wrote beside its columns, " + what);
    }
  }
}

void check_int8(const Context& c, int64_t rows, int64_t columns, double threshold,
                const std::vector<int64_t>& batches) {
  at::manual_seed(rows * 137 + columns);
  const RowInt8Weight quantized = quantize_rows(random({rows, columns}));
  const Int8Weight cpu{quantized.codes, quantized.absmax},
      w{quantized.codes.to(c.device), quantized.absmax.to(c.device)};
  check_weight(w);
  const bool whole_units = rows % 8 == 0 && columns % 8 == 0;
  for (const at::ScalarType type : kTypes) {
    const std::string what = std::to_string(rows) + "x" + std::to_string(columns) + " int8 " +
                             at::toString(type) + " threshold " + std::to_string(threshold);
    Tensor out = at::empty({rows, columns}, at::TensorOptions().dtype(type).device(c.device));
    dequantize(c.launcher, w, out);
    require_equal(out, dequantize_rows(quantized).to(type), "dequantize " + what);
    for (const int64_t batch : batches) {
      Tensor x = random({batch, columns}, type);
      x.select(1, columns / 2).mul_(9);  // a column of outliers, as real activations have
      const Tensor bias = batch % 2 ? random({rows}) : Tensor();
      Tensor expected = at::empty({batch, rows});
      if (whole_units) {
        reference::linear(cpu, x.to(at::kFloat), bias, threshold, expected);
      } else {
        expected = at::mm(x.to(at::kFloat), dequantize_rows(quantized).t());
        if (bias.defined()) expected += bias;
      }
      Tensor wide = at::full({batch, rows + 2}, 7, out.options());
      Tensor y = wide.narrow(1, 1, rows);
      linear(c.launcher, w, x.to(c.device), bias.defined() ? bias.to(c.device) : bias, threshold, y);
      require_close(y, expected, whole_units ? rounding(type) : 2 * rounding(type),
                    "linear of " + std::to_string(batch) + " rows, " + what);
      require(wide.select(1, 0).eq(7).all().item<bool>() && wide.select(1, rows + 1).eq(7).all().item<bool>(),
              "linear wrote beside its columns, " + what);
    }
  }
}

/// Forward and backward of the engine's interface, over three parts as a QKV weight has.
void check_frozen(const Context& c, const FrozenLinear& w, FrozenLinear& mutable_w, const Tensor& plain,
                  int64_t batch, double tolerance, const std::string& what) {
  require_close(w.dequantize(), plain, 0, what + ": dequantize");
  require(w.out_features() == plain.size(0) && w.in_features() == plain.size(1) && w.bytes() > 0,
          what + ": shape");
  const Tensor x = random({batch, plain.size(1)}), bias = random({plain.size(0)});
  Tensor y = at::empty({batch, plain.size(0)}, at::TensorOptions().device(c.device));
  w.forward(x.to(c.device), {.bias = bias.to(c.device)}, y);
  require_close(y, at::addmm(bias, x, plain.t()), tolerance, what + ": forward");
  w.forward(x.to(c.device), {}, y);
  require_close(y, at::mm(x, plain.t()), tolerance, what + ": forward without bias");
  const Tensor dy = random({batch, plain.size(0)}), before = random({batch, plain.size(1)});
  Tensor dx = before.to(c.device, at::kFloat, false, true);
  mutable_w.backward_input(dy.to(c.device), {.accumulate = true}, dx);
  require_close(dx, before + at::mm(dy, plain), 1e-5, what + ": backward, added");
  mutable_w.backward_input(dy.to(c.device), {}, dx);
  require_close(dx, at::mm(dy, plain), 1e-5, what + ": backward");
}

/// The input gradient in 8 bits, as --compute int8 has it.
void check_rounded_gradient(const Context& c, int64_t rows, int64_t columns, int64_t batch) {
  at::manual_seed(rows + columns + batch);
  const RowInt8Weight quantized = quantize_rows(random({rows, columns}));
  const auto w = make_int8_linear(quantized, 6, c.device, c.launcher, Int8Gradient::kRounded);
  const auto plain = peft::reference::make_int8_linear(quantized, 6, at::kCPU, Int8Gradient::kRounded);
  const std::string what = "gradient in 8 bits of " + std::to_string(batch) + "x" + std::to_string(rows);
  const Tensor dy = random({batch, rows}), before = random({batch, columns});
  const int64_t promised = w->gradient_bytes(), bytes = w->bytes();
  for (const bool accumulate : {false, true}) {
    Tensor expected = before.clone(), dx = before.to(c.device, at::kFloat, false, true);
    plain->backward_input(dy, {.accumulate = accumulate}, expected);
    w->backward_input(dy.to(c.device), {.accumulate = accumulate}, dx);
    require_close(dx, expected, 2e-6, what);
  }
  require(promised > 0 && w->bytes() == bytes + promised && w->gradient_bytes() == 0, what + ": bytes");
}

void check_interface(const Context& c) {
  for (const int64_t batch : {int64_t{2}, int64_t{40}}) {
    for (const bool nested : {false, true}) {
      const WeightStorage storage = {WeightFormat::kNf4, 64, nested, 0.01, 6};
      std::vector<BlockwiseWeight> parts;
      std::vector<Tensor> plain;
      for (int i = 0; i < 3; i++) {
        parts.push_back(quantize_blockwise(random({24, 40}), storage));
        plain.push_back(dequantize_blockwise(parts.back()));
      }
      const auto w = make_four_bit_linear(parts, c.device, c.launcher);
      check_frozen(c, *w, *w, at::cat(plain), batch, 1e-5, "4-bit FrozenLinear");
    }
    const RowInt8Weight quantized = quantize_rows(random({24, 40}));
    const auto w = make_int8_linear(quantized, 2, c.device, c.launcher);
    // x is rounded to 8 bits, which the reference here does not do.
    check_frozen(c, *w, *w, dequantize_rows(quantized), batch, 0.02, "int8 FrozenLinear");
  }
}

}  // namespace

std::vector<DeviceCase> quant_cases(at::Device device, Launcher& launcher, bool large) {
  const Context c{device, launcher};
  using F = WeightFormat;
  std::vector<Shape> shapes = {
      {1, 1, {F::kNf4, 32, false, 0, 6}},    {3, 5, {F::kFp4, 64, true, 0, 6}},
      {7, 33, {F::kNf4, 32, true, 0.02, 6}}, {18, 64, {F::kFp4, 64, false, 0.01, 6}},
      {33, 129, {F::kNf4, 128, true, 0, 6}}, {9, 1000, {F::kNf4, 4096, true, 0.005, 6}},
      {3, 2047, {F::kNf4, 64, false, 0, 6}},  // the last two rows lie in one group more than their count says

  };
  struct Int8Shape {
    int64_t rows, columns;
    double threshold;
  };
  std::vector<Int8Shape> int8_shapes = {{8, 8, 0}, {24, 72, 6}, {3, 9, 6}, {264, 40, 2.5}};
  std::vector<int64_t> batches = {1, 3, 16, 17};
  if (large) {
    for (const int64_t block : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
      shapes.push_back({384, 1536, {block % 3 == 2 ? F::kNf4 : F::kFp4, block, block >= 256, 0.005, 6}});
    }
    shapes.push_back({1024, 4096, {F::kNf4, 64, true, 0.005, 6}});
    shapes.push_back({4096, 1024, {F::kNf4, 64, true, 0, 6}});
    shapes.push_back({1537, 771, {F::kFp4, 64, false, 0.02, 6}});
    int8_shapes.push_back({384, 1536, 6});
    int8_shapes.push_back({1536, 384, 6});
    int8_shapes.push_back({4096, 1024, 3});
    batches = {1, 2, 3, 4, 5, 8, 11, 16, 17, 128, 1000};
  }
  std::vector<DeviceCase> cases;
  for (const Shape& shape : shapes) {
    cases.push_back({"4-bit " + describe(shape), [=] { check_four_bit(c, shape, batches); }});
  }
  for (const Int8Shape& s : int8_shapes) {
    if (s.rows % 8 == 0 && s.columns % 8 == 0) {
      cases.push_back({"int8 gradient " + std::to_string(s.rows) + "x" + std::to_string(s.columns), [=] {
                         for (const int64_t batch : {3, 20})
                           check_rounded_gradient(c, s.rows, s.columns, batch);
                       }});
    }
    cases.push_back({"int8 " + std::to_string(s.rows) + "x" + std::to_string(s.columns) + " threshold " +
                         std::to_string(s.threshold),
                     [=] { check_int8(c, s.rows, s.columns, s.threshold, batches); }});
  }
  cases.push_back({"the engine's FrozenLinear", [=] { check_interface(c); }});
  return cases;
}

}  // namespace peft::cuda
