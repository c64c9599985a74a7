#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>

#include "cuda/launcher.h"
#include "error.h"
#include "kernels/cpu/table.h"

namespace peft {
namespace {

bool on_cpu(const Tensor& t) { return t.device().is_cpu(); }

const float* in(const Tensor& t) { return t.const_data_ptr<float>(); }
float* io(Tensor& t) { return t.mutable_data_ptr<float>(); }

/// The launcher for a matrix [T, 3d], or null where its heads are too wide for the GPU's kernels.
cuda::Launcher* heads_on_gpu(const Tensor& qkv, int64_t heads) {
  return cuda::has_attention(qkv.size(1) / 3 / heads) ? cuda::launcher_for(qkv.device()) : nullptr;
}

Packed packed(const PackedLayout& layout) {
  return {layout.offsets.const_data_ptr<int32_t>(), layout.sequences};
}

#if defined(__x86_64__)
bool runs_avx512() {
#if defined(PEFT_EMULATED_AVX512)
  return true;
#endif
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("fma");
}

bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool runs_avx_vnni() {
#if defined(PEFT_EMULATED_AVX512)
  return true;
#endif
  unsigned a = 0, b = 0, c = 0, d = 0;
  return runs_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & bit_AVXVNNI) != 0;
}

/// Whether floating-point additions run beside multiplications instead of in their place: AMD's Zen.
bool adds_beside_multiplying() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return false;
  const bool amd = b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;
  if (!amd || __get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  const unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
  return family >= 0x17;
}
#endif

constexpr int kMostSets = 8;

/// The sets that this build holds and this processor runs, best first, null after the last.
std::array<const CpuKernels*, kMostSets + 1> runnable_sets() {
  std::array<const CpuKernels*, kMostSets + 1> sets{};
  size_t count = 0;
  const auto add = [&](const CpuKernels& plain, const CpuKernels& paired, bool paired_first) {
    sets[count++] = paired_first ? &paired : &plain;
    sets[count++] = paired_first ? &plain : &paired;
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool pairs = adds_beside_multiplying();
  if (runs_avx512()) add(cpu::avx512::kKernels, cpu::avx512::kPairedKernels, pairs);
  if (runs_avx_vnni()) add(cpu::avx2::kVnniKernels, cpu::avx2::kPairedVnniKernels, pairs);
  if (runs_avx2()) add(cpu::avx2::kKernels, cpu::avx2::kPairedKernels, pairs);
#endif
  add(cpu::generic::kKernels, cpu::generic::kPairedKernels, false);
  return sets;
}

const CpuKernels& chosen_set() {
  const char* const named = std::getenv("PEFT_TRAIN_CPU_KERNELS");
  if (named == nullptr || *named == '\0') return *cpu_kernel_set(0);
  std::string names;
  for (int i = 0; const CpuKernels* const set = cpu_kernel_set(i); i++) {
    if (std::strcmp(set->name, named) == 0) return *set;
    names += (i == 0 ? "" : ", ") + std::string(set->name);
  }
  throw EngineError("USAGE",
                    "PEFT_TRAIN_CPU_KERNELS=" + std::string(named) + " names no kernels that run here",
                    "Take one of " + names + ", or unset it.");
}

}  // namespace

const CpuKernels* cpu_kernel_set(int i) {
  static const auto sets = runnable_sets();
  return i < kMostSets ? sets[static_cast<size_t>(i)] : nullptr;
}

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = chosen_set();
  return chosen;
}

void embed(const Tensor& ids, const PackedLayout& layout, const Tensor& word, const Tensor& position,
           const Tensor& type, const LayerNormWeights& norm, const Dropout& dropout, Tensor& out) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(out.device()))
    return cuda::embed(*gpu, ids, layout, word, position, type, norm, dropout, out);
  if (!on_cpu(out)) return reference::embed(ids, layout, word, position, type, norm, dropout, out);
  cpu_kernels().embed(ids.const_data_ptr<int32_t>(), layout.positions.const_data_ptr<int32_t>(), out.size(0),
                      out.size(1), in(word), in(position), in(type), in(norm.gamma), in(norm.beta),
                      static_cast<float>(norm.eps), dropout, io(out));
}

void residual_layer_norm(Tensor& y, const Tensor& bias, const Tensor& residual, const LayerNormWeights& norm,
                         const Dropout& dropout, Tensor& out, RowMoments& moments) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(y.device()))
    return cuda::residual_layer_norm(*gpu, y, bias, residual, norm, dropout, out, moments);
  if (!on_cpu(y)) return reference::residual_layer_norm(y, bias, residual, norm, dropout, out, moments);
  cpu_kernels().residual_layer_norm(io(y), in(bias), in(residual), y.size(0), y.size(1), in(norm.gamma),
                                    in(norm.beta), static_cast<float>(norm.eps), dropout, io(out),
                                    io(moments.mean), io(moments.rstd));
}

void layer_norm_apply(const Tensor& y, const RowMoments& moments, const LayerNormWeights& norm, Tensor& out) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(y.device()))
    return cuda::layer_norm_apply(*gpu, y, moments, norm, out);
  if (!on_cpu(y)) return reference::layer_norm_apply(y, moments, norm, out);
  cpu_kernels().layer_norm_apply(in(y), in(moments.mean), in(moments.rstd), y.size(0), y.size(1),
                                 in(norm.gamma), in(norm.beta), io(out));
}

void layer_norm_backward(const Tensor& dout, const Tensor& y, const RowMoments& moments,
                         const LayerNormWeights& norm, const Dropout& dropout, Tensor& dy, Tensor& dmasked) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(y.device()))
    return cuda::layer_norm_backward(*gpu, dout, y, moments, norm, dropout, dy, dmasked);
  if (!on_cpu(y)) return reference::layer_norm_backward(dout, y, moments, norm, dropout, dy, dmasked);
  cpu_kernels().layer_norm_backward(in(dout), in(y), in(moments.mean), in(moments.rstd), y.size(0), y.size(1),
                                    in(norm.gamma), dropout, io(dy),
                                    dropout.active() ? io(dmasked) : nullptr);
}

void bias_gelu(Tensor& u, const Tensor& bias, Tensor& out) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(u.device())) return cuda::bias_gelu(*gpu, u, bias, out);
  if (!on_cpu(u)) return reference::bias_gelu(u, bias, out);
  cpu_kernels().bias_gelu(io(u), in(bias), u.size(0), u.size(1), io(out));
}

void gelu_backward(Tensor& dout, const Tensor& u, Tensor& out) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(u.device()))
    return cuda::gelu_backward(*gpu, dout, u, out);
  if (!on_cpu(u)) return reference::gelu_backward(dout, u, out);
  cpu_kernels().gelu_backward(io(dout), in(u), u.size(0), u.size(1), out.defined() ? io(out) : nullptr);
}

void dropout_apply(const Tensor& x, const Dropout& dropout, bool accumulate, Tensor& out) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(x.device()))
    return cuda::dropout_apply(*gpu, x, dropout, accumulate, out);
  if (!on_cpu(x)) return reference::dropout_apply(x, dropout, accumulate, out);
  cpu_kernels().dropout(in(x), x.size(0), x.size(1), dropout, accumulate, io(out));
}

void attention(const Tensor& qkv, const PackedLayout& layout, int64_t heads, const Dropout& dropout,
               Tensor& context, Tensor& lse) {
  cuda::Launcher* const gpu = heads_on_gpu(qkv, heads);
  if (gpu != nullptr) return cuda::attention(*gpu, qkv, layout, heads, dropout, context, lse);
  if (!on_cpu(qkv)) return reference::attention(qkv, layout, heads, dropout, context, lse);
  cpu_kernels().attention(in(qkv), packed(layout), context.size(1), heads, dropout, io(context), io(lse));
}

void attention_backward(const Tensor& dcontext, const Tensor& qkv, const Tensor& lse,
                        const PackedLayout& layout, int64_t heads, const Dropout& dropout, Tensor& dqkv) {
  cuda::Launcher* const gpu = heads_on_gpu(qkv, heads);
  if (gpu != nullptr) return cuda::attention_backward(*gpu, dcontext, qkv, lse, layout, heads, dropout, dqkv);
  if (!on_cpu(qkv)) return reference::attention_backward(dcontext, qkv, lse, layout, heads, dropout, dqkv);
  cpu_kernels().attention_backward(in(dcontext), in(qkv), in(lse), packed(layout), dcontext.size(1), heads,
                                   dropout, io(dqkv));
}

void mean_pool(const Tensor& x, const PackedLayout& layout, Tensor& out) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(x.device()))
    return cuda::mean_pool(*gpu, x, layout, out);
  if (!on_cpu(x)) return reference::mean_pool(x, layout, out);
  cpu_kernels().mean_pool(in(x), packed(layout), x.size(1), io(out));
}

void mean_pool_backward(const Tensor& dout, const PackedLayout& layout, Tensor& dx) {
  if (cuda::Launcher* const gpu = cuda::launcher_for(dx.device()))
    return cuda::mean_pool_backward(*gpu, dout, layout, dx);
  if (!on_cpu(dx)) return reference::mean_pool_backward(dout, layout, dx);
  cpu_kernels().mean_pool_backward(in(dout), packed(layout), dx.size(1), io(dx));
}

}  // namespace peft
