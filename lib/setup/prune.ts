import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";

/** Of torch/lib: Python's and CUDA's half. libtorch.so goes too, as it only joins the CPU's half to CUDA's. */
const UNUSED_LIBRARY =
  /^(libtorch\.so|libtorch_(cuda|python|nvshmem|global_deps)|libc10_cuda|libcaffe2_nvrtc|libshm)/;
/** Of nvidia/, all that libtorch_cpu.so is linked to. */
const NVIDIA_LIBRARY = /^lib(cudart|cupti)\.so/;
/** What stays of torch/: headers, libraries, the version, the licences. */
const TORCH_KEPT = /^(include|lib|version\.py|build-version|LICENSE.*|NOTICE.*)$/;
/** What stays beside it: bundled libraries (torch.libs on arm64), metadata with the licences. */
const TOP_KEPT = /^(torch\.libs|.*\.dist-info)$/;

/** Whether a file of an installed tree, by its path in it, serves compiling against libtorch or CPU work. */
export function servesCpu(path: string): boolean {
  const [top = "", second = "", third = "", fourth = ""] = path.split("/");
  if (top === "torch") {
    if (!TORCH_KEPT.test(second)) return false;
    return second !== "lib" || !UNUSED_LIBRARY.test(third);
  }
  // nvidia/cu13/lib, or nvidia/cuda_runtime/lib and nvidia/cuda_cupti/lib before CUDA 13.
  if (top === "nvidia") return third === "lib" ? NVIDIA_LIBRARY.test(fourth) : /^licen[sc]e/i.test(third);
  return TOP_KEPT.test(top);
}

/** Takes from a freshly installed tree everything that does not serve the CPU. */
export async function pruneForCpu(tree: string, below = ""): Promise<void> {
  for (const entry of await readdir(join(tree, below), { withFileTypes: true })) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (!entry.isDirectory()) {
      if (!servesCpu(path)) await rm(join(tree, path));
      continue;
    }
    await pruneForCpu(tree, path);
    await rmdir(join(tree, path)).catch(() => {}); // where nothing is left in it
  }
}
