import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** Of torch/lib: Python's and CUDA's half. libtorch.so goes too, as it only joins the CPU's half to CUDA's. */
const UNUSED_LIBRARY =
  /^(libtorch\.so|libtorch_(cuda|python|nvshmem|global_deps)|libc10_cuda|libcaffe2_nvrtc|libshm)/;
/** Of nvidia/, all that libtorch_cpu.so is linked to. */
const NVIDIA_LIBRARY = /^lib(cudart|cupti)\.so/;
/** What stays of torch/: headers, libraries, the version, the licences. */
const TORCH_KEPT = /^(include|lib|version\.py|build-version|LICENSE.*|NOTICE.*)$/;
/** What stays beside it: bundled libraries (torch.libs on arm64), NVIDIA's libraries, metadata with the licences. */
const TOP_KEPT = /^(torch|torch\.libs|nvidia|.*\.dist-info)$/;

/** Takes from a freshly installed tree everything that neither compiling against libtorch nor CPU work needs. */
export async function pruneForCpu(tree: string): Promise<void> {
  await keepOnly(tree, (name) => TOP_KEPT.test(name));
  await keepOnly(join(tree, "torch"), (name) => TORCH_KEPT.test(name));
  await keepOnly(join(tree, "torch", "lib"), (name) => !UNUSED_LIBRARY.test(name));
  // nvidia/cu13/lib, or nvidia/cuda_runtime/lib and nvidia/cuda_cupti/lib before CUDA 13.
  for (const part of await names(join(tree, "nvidia"))) {
    await keepOnly(join(tree, "nvidia", part), (name) => name === "lib" || /^licen[sc]e/i.test(name));
    await keepOnly(join(tree, "nvidia", part, "lib"), (name) => NVIDIA_LIBRARY.test(name));
  }
}

async function keepOnly(folder: string, kept: (name: string) => boolean): Promise<void> {
  for (const name of await names(folder)) {
    if (!kept(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

async function names(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return []; // a CPU wheel brings no nvidia/
    throw error;
  });
}
