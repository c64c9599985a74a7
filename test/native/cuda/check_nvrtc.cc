// check_nvrtc NVRTC_FOLDER...: compiles every kernel for every architecture as a GPU user's first step would,
// and holds registers and spilled bytes under a cap. Needs no GPU. The last line counts.

#include <cstdio>
#include <map>
#include <regex>

#include "cuda/kernel_source.h"
#include "cuda/nvrtc.h"

namespace {

using peft::cuda::KernelSource;
using peft::cuda::Nvrtc;

constexpr int kArchitectures[] = {75, 80, 86, 89, 90};

/// The most registers that a kernel may take, by the beginning of its name: a little above what it takes, so
/// that a change that costs more is seen. 128 still lets two blocks of 256 threads run at once.
const std::map<std::string, int> kCaps = {
    {"dequantize_f", 40},
    {"dequantize_bf", 40},
    {"put_outliers", 24},
    {"four_bit_linear_1_", 56},
    {"four_bit_linear_2_", 56},
    {"four_bit_linear_4_", 76},
    {"four_bit_linear_8_", 80},
    {"four_bit_linear_16_", 108},
    {"quantize_rows", 56},
    {"finish_int8", 48},
    {"dequantize_int8", 32},
    {"attention_", 116},
    {"embed", 68},
    {"residual_layer_norm", 68},
    {"layer_norm_apply", 36},
    {"layer_norm_backward", 100},
    {"dropout", 68},
    {"bias_gelu", 24},
    {"gelu_backward", 24},
    {"mean_pool", 28},
};

struct Resources {
  int registers = -1, spilled = -1, shared = 0;
};

/// From the text that ptxas -v writes.
std::map<std::string, Resources> parse(const std::string& log) {
  std::map<std::string, Resources> all;
  static const std::regex entry("Compiling entry function '([^']+)'"),
      spills("(\\d+) bytes spill stores, (\\d+)"), used("Used (\\d+) registers"), shared("(\\d+) bytes smem");
  std::string name, line;
  std::smatch match;
  for (size_t at = 0, end = 0; at < log.size(); at = end + 1) {
    end = std::min(log.find('\n', at), log.size());
    line = log.substr(at, end - at);
    if (std::regex_search(line, match, entry)) name = match[1];
    if (name.empty()) continue;
    if (std::regex_search(line, match, spills)) all[name].spilled = std::stoi(match[1]) + std::stoi(match[2]);
    if (std::regex_search(line, match, used)) all[name].registers = std::stoi(match[1]);
    if (std::regex_search(line, match, shared)) all[name].shared = std::stoi(match[1]);
  }
  return all;
}

int cap_of(const std::string& kernel) {
  for (const auto& [prefix, cap] : kCaps) {
    if (kernel.rfind(prefix, 0) == 0) return cap;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Nvrtc nvrtc({argv + 1, argv + argc});
    std::printf("NVRTC %s: %s\n", nvrtc.version().c_str(), nvrtc.path().c_str());
    std::map<std::string, std::map<int, Resources>> table;
    size_t bytes = 0;
    int passed = 0, failed = 0;
    for (const int architecture : kArchitectures) {
      for (const KernelSource& program : peft::cuda::kernel_programs()) {
        const Nvrtc::Result result = nvrtc.compile(
            program, {.architecture = architecture, .machine_code = true, .report_resources = true});
        bytes += result.binary.size();
        for (const auto& [kernel, resources] : parse(result.log)) table[kernel][architecture] = resources;
        if (architecture == kArchitectures[0]) {
          nvrtc.compile(program,
                        {.architecture = architecture, .machine_code = false});  // PTX, for later GPUs
        }
      }
    }
    std::printf("%-36s %6s %9s", "registers (spilled bytes)", "cap", "shared");
    for (const int architecture : kArchitectures) std::printf("   sm_%d", architecture);
    std::printf("\n");
    for (const auto& [kernel, each] : table) {
      const int cap = cap_of(kernel);
      bool ok = each.size() == std::size(kArchitectures) && cap > 0;
      std::printf("%-36s %6d %9d", kernel.c_str(), cap, each.begin()->second.shared);
      for (const auto& [architecture, resources] : each) {
        // Text that could not be read leaves -1.
        ok = ok && resources.registers > 0 && resources.registers <= cap && resources.spilled == 0;
        std::printf("  %3d (%d)", resources.registers, resources.spilled);
      }
      std::printf("%s\n", ok ? "" : "   FAIL");
      (ok ? passed : failed)++;
    }
    std::printf("%zu KiB of machine code\n", bytes / 1024);
    if (table.empty()) failed++;
    std::printf("cuda: %d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
  } catch (const peft::EngineError& e) {
    std::printf("%s\ncuda: 0 passed, 1 failed\n", e.what());
    return 1;
  }
}
