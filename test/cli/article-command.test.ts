import { describe, expect, it } from "vitest";
import { refusals } from "../support/refusals.js";

const { runHere, trainArgs, expectRefusal } = refusals();

describe("the article's command line", () => {
  const article =
    "--mixed_precision=fp8 --dataset_name=train.csv --max_length=70 --model_name_or_path=intfloat/e5-small-v2 --per_device_train_batch_size=64 --per_device_eval_batch_size=128 --learning_rate=5e-4 --weight_decay=0.0 --num_train_epochs 3 --gradient_accumulation_steps=1 --output_dir=out --seed=42 --with_tracking --report_to=wandb --use_peft --checkpointing_steps epoch";

  it("as it stands runs as far as the model", async () => {
    const given = article.replace("fp8", "fp16").replace("intfloat/e5-small-v2", "model");
    const outcome = await runHere(given.replace("max_length=70", "max_length=60").split(" "));
    expectRefusal(outcome, 1, /PEFT_TRAIN_LIBTORCH=\/nonexistent\/libtorch/);
  });

  it("is told exactly what to leave out, and what is left then runs as far as the model", async () => {
    const outcome = await runHere(article.split(" "));
    expectRefusal(outcome, 2, /--mixed_precision=fp8 is not available in this version$/);
    const rest = /Leave it out: npx peft-train (.*)$/m.exec(outcome.stderr)?.[1] ?? "";
    expect(rest.split(" ")).toEqual(article.split(" ").filter((arg) => !/mixed_precision/.test(arg)));
    const given = rest.replace("intfloat/e5-small-v2", "model").replace("max_length=70", "max_length=60");
    // All that is missing now is libtorch.
    expectRefusal(await runHere(given.split(" ")), 1, /PEFT_TRAIN_LIBTORCH=\/nonexistent\/libtorch/);
  });

  it("in kebab case, and with values as words of their own, is the same", async () => {
    const kebab = article.replaceAll(/--[\w]+/g, (flag) => flag.replaceAll("_", "-")).replaceAll("=", " ");
    const outcome = await runHere(kebab.split(" "));
    expectRefusal(outcome, 2, /--mixed_precision=fp8 is not available/);
    expect(outcome.stderr).not.toMatch(/npx peft-train.*fp8/);
    expect(outcome.stderr).toMatch(/npx peft-train.*--with_tracking/);
  });

  for (const flag of ["--bnb_4bit_compute_dtype=float16", "--mixed_precision=fp8"]) {
    it(`is not there yet: ${flag}`, async () => {
      const name = flag.replace(/=.*/, "");
      expectRefusal(
        await runHere([...trainArgs(), flag]),
        2,
        new RegExp(`${name}.*not available in this version`),
      );
    });
  }

  it("never repeats a token", async () => {
    for (const token of [["--hub_token", "hf_secret"], ["--hub-token=hf_secret"]]) {
      const outcome = await runHere([...trainArgs(), "--mixed_precision=fp8", ...token]);
      expectRefusal(outcome, 2, /--mixed_precision=fp8 is not available/, /--hub_token(=| )\.\.\./);
      expect(outcome.stderr).not.toContain("hf_secret");
    }
  });

  it("may spell out that such features are off", async () => {
    const off = [
      "--no-with_tracking",
      "--report_to=none",
      "--fp16=false",
      "--mixed_precision=no",
      "--push-to-hub=false",
    ];
    expectRefusal(await runHere([...trainArgs(), ...off]), 1, /PEFT_TRAIN_LIBTORCH/);
  });
});

describe("what Python's argparse takes is taken", () => {
  for (const rest of [
    ["--lora_target_modules", "query", "key", "value", "--use_peft", "True"],
    ["--use-peft=True", "--lora-target-modules", "query,", "key,", "value"],
    ["--lora_target_modules=query, key, value,", "--use_peft", "true"],
  ]) {
    it(rest.join(" "), async () => {
      // All that is missing is libtorch.
      expectRefusal(await runHere([...trainArgs(), ...rest]), 1, /PEFT_TRAIN_LIBTORCH/);
    });
  }

  it("--use_peft False is taken as what it means", async () => {
    const outcome = await runHere([...trainArgs(), "--use_peft", "False", "--lora_r=4"]);
    expectRefusal(outcome, 2, /--lora_r is of a LoRA adapter, and --use_peft=false trains none/);
  });
});
