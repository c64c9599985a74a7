#include "core/adapter_init.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "error.h"
#include "kernels/philox.h"

namespace peft {
namespace {

constexpr uint32_t kInitSite = 0xFFFF0000;  // apart from every dropout site
constexpr const char* kNames[] = {"kaiming", "uniform", "gaussian", "orthogonal", "pissa", "olora", "loftq"};

/// Which matrix of a module is drawn.
enum class Draw : uint32_t { kA, kB, kMixing, kSubspace };

template <typename Fill>
Tensor drawn(int64_t rows, int64_t columns, const InitKey& at, Draw draw, const Fill& fill) {
  Tensor out = at::empty({rows, columns}, at::TensorOptions().dtype(at::kFloat));
  float* values = out.mutable_data_ptr<float>();
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(at.seed), static_cast<uint32_t>(at.seed >> 32)};
  for (int64_t j = 0; j < out.numel(); j += 4) {
    const auto words =
        philox({static_cast<uint32_t>(j / 4), at.module, static_cast<uint32_t>(draw), kInitSite}, key);
    const std::array<float, 4> four = fill(words);
    std::copy_n(four.begin(), std::min<int64_t>(4, out.numel() - j), values + j);
  }
  return out;
}

/// From U(-bound, bound). 24 random bits give a float in [0, 1) exactly.
Tensor uniform(int64_t rows, int64_t columns, float bound, const InitKey& at, Draw draw) {
  return drawn(rows, columns, at, draw, [bound](const std::array<uint32_t, 4>& words) {
    std::array<float, 4> out;
    for (int k = 0; k < 4; k++) out[k] = (static_cast<float>(words[k] >> 8) * 0x1p-23f - 1.0f) * bound;
    return out;
  });
}

/// From N(0, deviation^2), by Box and Muller.
Tensor normal(int64_t rows, int64_t columns, double deviation, const InitKey& at, Draw draw) {
  return drawn(rows, columns, at, draw, [deviation](const std::array<uint32_t, 4>& words) {
    std::array<float, 4> out;
    for (int k = 0; k < 4; k += 2) {
      // In (0, 1], so that the logarithm is finite.
      const double u = (static_cast<double>(words[k]) + 1) * 0x1p-32;
      const double angle = 2 * std::numbers::pi * static_cast<double>(words[k + 1]) * 0x1p-32;
      const double radius = deviation * std::sqrt(-2 * std::log(u));
      out[k] = static_cast<float>(radius * std::cos(angle));
      out[k + 1] = static_cast<float>(radius * std::sin(angle));
    }
    return out;
  });
}

/// A and B from the odd and the even rows of one orthogonal matrix, so that B A = 0 though neither is zero.
InitialFactors orthogonal(int64_t rank, int64_t in, int64_t out, const InitKey& key) {
  if (rank % 2 != 0) {
    throw EngineError("USAGE", "Orthogonal initialisation needs an even rank, got " + std::to_string(rank));
  }
  const Tensor q = std::get<0>(at::linalg_qr(normal(rank, rank, 1, key, Draw::kMixing)));
  const Tensor a = normal(in, rank / 2, 0.1, key, Draw::kA);
  const Tensor b = normal(rank / 2, out, 0.1, key, Draw::kB);
  return {a.mm(q.slice(0, 0, rank, 2)).t().contiguous(), b.t().mm(q.slice(0, 1, rank, 2)).contiguous()};
}

/// Orthonormal columns [out, rank] that span nearly what the first singular vectors of w do.
Tensor leading_subspace(const Tensor& w, int64_t rank, int64_t iterations, const InitKey& key) {
  const auto orthonormal = [](const Tensor& m) { return std::get<0>(at::linalg_qr(m)); };
  Tensor q = orthonormal(w.mm(normal(w.size(1), rank, 1, key, Draw::kSubspace)));
  for (int64_t i = 0; i < iterations; i++) q = orthonormal(w.mm(orthonormal(w.t().mm(q))));
  return q;
}

/// Both factors get the square root of the singular values, less the scale that the adapter will have.
InitialFactors by_singular_values(const Tensor& u, const Tensor& s, const Tensor& v, int64_t rank,
                                  double scale) {
  const Tensor root = s.narrow(0, 0, rank).div(scale).sqrt();
  return {v.narrow(0, 0, rank).mul(root.unsqueeze(1)).contiguous(),
          u.narrow(1, 0, rank).mul(root).contiguous()};
}

}  // namespace

InitialFactors factors_of(const Tensor& weight, AdapterInit init, int64_t iterations, int64_t rank,
                          double scale, const InitKey& key) {
  if (rank > std::min(weight.size(0), weight.size(1))) {
    throw EngineError("USAGE", "Rank " + std::to_string(rank) + " is beyond that of a matrix of " +
                                   std::to_string(weight.size(0)) + " by " + std::to_string(weight.size(1)));
  }
  if (init == AdapterInit::kOlora) {
    const auto [q, r] = at::linalg_qr(weight);
    return {r.narrow(0, 0, rank).contiguous(), q.narrow(1, 0, rank).contiguous()};
  }
  if (iterations == 0) {
    const auto [u, s, v] = at::linalg_svd(weight, false);
    return by_singular_values(u, s, v, rank, scale);
  }
  const Tensor q = leading_subspace(weight, rank, iterations, key);
  const auto [u, s, v] = at::linalg_svd(q.t().mm(weight), false);
  return by_singular_values(q.mm(u), s, v, rank, scale);
}

AdapterInit parse_adapter_init(const std::string& name) {
  for (size_t i = 0; i < std::size(kNames); i++) {
    if (name == kNames[i]) return static_cast<AdapterInit>(i);
  }
  throw EngineError("USAGE", "Unknown initialisation \"" + name + "\"");
}

InitialFactors initial_factors(AdapterInit init, int64_t rank, int64_t in, int64_t out, const InitKey& key) {
  const auto bound = [](int64_t size) { return 1.0f / std::sqrt(static_cast<float>(size)); };
  const Tensor zero = at::zeros({out, rank}, at::TensorOptions().dtype(at::kFloat));
  switch (init) {
    case AdapterInit::kKaiming:
      // kaiming_uniform with a = sqrt(5)
      return {uniform(rank, in, bound(in), key, Draw::kA), zero};
    case AdapterInit::kUniform:
      return {uniform(rank, in, bound(in), key, Draw::kA), uniform(out, rank, bound(rank), key, Draw::kB)};
    case AdapterInit::kGaussian:
      return {normal(rank, in, 1.0 / static_cast<double>(rank), key, Draw::kA), zero};
    case AdapterInit::kOrthogonal:
      return orthogonal(rank, in, out, key);
    default:
      break;  // factors_of
  }
  throw EngineError("INTERNAL", "An initialisation that does not exist");
}

}  // namespace peft
