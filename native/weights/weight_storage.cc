#include "weights/weight_storage.h"

#include "error.h"

namespace peft {
namespace {

constexpr const char* kNames[] = {"float32", "float16", "bfloat16", "int8", "nf4", "fp4"};

}  // namespace

WeightFormat parse_weight_format(const std::string& name) {
  for (int i = 0; i < 6; i++) {
    if (name == kNames[i]) return static_cast<WeightFormat>(i);
  }
  throw EngineError("USAGE", "Unknown weight format \"" + name +
                                 "\"; expected float32, float16, bfloat16, int8, nf4 or fp4");
}

const char* weight_format_name(WeightFormat format) { return kNames[static_cast<int>(format)]; }

void check_storage(const WeightStorage& storage) {
  const int64_t block = storage.block_size;
  if (block < 32 || block > 4096 || (block & (block - 1)) != 0) {
    throw EngineError("USAGE", "Block size " + std::to_string(block) +
                                   " is not one of 32, 64, 128, 256, 512, 1024, 2048, 4096");
  }
  if (!(storage.outlier_fraction >= 0 && storage.outlier_fraction <= 0.1)) {
    throw EngineError("USAGE", "Outlier fraction " + std::to_string(storage.outlier_fraction) +
                                   " is out of range; expected 0 to 0.1");
  }
  if (!(storage.outlier_threshold >= 0)) {
    throw EngineError("USAGE", "Outlier threshold " + std::to_string(storage.outlier_threshold) +
                                   " is out of range; expected 0 or more");
  }
  const auto has_codes = [](WeightFormat f) { return is_four_bit(f) || f == WeightFormat::kInt8; };
  if (has_codes(storage.products) ||
      (storage.products != WeightFormat::kFloat32 && has_codes(storage.format))) {
    throw EngineError("USAGE", std::string("Products in ") + weight_format_name(storage.products) +
                                   " do not go with weights in " + weight_format_name(storage.format));
  }
}

}  // namespace peft
