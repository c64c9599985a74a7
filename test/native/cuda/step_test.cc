#include <ATen/ATen.h>

#include "cuda/flash_attention.h"
#include "encoder_case.h"
#include "fake_cuda.h"
#include "fake_driver.h"
#include "fake_gpu.h"
#include "flash_cases.h"
#include "model_cases.h"
#include "oracle.h"
#include "scoped.h"
#include "weights/safetensors.h"

// The whole engine on a GPU of our own: libtorch's calls and our kernels run on the CPU, and what a real one
// would have to be waited for is counted.

namespace peft::test {
namespace {

/// Of fake_libcuda.cc; no other test takes it.
constexpr const char* kDevice = "cuda:6";

struct FakeMachine {
  TemporaryFolder cache;
  Variable folder{"PEFT_TRAIN_CACHE", cache.path}, compiler{"PEFT_TRAIN_NVRTC", PEFT_FAKE_LIBNVRTC};
  FakeDriver driver;
  FakeGpu gpu;
  FakeCuda cuda;

  /// A machine with a driver of its own has npm run test:gpu.
  static bool possible() { return FakeDriver::loaded() || !cuda::SharedLibrary("libcuda.so.1").opened(); }
};

const std::vector<int32_t> kLengths = {5, 3, 1, 7, 2, 4};

/// One layer: the shim is slow.
ModelShape one_layer() {
  ModelShape shape = tiny_shape();
  shape.num_layers = 1;
  return shape;
}

AdapterSpec some_spec() {
  return spec_for(one_layer(), {"attention.self.query", "attention.self.value", "output.dense"}, 4, 2.0, 0.1);
}

std::unique_ptr<Session> some_session(const std::string& device) {
  const TemporaryFile weights("model.safetensors"), adapter("adapter.safetensors");
  at::manual_seed(5);
  write_safetensors(weights.path(), random_bert(one_layer()));
  write_safetensors(adapter.path(), random_adapter(some_spec(), one_layer()));
  auto session = std::make_unique<Session>(
      SessionOptions{weights.path(), one_layer(), Pooling::kMean, device, 0, std::nullopt, false});
  for (const char* name : {kDefaultAdapter, "other"})
    session->load_adapter(adapter.path(), some_spec(), name);
  return session;
}

/// As the article trains: query, key and value, without dropout of its own.
std::unique_ptr<Session> qkv_session(const std::string& device, int64_t layers) {
  const TemporaryFile weights("model.safetensors");
  ModelShape shape = tiny_shape();
  shape.num_layers = layers;
  write_safetensors(weights.path(), random_bert(shape));
  auto session = std::make_unique<Session>(
      SessionOptions{weights.path(), shape, Pooling::kMean, device, 0, std::nullopt, false});
  session->create_adapter(spec_for(shape, kQkv, 4, 2.0, 0), 42);
  return session;
}

StepOptions step_options(uint32_t step, LossSpec loss = {}) {
  StepOptions options;
  options.pass = {42, step, 10, std::move(loss)};
  options.adam.learning_rate = 1e-3;
  options.max_grad_norm = 1;
  return options;
}

struct LossCase {
  LossKind kind;
  int64_t texts;
  int64_t labels;  // an example
};

constexpr int64_t kWide = -1;  // as many labels as a vector has entries
constexpr LossCase kLosses[] = {{LossKind::kPair, 2, 1},
                                {LossKind::kContrastive, 2, 1},
                                {LossKind::kOnlineContrastive, 2, 1},
                                {LossKind::kCosineSimilarity, 2, 1},
                                {LossKind::kCosent, 2, 1},
                                {LossKind::kAngle, 2, 1},
                                {LossKind::kTriplet, 3, 0},
                                {LossKind::kMultipleNegativesRanking, 3, 0},
                                {LossKind::kMse, 1, kWide}};

ExampleBatch batch_for(const LossCase& loss) {
  ExampleBatch batch = some_pairs(tiny_shape(), kLengths);
  batch.texts_per_example = loss.texts;
  const int64_t each = loss.labels == kWide ? tiny_shape().hidden_size : loss.labels;
  batch.labels.assign(static_cast<size_t>(batch.examples() * each), 0.0f);
  for (size_t i = 0; i < batch.labels.size(); i += 2) batch.labels[i] = 1.0f;
  return batch;
}

/// The second text of every pair comes as a vector, and two other texts are to stay where they are.
ExampleBatch anchored_batch() {
  const int64_t d = tiny_shape().hidden_size;
  ExampleBatch batch = some_pairs(tiny_shape(), kLengths);
  batch.fixed.first = 1;
  batch.fixed.count = 1;
  batch.labels.assign(kLengths.size(), 1.0f);
  batch.fixed.vectors.assign(kLengths.size() * static_cast<size_t>(d), 0.25f);
  batch.kept.tokens = some_pairs(tiny_shape(), {7, 3}).tokens;
  batch.kept.vectors.assign(static_cast<size_t>(2 * d), 0.1f);
  batch.kept.weight = 0.5;
  return batch;
}

void run_cases(const std::vector<cuda::DeviceCase>& cases) {
  for (const cuda::DeviceCase& each : cases) {
    try {
      each.run();
    } catch (const std::exception& e) {
      throw std::runtime_error(each.name + ": " + e.what());
    }
  }
}

void check_counts(FakeCuda& cuda, int64_t waits, int64_t uploads, const std::string& what) {
  const FakeCuda::Counts counts = cuda.take_counts();
  check(counts.operations > 0, what + ": nothing ran on the device");
  check(counts.waits == waits && counts.uploads == uploads,
        what + ": " + std::to_string(counts.waits) + " waits and " + std::to_string(counts.uploads) +
            " uploads, expected " + std::to_string(waits) + " and " + std::to_string(uploads));
}

}  // namespace

PEFT_TEST(the_engine_runs_whole_on_a_gpu_of_the_tests) {
  if (!FakeMachine::possible()) return;
  const FakeMachine machine;
  const int before = machine.driver.launches();
  run_cases(cuda::model_cases(kDevice, cuda::ModelSize::kLeast));
  check(machine.driver.launches() > before + 100, "our kernels did the work");
  check(flash_calls() > 0, "libtorch's attention in 16 bits did its part");
}

PEFT_TEST(flash_attention_is_called_as_libtorch_takes_it) {
  if (!FakeMachine::possible()) return;
  const FakeMachine machine;
  const auto cases = cuda::flash_cases(at::Device(kDevice), false);
  check(cases.size() == 6, "three shapes in two types");
  run_cases(cases);
  check(!at::globalContext().deterministicAlgorithms(), "the order of sums is the caller's again");
  check(!cuda::has_flash_attention(at::Device(kDevice), 20) && !cuda::has_flash_attention(at::kCPU, 32) &&
            !cuda::has_flash_attention(at::Device("cuda:3"), 32),
        "not for heads of 20, the CPU, or compute capability 7.2");
  const Variable off("PEFT_TRAIN_FLASH_ATTENTION", "off");
  check(!cuda::has_flash_attention(at::Device(kDevice), 32), "switched off");
}

PEFT_TEST(losses_are_not_waited_for) {
  if (!FakeMachine::possible()) return;
  FakeMachine machine;
  const int64_t d = tiny_shape().hidden_size;
  const Tensor pooled = at::randn({6, d}).to(kDevice);
  for (const LossCase& each : kLosses) {
    const LossSpec loss{each.kind, Distance::kEuclidean, 1, 20, {8, 4}, {1, 0.5}};
    const ExampleBatch batch = batch_for(each);
    const Tensor labels = at::tensor(batch.labels, at::kFloat).to(kDevice);
    machine.cuda.take_counts();
    Objective(loss, d)(pooled, each.texts, labels, batch.examples());
    check_counts(machine.cuda, 0, 0, "loss " + std::to_string(static_cast<int>(each.kind)));
  }
}

PEFT_TEST(a_training_step_waits_for_a_gpu_once_and_a_queued_one_never) {
  if (!FakeMachine::possible()) return;
  FakeMachine machine;
  const auto session = some_session(kDevice);
  const auto run = [&](const std::string& name, const ExampleBatch& batch, const LossSpec& loss) {
    machine.cuda.take_counts();
    session->step(batch, step_options(0, loss));
    check_counts(machine.cuda, 1, 1, name);
    for (uint32_t i = 1; i < 3; i++) session->queue_step(batch, step_options(i, loss));
    check_counts(machine.cuda, 0, 2, name + ", queued");
    const auto results = session->step_results();
    check_counts(machine.cuda, 1, 0, name + ", read");
    check(results.size() == 2 && results.back().finite(), name + ": what two steps came to");
  };
  session->step(batch_for(kLosses[0]), step_options(0));  // which makes Adam's moments
  run("texts together", batch_for(kLosses[7]), {kLosses[7].kind, Distance::kCosine, 0, 20, {}, {}});
  run("fixed and kept texts", anchored_batch(), {});
  machine.cuda.take_counts();
  session->encode(batch_for(kLosses[0]).tokens, true, true, 10);
  check_counts(machine.cuda, 1, 3, "encoding, an upload a micro-batch");
}

PEFT_TEST(a_layer_of_a_training_step_is_few_launches) {
  if (!FakeMachine::possible()) return;
  FakeMachine machine;
  const auto launches = [&](int64_t layers) {
    const auto session = qkv_session(kDevice, layers);
    const ExampleBatch batch = batch_for(kLosses[0]);
    session->step(batch, step_options(0));  // which makes buffers and Adam's moments
    machine.cuda.take_counts();
    const int before = machine.driver.launches();
    StepOptions options = step_options(1);
    options.pass.micro_batch_tokens = 1000;
    session->queue_step(batch, options);
    return machine.cuda.take_counts().launches + machine.driver.launches() - before;
  };
  // A layer: 5 to pack the adapter, 10 forward, 18 back. Beside layers: the loss, clipping, Adam.
  const int64_t one = launches(1), layer = launches(2) - one;
  check(layer <= 33 && one - layer <= 78, "launches: " + std::to_string(layer) + " a layer and " +
                                              std::to_string(one - layer) + " beside layers");
}

PEFT_TEST(queued_steps_train_as_others_do_to_the_bit) {
  const auto queued = some_session("cpu"), others = some_session("cpu");
  for (const LossCase& each : kLosses) {
    const LossSpec loss{each.kind, Distance::kCosine, 0.5, 20, {}, {}};
    const ExampleBatch batch = batch_for(each);
    std::vector<StepResult> expected;
    for (uint32_t step = 0; step < 3; step++) {
      expected.push_back(others->step(batch, step_options(step, loss)));
      queued->queue_step(batch, step_options(step, loss));
    }
    const std::vector<StepResult> found = queued->step_results();
    check(found.size() == 3, "three results");
    for (size_t i = 0; i < 3; i++) {
      check(found[i].loss == expected[i].loss && found[i].grad_norm == expected[i].grad_norm, "a result");
    }
    check(queued->adapter_weights() == others->adapter_weights(), "the weights");
  }
  check(queued->step_results().empty(), "nothing is told twice");
}

PEFT_TEST(a_queued_step_that_is_not_finite_leaves_everything_as_it_was) {
  const ExampleBatch batch = batch_for(kLosses[0]);
  const auto queued = some_session("cpu"), others = some_session("cpu");
  StepOptions far = step_options(1);
  far.adam.learning_rate = 1e30;
  for (const StepOptions& options : {step_options(0), far}) {
    others->step(batch, options);
    queued->queue_step(batch, options);
  }
  for (uint32_t i = 2; i < 5; i++) queued->queue_step(batch, step_options(i));
  check_error([&] { queued->step(batch, step_options(5)); }, "USAGE", "stepResults");
  const std::vector<StepResult> results = queued->step_results();
  check(results.size() == 3 && results[1].finite() && !results[2].finite(),
        "told up to the step that failed");
  check(queued->adapter_weights() == others->adapter_weights(), "the weights of before it");
  const TemporaryFile one("one.safetensors"), two("two.safetensors");
  queued->save_optimizer(one.path());
  others->save_optimizer(two.path());
  const SafetensorsFile a(one.path()), b(two.path());
  for (const auto& [key, entry] : a.table())
    check(at::equal(a.read(key), b.read(key)), "the optimiser's " + key);
  check_error([&] { others->step(batch, step_options(2)); }, "NOT_FINITE", "not finite");

  StepOptions scaled = step_options(0);
  scaled.loss_scale = 8;
  check_error([&] { queued->queue_step(batch, scaled); }, "USAGE", "loss scale");
}

PEFT_TEST(queued_steps_of_one_adapter_leave_the_others_alone) {
  const ExampleBatch batch = batch_for(kLosses[0]);
  const auto queued = some_session("cpu"), others = some_session("cpu");
  const auto options = [](const std::string& name, uint32_t step, double learning_rate) {
    StepOptions o = step_options(step);
    o.pass.adapter = name;
    o.adam.learning_rate = learning_rate;
    return o;
  };
  std::vector<StepResult> expected;
  for (uint32_t step = 0; step < 3; step++) {
    queued->queue_step(batch, options("other", step, 1e30));
    queued->queue_step(batch, options(kDefaultAdapter, step, 1e-3));
    expected.push_back(others->step(batch, options(kDefaultAdapter, step, 1e-3)));
  }
  check_error([&] { queued->save_optimizer("nowhere", "other"); }, "USAGE", "stepResults");
  const std::vector<StepResult> far = queued->step_results("other"), found = queued->step_results();
  check(!far.back().finite(), "the steps of the one overflow");
  check(found.size() == 3 && found.back().loss == expected.back().loss, "those of the other do not");
  check(queued->adapter_weights() == others->adapter_weights(), "and train as they would without it");
}

}  // namespace peft::test
