#include <ATen/Parallel.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#include "check.h"
#include "error.h"

namespace peft::test {
namespace {

struct Case {
  const char* name;
  std::function<void()> run;
};

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

}  // namespace

Registration::Registration(const char* name, std::function<void()> run) {
  cases().push_back({name, std::move(run)});
}

void check_close(const at::Tensor& a, const at::Tensor& b, double absolute, double relative,
                 const std::string& what) {
  check(a.sizes() == b.sizes(), what + ": shapes differ");
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double error = a.numel() == 0 ? 0 : (x - y).abs().max().item<double>();
  const double size = a.numel() == 0 ? 0 : y.abs().max().item<double>();
  check(error <= absolute + relative * size,
        what + ": off by " + std::to_string(error) + " where the largest value is " + std::to_string(size));
}

void check_error(const std::function<void()>& run, const std::string& code, const std::string& part) {
  try {
    run();
  } catch (const EngineError& e) {
    check(e.code() == code && std::string(e.what()).find(part) != std::string::npos,
          "expected " + code + " with \"" + part + "\", got " + e.code() + ": " + e.what());
    return;
  }
  throw std::runtime_error("expected the error " + code + " with \"" + part + "\", nothing was thrown");
}

}  // namespace peft::test

/// With an argument, only the tests whose name holds it.
int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const auto& test : peft::test::cases()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    try {
      test.run();
      passed++;
      std::printf("ok   %s\n", test.name);
    } catch (const std::exception& e) {
      failed++;
      std::printf("FAIL %s: %s\n", test.name, e.what());
    }
  }
  std::printf("engine: %d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
