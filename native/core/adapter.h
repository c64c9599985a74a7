#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "core/trained_parameters.h"
#include "weights/model_shape.h"

namespace peft {

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

/// The matrices of one adapter. All train but the pooler's, which mean pooling never reaches.
class Adapter : public TrainedParameters {
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
  /// Those that do not train counted too.
  int64_t parameter_count() const { return parameters_.numel(); }
  /// Keyed as PEFT's file is.
  std::map<std::string, Tensor> named_weights() const;

 private:
  double dropout_;
  AdapterInit init_;
  Tensor parameters_;  // what trains, then the rest
  std::vector<LoraModule> modules_;
};

}  // namespace peft
