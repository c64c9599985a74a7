#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <stdexcept>
#include <string>

// A test is a named function that throws. `engine_tests` runs them all and prints a line each.

namespace peft::test {

struct Registration {
  Registration(const char* name, std::function<void()> run);
};

#define PEFT_TEST(name)                                                 \
  static void name();                                                   \
  static const ::peft::test::Registration register_##name(#name, name); \
  static void name()

inline void check(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}

/// |a - b| <= absolute + relative * max|b| everywhere.
void check_close(const at::Tensor& a, const at::Tensor& b, double absolute, double relative,
                 const std::string& what);

/// `run` throws an EngineError with this code whose message holds `part`.
void check_error(const std::function<void()>& run, const std::string& code, const std::string& part);

}  // namespace peft::test
