#pragma once

#include <cstdint>
#include <string>

namespace peft {

/// What the codes of a frozen weight are.
enum class WeightFormat { kFloat32, kFloat16, kBfloat16, kInt8, kNf4, kFp4 };

inline bool is_four_bit(WeightFormat f) { return f == WeightFormat::kNf4 || f == WeightFormat::kFp4; }

/// How the frozen linear weights are held.
struct WeightStorage {
  WeightFormat format = WeightFormat::kFloat32;
  /// Weights that share one absmax; 4-bit only.
  int64_t block_size = 64;
  /// absmax in 8 bits; 4-bit only.
  bool double_quant = false;
  /// Share of the weights that is kept in fp16 beside the codes; 4-bit only.
  double outlier_fraction = 0;
  /// Entries of x beyond this go through fp16; int8 only. 0 turns that off.
  double outlier_threshold = 6;
  /// The input gradient is multiplied in 8 bits too; int8 only.
  bool int8_gradient = false;
  /// What both operands of a product are rounded to, float16 or bfloat16, or float32 for neither; for weights
  /// without codes only.
  WeightFormat products = WeightFormat::kFloat32;
};

/// Names as in lib/native/types.ts. Throws USAGE for a name that is none.
WeightFormat parse_weight_format(const std::string& name);
const char* weight_format_name(WeightFormat format);

/// Throws USAGE for what is out of range or does not go together.
void check_storage(const WeightStorage& storage);

}  // namespace peft
