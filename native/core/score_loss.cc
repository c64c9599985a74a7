#include "core/score_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace peft {
namespace {

using Scores = std::vector<double>;
using Labels = c10::ArrayRef<float>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  const double high = std::max(a, b), low = std::min(a, b);
  return low == -kInfinity ? high : high + std::log1p(std::exp(low - high));
}

double mean_of(const Scores& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

ScoreLoss pair_scores() {
  return [](const Scores& cosines, Labels labels, double batch, Scores& slopes) {
    double sum = 0;
    for (size_t i = 0; i < cosines.size(); i++) {
      const double y = labels[i], c = cosines[i];
      const double residual = y * (1 - c) + (1 - y) * std::max(c, 0.0);
      sum += residual * residual;
      // At 0 the gradient passes, as through torch's clamp.
      slopes[i] = 2 / batch * residual * ((c >= 0 ? 1 - y : 0) - y);
    }
    return sum / batch;
  };
}

ScoreLoss contrastive_scores(double margin) {
  return [margin](const Scores& distances, Labels labels, double batch, Scores& slopes) {
    double sum = 0;
    for (size_t i = 0; i < distances.size(); i++) {
      const double y = labels[i], d = distances[i], short_of = std::max(margin - d, 0.0);
      sum += 0.5 * (y * d * d + (1 - y) * short_of * short_of);
      slopes[i] = (y * d - (1 - y) * short_of) / batch;
    }
    return sum / batch;
  };
}

ScoreLoss online_contrastive_scores(double margin) {
  return [margin](const Scores& distances, Labels labels, double, Scores& slopes) {
    Scores positives, negatives;
    for (size_t i = 0; i < distances.size(); i++)
      (labels[i] == 1 ? positives : negatives).push_back(distances[i]);
    const double farther_than =
        negatives.empty() ? mean_of(positives) : *std::min_element(negatives.begin(), negatives.end());
    const double nearer_than =
        positives.empty() ? mean_of(negatives) : *std::max_element(positives.begin(), positives.end());
    double sum = 0;
    for (size_t i = 0; i < distances.size(); i++) {
      const double d = distances[i];
      if (labels[i] == 1 && d > farther_than) {
        sum += d * d;
        slopes[i] = 2 * d;
      } else if (labels[i] != 1 && d < nearer_than) {
        const double short_of = std::max(margin - d, 0.0);
        sum += short_of * short_of;
        slopes[i] = -2 * short_of;
      }
    }
    return sum;
  };
}

ScoreLoss squared_error_scores() {
  return [](const Scores& cosines, Labels labels, double batch, Scores& slopes) {
    double sum = 0;
    for (size_t i = 0; i < cosines.size(); i++) {
      const double error = cosines[i] - labels[i];
      sum += error * error;
      slopes[i] = 2 / batch * error;
    }
    return sum / batch;
  };
}

ScoreLoss cosent_scores(double scale) {
  return [scale](const Scores& scores, Labels labels, double, Scores& slopes) {
    const size_t n = scores.size();
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return labels[i] < labels[j]; });
    const auto score = [&](size_t rank) { return scale * scores[order[rank]]; };
    const auto same_label = [&](size_t i, size_t j) { return labels[order[i]] == labels[order[j]]; };

    // By rank in the order of labels: log of the sum of exp(-score) over all with a higher label, and of
    // exp(score) over all with a lower one. All pairs in n log n steps.
    Scores above(n), below(n);
    double running = -kInfinity;
    for (size_t end = n; end > 0;) {
      size_t begin = end - 1;
      while (begin > 0 && same_label(begin - 1, end - 1)) begin--;
      for (size_t i = begin; i < end; i++) above[i] = running;
      for (size_t i = begin; i < end; i++) running = log_add(running, -score(i));
      end = begin;
    }
    running = -kInfinity;
    for (size_t begin = 0; begin < n;) {
      size_t end = begin + 1;
      while (end < n && same_label(begin, end)) end++;
      for (size_t i = begin; i < end; i++) below[i] = running;
      for (size_t i = begin; i < end; i++) running = log_add(running, score(i));
      begin = end;
    }
    double loss = 0;
    for (size_t i = 0; i < n; i++) loss = log_add(loss, score(i) + above[i]);
    for (size_t i = 0; i < n; i++) {
      slopes[order[i]] =
          scale * (std::exp(score(i) + above[i] - loss) - std::exp(below[i] - score(i) - loss));
    }
    return loss;
  };
}

}  // namespace peft
