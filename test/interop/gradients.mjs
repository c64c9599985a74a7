import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
// Gradients are no part of the public API: this is the one place that reaches behind it.
import { openAdapterFolder } from "../../dist/adapter/folder.js";
import { openModelFolder } from "../../dist/model/folder.js";
import { loadEngine } from "../../dist/native/load.js";

/** Loss and gradients of the batch in gradients.json, dropout off, into gradients-ours.json (base64 of float32). */
export async function writeGradients(modelPath, adapterPath, work) {
  const { ids: rows, labels } = JSON.parse(readFileSync(path.join(work, "gradients.json"), "utf8"));
  const model = await openModelFolder(modelPath);
  const adapter = await openAdapterFolder(adapterPath, model);
  const encoder = await loadEngine().open({
    weightsPath: model.weightsPath,
    shape: { ...model.shape, hiddenDropout: 0, attentionDropout: 0 },
    pooling: "mean",
    device: "cpu",
    threads: 0,
  });
  try {
    await encoder.loadAdapter(adapter.weightsPath, { ...adapter.spec, dropout: 0 });
    const cuSeqlens = new Int32Array(rows.length + 1);
    for (const [i, row] of rows.entries()) cuSeqlens[i + 1] = cuSeqlens[i] + row.length;
    const batch = { ids: Int32Array.from(rows.flat()), cuSeqlens, labels: Float32Array.from(labels) };
    const { loss, gradients } = await encoder.gradients(batch, { seed: 0, step: 0, microBatchTokens: 4096 });
    const encoded = Object.entries(gradients).map(([key, g]) => [
      key,
      Buffer.from(g.buffer, g.byteOffset, g.byteLength).toString("base64"),
    ]);
    writeFileSync(
      path.join(work, "gradients-ours.json"),
      JSON.stringify({ loss, gradients: Object.fromEntries(encoded) }),
    );
  } finally {
    await encoder.close();
  }
}
