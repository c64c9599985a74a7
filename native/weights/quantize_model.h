#pragma once

#include <functional>
#include <string>

#include "weights/model_shape.h"
#include "weights/weight_storage.h"

namespace peft {

struct QuantizeReport {
  int64_t tensors = 0;       // matrices that were quantised
  int64_t parameters = 0;    // in them
  int64_t bytes = 0;         // that they take now
  int64_t source_bytes = 0;  // that they took
  int64_t outliers = 0;
  int64_t left_out = 0;  // tensors of layers beyond those that config.json counts
  double mean_squared_error = 0;
  double relative_error = 0;  // |W - W'| / |W|, Frobenius norms over all of them
};

/// Reads the model.safetensors at `source` one matrix at a time and writes it to `output` with every linear
/// layer quantised as transformers does it (the encoder's and the pooler's), word embeddings in fp16, layers
/// that config.json does not count left out as loading leaves them, all else as it is. `progress(done,
/// total)` counts matrices, and ends the work (ABORTED) by returning false. Throws ALREADY_QUANTIZED,
/// NOT_FINITE, MODEL_CORRUPT, USAGE for a format that is not int8, nf4 or fp4, OUTPUT_UNWRITABLE; no file is
/// left then.
QuantizeReport quantize_model(const std::string& source, const std::string& output, const ModelShape& shape,
                              const WeightStorage& storage,
                              const std::function<bool(int64_t, int64_t)>& progress);

}  // namespace peft
