#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

namespace peft {

using at::Tensor;

/// Parameters that train together: one flat fp32 buffer with its gradient, whose parts have names. The
/// optimiser, clipping and checkpoints see the buffers, and files the names.
class TrainedParameters {
 public:
  virtual ~TrainedParameters() = default;

  /// Flat.
  const Tensor& trained() const { return trained_; }
  /// Undefined before require_gradient: an adapter that is only encoded with does without.
  const Tensor& gradient() const { return gradient_; }
  virtual void require_gradient();
  /// So many of the first shrink under weight decay.
  int64_t decayed() const { return decayed_; }
  int64_t trained_count() const { return trained_.numel(); }
  /// Counts the changes of the parameters, so that what is packed from them is packed again when it must be.
  const uint64_t& version() const { return version_; }
  /// To be called by whoever writes to trained().
  void changed() { version_++; }
  std::map<std::string, Tensor> named_gradients() const { return named_like_trained(gradient_); }
  /// Views of a buffer laid out as trained() is, keyed and shaped as in the file of these parameters.
  std::map<std::string, Tensor> named_like_trained(const Tensor& flat) const;

 protected:
  /// `trained` is flat and in fp32.
  void hold(const Tensor& trained, int64_t decayed);
  /// Gives a view of trained() its name.
  void name(const std::string& key, const Tensor& view) { parts_[key] = view; }
  /// The gradient of a view of trained().
  Tensor gradient_of(const Tensor& view) const { return like(gradient_, view); }

 private:
  Tensor like(const Tensor& flat, const Tensor& view) const;

  Tensor trained_, gradient_;
  int64_t decayed_ = 0;
  uint64_t version_ = 1;
  std::map<std::string, Tensor> parts_;
};

}  // namespace peft
