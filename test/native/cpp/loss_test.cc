#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <set>

#include "check.h"
#include "core/objective.h"
#include "weights/safetensors.h"

namespace peft::test {
namespace {

const std::string kGolden = PEFT_FIXTURES "/losses/golden.safetensors";

struct GoldenCase {
  LossSpec spec;
  int64_t texts_per_example;
};

LossSpec spec_of(LossKind kind, double margin = 0, Distance distance = Distance::kCosine, double scale = 20) {
  return {kind, distance, margin, scale, {}, {}};
}

LossSpec at_widths(LossSpec spec) {
  spec.dims = {3, 10, 7};
  spec.weights = {0.5, 1, 2};
  return spec;
}

/// The cases of test/fixtures/losses/make_golden.py, by their names there.
std::map<std::string, GoldenCase> golden_cases() {
  using K = LossKind;
  using D = Distance;
  return {
      {"pair", {spec_of(K::kPair), 2}},
      {"contrastive", {spec_of(K::kContrastive, 0.5), 2}},
      {"contrastive_euclidean", {spec_of(K::kContrastive, 1.2, D::kEuclidean), 2}},
      {"contrastive_manhattan", {spec_of(K::kContrastive, 3, D::kManhattan), 2}},
      {"online", {spec_of(K::kOnlineContrastive, 0.5), 2}},
      {"online_euclidean", {spec_of(K::kOnlineContrastive, 1.2, D::kEuclidean), 2}},
      {"online_positives", {spec_of(K::kOnlineContrastive, 0.5), 2}},
      {"online_negatives", {spec_of(K::kOnlineContrastive, 0.5), 2}},
      {"cosine_similarity", {spec_of(K::kCosineSimilarity), 2}},
      {"cosent", {spec_of(K::kCosent), 2}},
      {"cosent_labels", {spec_of(K::kCosent, 0, D::kCosine, 5), 2}},
      {"cosent_equal", {spec_of(K::kCosent), 2}},
      {"angle", {spec_of(K::kAngle), 2}},
      {"triplet", {spec_of(K::kTriplet, 5, D::kEuclidean), 3}},
      {"triplet_cosine", {spec_of(K::kTriplet, 0.3), 3}},
      {"triplet_manhattan", {spec_of(K::kTriplet, 1, D::kManhattan), 3}},
      {"ranking", {spec_of(K::kMultipleNegativesRanking), 2}},
      {"ranking_scale", {spec_of(K::kMultipleNegativesRanking, 0, D::kCosine, 3), 2}},
      {"ranking_negatives", {spec_of(K::kMultipleNegativesRanking), 4}},
      {"mse", {spec_of(K::kMse), 1}},
      {"matryoshka_mse", {at_widths(spec_of(K::kMse)), 1}},
      {"matryoshka_ranking", {at_widths(spec_of(K::kMultipleNegativesRanking)), 3}},
      {"matryoshka_cosine", {at_widths(spec_of(K::kCosineSimilarity)), 2}},
      {"matryoshka_angle", {at_widths(spec_of(K::kAngle)), 2}},
  };
}

at::Tensor labels_of(const SafetensorsFile& file, const std::string& name) {
  return file.has(name + ".labels") ? file.read_float(name + ".labels") : at::empty({0});
}

}  // namespace

PEFT_TEST(losses_and_their_gradients_equal_sentence_transformers) {
  const SafetensorsFile file(kGolden);
  std::set<std::string> in_file;
  for (const auto& [key, entry] : file.table()) in_file.insert(key.substr(0, key.rfind('.')));
  check(in_file.size() == golden_cases().size(), "every case of the file is tested");
  for (const auto& [name, golden] : golden_cases()) {
    const at::Tensor pooled = file.read_float(name + ".pooled"), labels = labels_of(file, name);
    const int64_t examples = pooled.size(0) / golden.texts_per_example;
    const Objective objective(golden.spec, pooled.size(1));
    objective.check(golden.texts_per_example, examples, labels.numel());
    const LossValue found = objective(pooled, golden.texts_per_example, labels.flatten(), examples);
    // Sums of fp32 products, at scale 20, against float64.
    check_close(found.value.view({1}), file.read(name + ".loss"), 1e-7, 3e-6, name + ": loss");
    check_close(found.gradient, file.read(name + ".gradient"), 1e-7, 1e-5, name + ": gradient");
  }
}

PEFT_TEST(separable_losses_are_the_sum_of_their_parts) {
  const SafetensorsFile file(kGolden);
  int separable = 0;
  for (const auto& [name, golden] : golden_cases()) {
    const int64_t each = golden.texts_per_example;
    const at::Tensor pooled = file.read_float(name + ".pooled"), labels = labels_of(file, name);
    const Objective objective(golden.spec, pooled.size(1));
    if (!objective.separable()) continue;
    separable++;
    const int64_t examples = pooled.size(0) / each;
    double value = 0;
    std::vector<at::Tensor> gradients;
    for (int64_t i = 0; i < examples; i += 5) {
      const int64_t count = std::min<int64_t>(5, examples - i);
      const int64_t each_label = labels.numel() / examples;
      const at::Tensor some = labels.flatten().narrow(0, i * each_label, count * each_label);
      const LossValue part = objective(pooled.narrow(0, i * each, count * each), each, some, examples);
      value += part.value.item<double>();
      gradients.push_back(part.gradient);
    }
    check_close(at::scalar_tensor(value, at::kDouble).view({1}), file.read(name + ".loss"), 1e-7, 3e-6, name);
    check_close(at::cat(gradients), file.read(name + ".gradient"), 1e-7, 1e-5, name + ": gradient");
  }
  check(separable == 11, "separable cases: " + std::to_string(separable));
}

PEFT_TEST(ranking_in_blocks_equals_autograd) {
  // 3,000 anchors by 6,000 candidates are five blocks.
  at::manual_seed(4);
  const int64_t n = 3000, each = 3, d = 16;
  const at::Tensor pooled = at::randn({n * each, d}).requires_grad_();
  const at::Tensor unit = (pooled / pooled.norm(2, 1, true)).view({n, each, d});
  const at::Tensor candidates = at::cat({unit.select(1, 1), unit.select(1, 2)});
  const at::Tensor scores = 20 * unit.select(1, 0).mm(candidates.t());
  const at::Tensor loss = (scores.logsumexp(1) - scores.diagonal()).mean();
  loss.backward();
  const Objective objective(spec_of(LossKind::kMultipleNegativesRanking), d);
  const LossValue found = objective(pooled.detach(), each, {}, n);
  check(std::abs(found.value.item<double>() - loss.item<double>()) < 1e-5, "loss");
  check_close(found.gradient, pooled.grad(), 1e-9, 1e-4, "gradient");
}

PEFT_TEST(equal_vectors_give_finite_gradients) {
  const at::Tensor pooled = at::ones({12, 5});
  const at::Tensor labels = at::tensor({1.f, 0.f, 1.f, 0.f, 1.f, 0.f}), targets = at::full({60}, 0.5f);
  for (const auto& [name, golden] : golden_cases()) {
    if (!golden.spec.dims.empty() || 12 % golden.texts_per_example != 0) continue;
    const int64_t examples = 12 / golden.texts_per_example;
    const Objective objective(golden.spec, 5);
    const at::Tensor given = golden.texts_per_example == 1 ? targets : labels;
    const LossValue found = objective(pooled, golden.texts_per_example, given, examples);
    check(std::isfinite(found.value.item<double>()), name + ": loss");
    check(found.gradient.isfinite().all().item<bool>(), name + ": gradient");
  }
}

PEFT_TEST(losses_refuse_what_they_cannot_take) {
  const auto objective = [](LossKind kind) { return Objective(spec_of(kind, 1), 4); };
  check_error([&] { objective(LossKind::kPair).check(3, 2, 2); }, "USAGE", "3 texts");
  check_error([&] { objective(LossKind::kCosent).check(2, 2, 0); }, "USAGE",
              "Expected 2 labels for 2 examples, got 0");
  check_error([&] { objective(LossKind::kTriplet).check(2, 2, 0); }, "USAGE", "2 texts");
  objective(LossKind::kMultipleNegativesRanking).check(5, 2, 0);
  check_error([] { parse_loss("hinge"); }, "USAGE", "hinge");
  check_error([] { parse_distance("dot"); }, "USAGE", "dot");
  LossSpec wide = spec_of(LossKind::kPair);
  wide.dims = {4, 5};
  wide.weights = {1, 1};
  check_error([&] { Objective(wide, 4); }, "USAGE", "cut to 5");
  at::Tensor pooled = at::ones({6, 4});
  pooled[3][2] = std::numeric_limits<float>::infinity();
  const at::Tensor labels = at::tensor({1.f, 0.f, 1.f});
  const LossValue found = objective(LossKind::kPair)(pooled, 2, labels, 3);
  check(!std::isfinite(found.value.item<double>()), "what is not finite shows in the loss");
  check_error([&] { report_not_finite(pooled, 2); }, "NOT_FINITE", "example 1 is");
  check_error([] { report_not_finite(at::ones({2, 4}), 2); }, "NOT_FINITE", "The loss is");
}

}  // namespace peft::test
