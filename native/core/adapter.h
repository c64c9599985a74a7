#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "weights/model_shape.h"

namespace peft {

using at::Tensor;

enum class LinearKind { kQuery, kKey, kValue, kAttentionOutput, kIntermediate, kOutput, kPooler };

/// Which linear layer of BertModel a module name stands for.
struct ModulePath {
  LinearKind kind;
  int64_t layer = -1;  // -1 for the pooler
};

struct LoraModuleSpec {
  std::string name;  // `encoder.layer.0.attention.self.query`
  int64_t rank = 0;
  double scale = 1;
};

/// How a fresh adapter begins; lib/native/types.ts says what each is.
enum class AdapterInit { kKaiming, kUniform, kGaussian, kOrthogonal };

/// Throws USAGE for a name that is none.
AdapterInit parse_adapter_init(const std::string& name);

struct AdapterSpec {
  std::vector<LoraModuleSpec> modules;
  double dropout = 0;
  AdapterInit init = AdapterInit::kKaiming;
};

/// One wrapped linear layer: y = W x + b + scale * B(A(x)). Hu et al., "LoRA", 2021.
struct LoraModule {
  std::string name;
  ModulePath path;
  double scale = 1;
  Tensor a, b;            // [rank, in], [out, rank]: views of the adapter's flat buffer
  Tensor grad_a, grad_b;  // views of its flat gradient
};

/// The trainable parameters of one adapter in one flat buffer, with their gradient.
class Adapter {
 public:
  /// Allocates zeros. Throws ADAPTER_UNSUPPORTED for a name that is no linear layer of this model.
  Adapter(const AdapterSpec& spec, const ModelShape& shape, bool has_pooler, at::Device device);

  /// Begins as the spec says; what is random depends on the seed and the module's place alone.
  void initialize(uint64_t seed);
  /// Reads adapter_model.safetensors in either key layout. Throws ADAPTER_MISMATCH for a missing or
  /// unexpected key.
  void load(const std::string& path);
  void save(const std::string& path) const;

  std::vector<LoraModule>& modules() { return modules_; }
  double dropout() const { return dropout_; }
  int64_t parameter_count() const { return parameters_.numel(); }
  /// The part that receives a gradient, flat: everything but the pooler, which mean pooling never reaches.
  Tensor trained() const { return parameters_.narrow(0, 0, trained_count_); }
  Tensor gradient() const { return gradient_; }
  /// Counts the changes of the parameters, so that what is packed from them is packed again when it must be.
  uint64_t version() const { return version_; }
  /// To be called by whoever writes to trained().
  void changed() { version_++; }
  /// Keyed as PEFT's file is.
  std::map<std::string, Tensor> named_weights() const;
  std::map<std::string, Tensor> named_gradients() const;
  /// Views of a buffer laid out as trained() is, keyed and shaped as the trained matrices are.
  std::map<std::string, Tensor> named_like_trained(const Tensor& flat) const;

 private:
  double dropout_;
  AdapterInit init_;
  int64_t trained_count_ = 0;
  uint64_t version_ = 1;
  Tensor parameters_, gradient_;
  std::vector<LoraModule> modules_;
};

}  // namespace peft
