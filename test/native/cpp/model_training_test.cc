#include <ATen/ATen.h>

#include <cmath>

#include "adam_oracle.h"
#include "check.h"
#include "oracle.h"
#include "weights/safetensors.h"

// A model that trains itself, every parameter but the pooler's.

namespace peft::test {
namespace {

const std::vector<int32_t> kLengths = {5, 17, 1, 80, 33, 2, 24, 24, 49, 7};
constexpr PassOptions kPass = {42, 3, 1000};
using Floats = std::map<std::string, std::vector<float>>;

at::Tensor as_tensor(const std::vector<float>& v) { return at::tensor(v); }

struct Setup {
  ModelShape shape = tiny_shape();
  Weights bert = random_bert(shape);
  SessionOptions options{"", shape, Pooling::kMean, "cpu", 0, {}, false, true};
  ExampleBatch batch = some_pairs(shape, kLengths);

  std::unique_ptr<Session> session() const {
    const TemporaryFile model("model.safetensors");
    write_safetensors(model.path(), bert);
    SessionOptions o = options;
    o.weights_path = model.path();
    o.shape = shape;
    return std::make_unique<Session>(o);
  }

  OracleResult oracle(const PassOptions& pass) const {
    return run_oracle(shape, bert, {}, {}, options.pooling, batch, true, pass, true);
  }
};

Setup with_dropout() {
  Setup setup;
  setup.shape.hidden_dropout = 0.1;
  setup.shape.attention_dropout = 0.2;
  return setup;
}

bool is_pooler(const std::string& key) { return key.find("pooler.") != std::string::npos; }

/// Every gradient to 1e-4 of its largest entry: fp32 sums in another order. The key's bias shifts all scores
/// of a query alike, which softmax does not see: its gradient is rounding noise on both sides.
void check_gradients(const Setup& setup, const PassOptions& pass, const std::string& what) {
  const OracleResult expected = setup.oracle(pass);
  Floats gradients;
  const double loss = setup.session()->gradients(setup.batch, pass, gradients);
  check(std::abs(loss - expected.loss) < 1e-6 * std::max(1.0, pass.loss.scale), what + ": loss");
  check(gradients.size() == expected.gradients.size(), what + ": number of gradients");
  check(gradients.size() == setup.bert.size() - 2, what + ": all but the pooler's");
  for (const auto& [key, gradient] : expected.gradients) {
    const double noise = key.ends_with("key.bias") ? 1e-6 : 1e-7;
    check_close(as_tensor(gradients.at(key)), gradient.flatten(), noise * std::max(1.0, pass.loss.scale),
                1e-4, what + ": " + key);
  }
}

void train(Session& session, const Setup& setup, uint32_t from, uint32_t to) {
  for (uint32_t step = from; step < to; step++) session.step(setup.batch, {{7, step, 90}, {}, 1.0});
}

}  // namespace

PEFT_TEST(gradients_of_every_parameter_match_autograd) {
  for (const Pooling pooling : {Pooling::kMean, Pooling::kCls}) {
    for (Setup setup : {Setup(), with_dropout()}) {
      setup.options.pooling = pooling;
      for (const bool checkpointing : {false, true}) {
        setup.options.activation_checkpointing = checkpointing;
        for (const int64_t tokens : {1, 100, 1000})
          check_gradients(setup, {9, 8, tokens}, "micro-batches of " + std::to_string(tokens));
      }
    }
  }
}

PEFT_TEST(gradients_of_every_parameter_match_autograd_over_a_whole_batch) {
  Setup setup = with_dropout();
  setup.batch.labels.clear();
  PassOptions pass{9, 8, 0};
  pass.loss.kind = LossKind::kMultipleNegativesRanking;
  pass.loss.scale = 20;
  for (const int64_t tokens : {1, 100, 1000}) {
    pass.micro_batch_tokens = tokens;
    check_gradients(setup, pass, "micro-batches of " + std::to_string(tokens));
  }
}

PEFT_TEST(gradients_of_every_parameter_match_finite_differences) {
  const Setup setup = with_dropout();
  Floats gradients, unused;
  setup.session()->gradients(setup.batch, kPass, gradients);
  at::manual_seed(3);
  for (int trial = 0; trial < 4; trial++) {
    Setup plus = setup, minus = setup;
    double expected = 0;
    const double h = 3e-4;
    for (const auto& [key, gradient] : gradients) {
      const at::Tensor value = setup.bert.at(key);
      const at::Tensor direction = at::randn_like(value) * value.abs().mean();
      plus.bert[key] = value + h * direction;
      minus.bert[key] = value - h * direction;
      expected += (as_tensor(gradient) * direction.flatten()).sum(at::kDouble).item<double>();
    }
    const double slope = (plus.session()->gradients(setup.batch, kPass, unused) -
                          minus.session()->gradients(setup.batch, kPass, unused)) /
                         (2 * h);
    // The loss in fp32 carries about 1e-7, which a step of 3e-4 turns into 3e-4; the curvature adds a little.
    check(std::abs(slope - expected) < 3e-3 + 0.01 * std::abs(expected),
          "slope " + std::to_string(slope) + " against " + std::to_string(expected));
  }
}

PEFT_TEST(a_model_that_trains_embeds_as_a_frozen_one) {
  const Setup setup;
  Setup frozen = setup;
  frozen.options.trainable = false;
  const auto session = setup.session(), expected = frozen.session();
  for (const int64_t tokens : {1, 60, 1000})
    check(session->encode(setup.batch.tokens, true, true, tokens) ==
              expected->encode(setup.batch.tokens, false, true, tokens),
          "embeddings");
  check(session->info().base_parameters == expected->info().base_parameters, "parameters");
  const int64_t d = setup.shape.hidden_size;
  check(session->info().trainable_parameters == session->info().base_parameters - d * d - d,
        "all but the pooler's");
}

PEFT_TEST(adam_follows_its_formula_for_every_parameter) {
  const Setup setup;
  const auto session = setup.session();
  Weights trained = setup.bert;
  std::erase_if(trained, [](const auto& each) { return is_pooler(each.first); });
  const Weights p = follow_adam(*session, setup.batch, trained, [](const std::string& key) {
    return !key.ends_with(".bias") && key.find("LayerNorm") == std::string::npos;
  });
  const Floats weights = session->model_weights();
  check(weights.size() == p.size(), "number of parameters");
  for (const auto& [key, value] : weights) {
    // What rounding alone has made, as the gradient of the key's bias, takes another step.
    if (!key.ends_with("key.bias")) check_close(as_tensor(value), p.at(key), 2e-6, 1e-6, key);
  }
}

PEFT_TEST(a_model_that_trains_uses_its_new_weights) {
  Setup setup = with_dropout();
  for (const WeightFormat products : {WeightFormat::kFloat32, WeightFormat::kBfloat16}) {
    setup.options.storage = WeightStorage{};
    setup.options.storage->products = products;
    const auto session = setup.session();
    train(*session, setup, 0, 3);
    const TemporaryFile saved("saved.safetensors");
    session->save_model(saved.path());
    SessionOptions o = setup.options;
    o.weights_path = saved.path();
    o.trainable = false;
    Session fresh(o);
    check(session->encode(setup.batch.tokens, true, true, 100) ==
              fresh.encode(setup.batch.tokens, false, true, 100),
          "embeddings of the saved model");
    Floats trained, reopened;
    session->gradients(setup.batch, kPass, trained);
    o.trainable = true;
    o.shape = setup.shape;
    Session(o).gradients(setup.batch, kPass, reopened);
    check(trained == reopened, "gradients of the saved model");
  }
}

PEFT_TEST(a_model_that_trains_goes_on_to_the_bit) {
  const Setup setup = with_dropout();
  const TemporaryFile weights("saved.safetensors"), moments("optimizer.safetensors");
  const auto whole = setup.session();
  train(*whole, setup, 0, 3);
  whole->save_model(weights.path());
  whole->save_optimizer(moments.path());
  train(*whole, setup, 3, 6);
  const auto resumed = setup.session();
  resumed->encode(setup.batch.tokens, true, true, 100);
  resumed->load_model(weights.path());
  resumed->load_optimizer(moments.path());
  train(*resumed, setup, 3, 6);
  check(resumed->model_weights() == whole->model_weights(), "three steps after the file");
  const auto without = setup.session();
  without->load_model(weights.path());
  train(*without, setup, 3, 6);
  check(without->model_weights() != whole->model_weights(), "the moments matter");
}

PEFT_TEST(a_saved_model_has_every_tensor_of_its_file) {
  Setup setup;
  for (const std::string& prefix : {std::string(), std::string("bert.")}) {
    Setup other;
    other.bert.clear();
    for (const auto& [key, value] : setup.bert) {
      // As checkpoints from TensorFlow have it.
      std::string name = prefix + key;
      const auto norm = name.find("LayerNorm.");
      if (norm != std::string::npos && !prefix.empty())
        name = name.substr(0, norm + 10) + (name.ends_with("weight") ? "gamma" : "beta");
      other.bert[name] = is_pooler(key) ? value.to(at::kBFloat16) : value;
    }
    other.bert[prefix + "embeddings.position_ids"] = at::arange(80).unsqueeze(0);
    other.bert["cls.predictions.bias"] = at::randn({101});
    const auto session = other.session();
    const TemporaryFile saved("saved.safetensors");
    train(*session, other, 0, 1);
    session->save_model(saved.path());
    const SafetensorsFile file(saved.path());
    check(file.table().size() == other.bert.size(), "number of tensors");
    for (const auto& [key, value] : other.bert) {
      const at::Tensor found = file.read(key);
      check(found.scalar_type() == (value.is_floating_point() ? at::kFloat : value.scalar_type()), key);
      const bool untouched = is_pooler(key) || key.find("position_ids") != std::string::npos ||
                             key.find("cls.") != std::string::npos;
      check(found.equal(value.to(found.scalar_type())) == untouched, key);
    }
  }
}

PEFT_TEST(what_does_not_train_is_refused) {
  Setup setup;
  const auto session = setup.session();
  check_error([&] { session->create_adapter(spec_for(setup.shape, {"output.dense"}, 2, 1, 0), 1); }, "USAGE",
              "takes no adapter");
  Setup quantised = setup;
  quantised.options.storage = WeightStorage{WeightFormat::kNf4};
  check_error([&] { quantised.session(); }, "USAGE", "held as nf4");
  Setup frozen = setup;
  frozen.options.trainable = false;
  check_error([&] { frozen.session()->save_model("unused"); }, "USAGE",
              "saveModel needs a model that was opened as trainable");
  Setup smaller = setup;
  smaller.shape.num_layers = 2;
  const TemporaryFile saved("saved.safetensors");
  smaller.session()->save_model(saved.path());
  setup.bert["embeddings.position_embeddings.weight"] = at::randn({80, 48});
  const Floats before = session->model_weights();
  Setup other;
  other.shape.intermediate_size = 64;
  other.bert = random_bert(other.shape);
  other.session()->save_model(saved.path());
  check_error([&] { session->load_model(saved.path()); }, "MODEL_CORRUPT", "has shape");
  check(session->model_weights() == before, "nothing has changed");
}

}  // namespace peft::test
