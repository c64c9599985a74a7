import path from "node:path";
import { html, type Markup } from "./html.js";
import type { Mistake, ReportLine } from "./lines.js";

interface Wording {
  title: string;
  about: string;
  /** What each text of an example is; none where that is clear. */
  texts: readonly string[];
  /** Of the cosines. */
  cosines: readonly string[];
  label?: (value: number) => string;
}

const PAIRS: Pick<Wording, "texts" | "cosines"> = { texts: [], cosines: [""] };

/** By the kind of data. */
const WORDINGS: Record<string, Wording> = {
  labels: {
    ...PAIRS,
    title: "Worst mistakes",
    about:
      "Pairs on the wrong side of the best threshold, the farthest from it first. Some may be labels to mend.",
    label: (value) => (value === 1 ? "1, alike" : "0, different"),
  },
  scores: {
    ...PAIRS,
    title: "Worst mistakes",
    about: "Pairs whose place by cosine is farthest from their place by score.",
    label: (value) => `score ${Number(value.toPrecision(4))}`,
  },
  negatives: {
    title: "Hardest triplets",
    about:
      "Those whose negative is nearest to the anchor, measured against the positive; wrong where its cosine is as high.",
    texts: ["anchor", "positive", "negative"],
    cosines: ["positive ", "negative "],
  },
  texts: {
    title: "Farthest from the teacher",
    about: "Texts with the lowest cosine to the vector they were to get.",
    ...PAIRS,
  },
};

/** The examples that the evaluation got most wrong, with their texts. */
export function mistakesSection(report: ReportLine | undefined, kind: string): Markup | undefined {
  const wording = WORDINGS[kind];
  if (report === undefined || wording === undefined || report.step === null) return undefined;
  const { mistakes, evalFile, missingTexts } = report;
  const trained = report.step > 0;
  const rows = mistakes.map(
    (
      mistake,
    ) => html`<tr><td class="place">${mistake.place}</td><td>${texts(mistake, wording)}</td>${wording.label && html`<td class="label">${mistake.label !== null && wording.label(mistake.label)}</td>`}
<td data-name="base model">${cosines(mistake.before, wording)}</td>${trained && html`<td data-name="as trained">${cosines(mistake.after, wording)}</td>`}</tr>
`,
  );
  const head = [
    "Where",
    "Texts",
    ...(wording.label ? ["Label"] : []),
    "Base model",
    ...(trained ? ["As trained"] : []),
  ];
  return html`<section><h2>${wording.title}</h2>
<p>${wording.about} ${evalFile !== null && html`From <code>${path.basename(evalFile)}</code>; cosines by the base model${trained && " and as trained"}.`}</p>
${missingTexts !== null && html`<p class="note">Their texts could not be read again: ${missingTexts}</p>`}
${
  mistakes.length === 0
    ? html`<p>There is none.</p>`
    : html`<div class="card scroll"><table class="mistakes"><thead><tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>${rows}</tbody></table></div>`
}</section>`;
}

function texts({ texts: shown }: Mistake, wording: Wording): Markup[] {
  return shown.map((text, i) => {
    const name = wording.texts[i];
    // A name on the page may be written from right to left.
    return html`<p dir="auto">${name !== undefined && html`<span class="note">${name}: </span>`}${text}</p>`;
  });
}

function cosines(values: readonly number[], wording: Wording): Markup[] {
  return values.map(
    (value, i) =>
      html`<span class="cosine"><span class="note">${wording.cosines[i]}</span>${value.toFixed(3)}</span> `,
  );
}
