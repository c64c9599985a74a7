import { writeFileSync } from "node:fs";

/** What an unwary page would run, or would be broken by. */
export const HOSTILE: readonly string[] = [
  `</script><script>document.title = "taken"</script>`,
  `<img src=x onerror="document.title = 'taken'">`,
  `"><svg onload=document.title='taken'>`,
  `<!-- <script> -->${"\u2028"}]]>`,
];

/** Labelled pairs in which these texts are the worst mistakes: the same twice with label 0. */
export function writeHostilePairs(file: string): string {
  const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;
  const rows = [
    ...HOSTILE.map((text) => `${quoted(text)},${quoted(text)},0`),
    ...Array.from(
      { length: 20 },
      (_, i) => `a b ${"cdefgh"[i % 6]} d,${i % 2 ? "a b" : "x y"} ${"cdefgh"[(i * 5) % 6]},${i % 2}`,
    ),
  ];
  writeFileSync(file, `question1,question2,is_duplicate\n${rows.join("\n")}\n`);
  return file;
}
