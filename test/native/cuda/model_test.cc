#include "check.h"
#include "model_cases.h"

namespace peft::test {

/// That the cases themselves are sound: npm run test:gpu runs them on a GPU.
PEFT_TEST(the_gpu_model_cases_pass_on_the_cpu) {
  for (const cuda::DeviceCase& each : cuda::model_cases("cpu", cuda::ModelSize::kSmall)) each.run();
}

}  // namespace peft::test
