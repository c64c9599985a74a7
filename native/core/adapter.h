#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "core/own_parameters.h"
#include "core/trained_parameters.h"
#include "weights/model_shape.h"

namespace peft {

class BaseMatrices;
struct InitialFactors;
struct InitKey;

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
enum class AdapterInit { kKaiming, kUniform, kGaussian, kOrthogonal, kPissa, kOlora, kLoftq };

/// Whether such an adapter runs over what it left of the base weights.
inline bool splits_base(AdapterInit init) {
  return init == AdapterInit::kPissa || init == AdapterInit::kOlora;
}

/// Throws USAGE for a name that is none.
AdapterInit parse_adapter_init(const std::string& name);

struct AdapterSpec {
  std::vector<LoraModuleSpec> modules;
  double dropout = 0;
  AdapterInit init = AdapterInit::kKaiming;
  int64_t init_iterations = 0;  // of a randomised kPissa; 0: exact
  bool dora = false;
  bool bias = false;  // on B
  std::vector<OwnParameterSpec> parameters = {};
  /// A of fresh modules by their names, in place of what `init` draws.
  std::map<std::string, std::vector<float>> a = {};
};

/// One wrapped linear layer: y = W x + b + scale * (B(A(x)) + bias). Hu et al., "LoRA", 2021.
///
/// With a magnitude, y = b + magnitude / |W + scale * B A| * (W x + scale * B(A(x))), the norm that of a row
/// and no part of the gradient. Liu et al., "DoRA", 2024.
///
/// With an origin, W stands for W - scale * origin_b origin_a: the adapter began with these factors of W.
/// They do not train.
struct LoraModule {
  std::string name;
  ModulePath path;
  double scale = 1;
  Tensor a, b;             // [rank, in], [out, rank]: views of the adapter's flat buffer
  Tensor grad_a, grad_b;   // views of its flat gradient, once there is one
  Tensor magnitude, bias;  // [out], where there is one, and their gradients
  Tensor grad_magnitude, grad_bias;
  Tensor origin_a, origin_b;  // as a and b
};

/// |W + scale * B A| of every row, [out], for W [out, in].
Tensor row_norms(const LoraModule& module, const Tensor& base);

/// The matrices of one adapter, and its own copies of parameters of the base model. All train but the
/// pooler's, which mean pooling never reaches.
class Adapter : public TrainedParameters {
 public:
  /// Allocates zeros. Throws ADAPTER_UNSUPPORTED for a name that is no linear layer of this model. `products`
  /// is what both operands of products of its own matrices are rounded to.
  Adapter(const AdapterSpec& spec, const ModelShape& shape, bool has_pooler, at::Device device,
          WeightFormat products = WeightFormat::kFloat32);

  /// Begins as the spec says; what is random depends on the seed and the module's place alone. Its own
  /// parameters begin as those of the base model.
  void initialize(uint64_t seed, const BaseMatrices& base);
  /// Reads adapter_model.safetensors in either key layout. An adapter that runs over what it left of the base
  /// has its origin in the second half of its rank, or, as PEFT writes it, nowhere: then it is found again.
  /// Throws ADAPTER_MISMATCH for a missing or unexpected key.
  void load(const std::string& path, const BaseMatrices& base);
  /// As plain LoRA over the base itself.
  void save(const std::string& path) const;

  std::vector<LoraModule>& modules() { return modules_; }
  double dropout() const { return dropout_; }
  const OwnParameters& own() const { return own_; }
  /// Those that do not train counted too, what an adapter has no name for left out.
  int64_t parameter_count() const;
  void require_gradient() override;
  /// Keyed and shaped as save() writes them.
  std::map<std::string, Tensor> named_weights() const;

 private:
  /// Gives the module the origin that it has in the base, and says how it begins.
  InitialFactors begin_in_base(LoraModule& module, const InitKey& key, const BaseMatrices& base) const;

  double dropout_;
  AdapterInit init_;
  int64_t init_iterations_;
  std::map<std::string, std::vector<float>> given_;  // A of fresh modules
  Tensor parameters_;                                // what trains, then the rest
  OwnParameters own_;
  std::vector<LoraModule> modules_;
};

}  // namespace peft
