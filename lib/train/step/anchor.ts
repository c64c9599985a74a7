import { PeftTrainError } from "../../errors.js";
import type { Label } from "../options/option-value.js";
import type { ResolvedTrainOptions } from "../options/options.js";

/** Places of an example's texts that follow one another. */
export interface Places {
  first: number;
  count: number;
}

type AnchorOptions = Pick<ResolvedTrainOptions, "anchor" | "loss" | "question1Column" | "question2Column">;

/**
 * Which side of an example stays where the base model has it: its first text, or all others.
 * @throws USAGE for a name that is no side's.
 */
export function anchoredSide(options: AnchorOptions, label: Label): "first" | "others" | undefined {
  const { anchor, loss, question1Column, question2Column } = options;
  if (anchor === null) return undefined;
  const shown = `${label("anchor")}=${anchor}`;
  if (loss === "mse") {
    throw new PeftTrainError(
      "USAGE",
      `${shown}: ${label("loss")}=mse has single texts, and no side to anchor`,
    );
  }
  // A column that is called so comes before the side.
  if (anchor === question1Column) return "first";
  if (anchor === question2Column) return "others";
  if (anchor === "question1") return "first";
  if (anchor === "question2") return "others";
  const columns = [question1Column, question2Column].filter((name) => !/^question[12]$/.test(name));
  const names = ["question1", "question2", ...columns].join(", ");
  throw new PeftTrainError("USAGE", `${shown}: expected one of ${names}`);
}

export function anchoredPlaces(side: "first" | "others", textsPerExample: number): Places {
  return side === "first" ? { first: 0, count: 1 } : { first: 1, count: textsPerExample - 1 };
}
