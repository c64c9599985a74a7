// The text of every CUDA kernel, run on the CPU in five orders against plain C++, and then versions of it
// with one fault each, all of which the same checks have to find. Needs no GPU and no libtorch.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "checks.h"
#include "mutants.h"

namespace {

using namespace peft::cuda;

struct Family {
  const char* file;
  void (*check)(int set, shim::Order order);
};
constexpr Family kFamilies[] = {{"attention.cu", check_attention},
                                {"attention_backward.cu", check_attention_backward},
                                {"four_bit_dequantize.cu", check_dequantize},
                                {"four_bit_linear.cu", check_four_bit_linear},
                                {"gelu.cu", check_gelu},
                                {"int8.cu", check_int8},
                                {"layer_norm.cu", check_layer_norm},
                                {"pooling.cu", check_pooling}};

/// A mutant that goes round for ever counts as found.
constexpr unsigned kSeconds = 60;
constexpr int kFoundFirst = 10;  // exit status: found in order 0, 1, ...

/// In a process of its own, because a mutant may write anywhere.
int run_mutant(const Mutant& mutant, const Family& family) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child < 0) return 0;  // counts as survived
  if (child == 0) {
    ::alarm(kSeconds);
    for (const shim::Order order : shim::kOrders) {
      try {
        family.check(mutant.set, order);
      } catch (const std::exception&) {
        ::_exit(kFoundFirst + static_cast<int>(order));
      }
    }
    ::_exit(0);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return 0;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

const Family& family_of(const std::string& file) {
  for (const Family& family : kFamilies) {
    if (file == family.file) return family;
  }
  throw std::runtime_error("no checks for " + file);
}

}  // namespace

/// With an argument, only the kernel files and mutants whose name holds it.
int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  const auto left_out = [&](const std::string& name) {
    return argc > 1 && name.find(argv[1]) == std::string::npos;
  };
  const auto run = [&](const std::string& name, const auto& check) {
    if (left_out(name)) return;
    try {
      check();
      passed++;
      std::printf("ok   %s\n", name.c_str());
    } catch (const std::exception& e) {
      failed++;
      std::printf("FAIL %s: %s\n", name.c_str(), e.what());
    }
  };
  run("the shim", check_shim);
  for (const Family& family : kFamilies) {
    for (const shim::Order order : shim::kOrders) {
      run(std::string(family.file) + " in the order " + shim::order_name(order),
          [&] { family.check(0, order); });
    }
  }
  for (const Mutant& mutant : mutants()) {
    const std::string name = mutant.file + ": " + mutant.name;
    if (left_out(name)) continue;
    const int outcome = run_mutant(mutant, family_of(mutant.file));
    if (outcome == 0) {
      failed++;
      std::printf("FAIL the mutant survived: %s\n", name.c_str());
      continue;
    }
    passed++;
    const std::string how = outcome < 0
                                ? std::string("by ") + ::strsignal(-outcome)
                                : std::string("in the order ") +
                                      shim::order_name(static_cast<shim::Order>(outcome - kFoundFirst));
    std::printf("ok   mutant found %s: %s\n", how.c_str(), name.c_str());
  }
  std::printf("kernels: %d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
