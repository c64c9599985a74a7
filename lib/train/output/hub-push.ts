import { openAsBlob } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../../errors.js";
import type { HubAccess } from "../../hub/access.js";
import { uploadFiles, uploadingUser } from "../../hub/upload.js";
import type { TrainEvent, TrainResult } from "../events.js";
import type { ResolvedTrainOptions } from "../options/options.js";
import type { Plan } from "../preparation.js";
import { modelCard } from "./model-card.js";
import { SAVED_FILES } from "./output-content.js";

/** `--push_to_hub`: what is wrong with the token is found before training, what was trained is uploaded after it. */
export class HubPush {
  private constructor(
    private readonly repository: string,
    private readonly isPrivate: boolean,
    private readonly access: HubAccess,
  ) {}

  /** @throws HUB_ACCESS, DOWNLOAD_FAILED, USAGE */
  static async prepare(options: ResolvedTrainOptions, access: HubAccess): Promise<HubPush> {
    const user = await uploadingUser(access);
    const name = options.hubModelId ?? path.basename(path.resolve(options.outputDir));
    if (!/^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/.test(name)) {
      throw new PeftTrainError("USAGE", `--output_dir=${options.outputDir} makes no name of a repository`, {
        hint: "Give --hub_model_id=owner/name.",
      });
    }
    const repository = name.includes("/") ? name : `${user}/${name}`;
    return new HubPush(repository, options.hubPrivateRepo, access);
  }

  /** Uploads the adapter or model of the output folder, with a model card and without checkpoints. */
  async upload(plan: Plan, result: TrainResult): Promise<TrainEvent> {
    const { repository, access } = this;
    const files = new Map([["README.md", new Blob([modelCard(repository, plan, result)])]]);
    for (const name of await savedFiles(result.outputDir)) {
      files.set(name, await openAsBlob(path.join(result.outputDir, name)));
    }
    const what = plan.adapter === undefined ? "model" : "adapter";
    try {
      const title = `${what === "model" ? "Model" : "Adapter"} of step ${result.savedStep}, by peft-train`;
      const uploaded = await uploadFiles({ repository, private: this.isPrivate, files, title }, access);
      return { event: "pushed", repository, ...uploaded };
    } catch (cause) {
      if (!(cause instanceof PeftTrainError)) throw cause;
      throw new PeftTrainError(
        cause.code,
        `the upload failed: ${cause.message}; the ${what} is in ${result.outputDir}`,
        {
          hint: `Upload it by hand: npx -p @huggingface/hub hfjs upload ${repository} ${result.outputDir}`,
          cause,
        },
      );
    }
  }
}

/** Paths in an output folder of what a run saved, checkpoints left out. */
async function savedFiles(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of SAVED_FILES) {
    const entry = await stat(path.join(folder, name)).catch(() => undefined);
    if (entry?.isFile()) found.push(name);
    if (!entry?.isDirectory()) continue;
    for (const inner of await readdir(path.join(folder, name))) found.push(`${name}/${inner}`);
  }
  return found;
}
