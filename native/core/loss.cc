#include "core/loss.h"

#include <array>

#include "core/distillation_loss.h"
#include "core/pairwise_loss.h"
#include "core/ranking_loss.h"
#include "core/triplet_loss.h"
#include "error.h"

namespace peft {
namespace {

constexpr std::array<const char*, 9> kLosses = {"pair",
                                                "contrastive",
                                                "online_contrastive",
                                                "cosine_similarity",
                                                "cosent",
                                                "angle",
                                                "triplet",
                                                "multiple_negatives_ranking",
                                                "mse"};
constexpr std::array<const char*, 3> kDistances = {"cosine", "euclidean", "manhattan"};

template <typename Names>
size_t index_of(const Names& names, const std::string& name, const char* what) {
  for (size_t i = 0; i < names.size(); i++) {
    if (name == names[i]) return i;
  }
  throw EngineError("USAGE", std::string("Unknown ") + what + " \"" + name + "\"");
}

}  // namespace

LossKind parse_loss(const std::string& name) {
  return static_cast<LossKind>(index_of(kLosses, name, "loss"));
}

Distance parse_distance(const std::string& name) {
  return static_cast<Distance>(index_of(kDistances, name, "distance"));
}

std::unique_ptr<Loss> make_loss(const LossSpec& spec) {
  // What torch.nn.functional.pairwise_distance adds to every difference; sentence-transformers uses that in
  // its contrastive losses, and not in the triplet loss.
  constexpr double kPairwiseEpsilon = 1e-6;
  const auto pairwise = [](Comparison comparison, ScoreLoss loss, bool separable) {
    return std::make_unique<PairwiseLoss>(comparison, std::move(loss), separable);
  };
  switch (spec.kind) {
    case LossKind::kPair:
      return pairwise({Comparison::Kind::kCosine}, pair_scores(), true);
    case LossKind::kContrastive:
      return pairwise(distance_of(spec.distance, kPairwiseEpsilon), contrastive_scores(spec.margin), true);
    case LossKind::kOnlineContrastive:
      return pairwise(distance_of(spec.distance, kPairwiseEpsilon), online_contrastive_scores(spec.margin),
                      false);
    case LossKind::kCosineSimilarity:
      return pairwise({Comparison::Kind::kCosine}, squared_error_scores(), true);
    case LossKind::kCosent:
      return pairwise({Comparison::Kind::kCosine}, cosent_scores(spec.scale), false);
    case LossKind::kAngle:
      return pairwise({Comparison::Kind::kAngle}, cosent_scores(spec.scale), false);
    case LossKind::kTriplet:
      return std::make_unique<TripletLoss>(distance_of(spec.distance, 0), spec.margin);
    case LossKind::kMultipleNegativesRanking:
      return std::make_unique<RankingLoss>(spec.scale);
    case LossKind::kMse:
      return std::make_unique<DistillationLoss>();
  }
  throw EngineError("INTERNAL", "A loss without an implementation");
}

}  // namespace peft
