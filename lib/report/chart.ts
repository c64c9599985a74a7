import { html, type Markup } from "./html.js";
import type { Axis } from "./scale.js";

/** Small enough that its text can be read when a telephone shows it at 350 pixels. */
const [WIDTH, HEIGHT] = [440, 264];
const [LEFT, RIGHT, TOP, BOTTOM] = [48, 12, 10, 40];

export interface Series {
  /** In the legend and where values are shown. */
  name: string;
  /** Classes of its line, which give its colour. */
  style: string;
  x: readonly number[];
  y: readonly number[];
  /** Shown with the value of a point, as a threshold. */
  notes?: readonly string[];
  /** A line through the points (also with a dot at each), the tops of bars, or a band up to these values. */
  shape?: "line" | "dots" | "bars" | { upTo: readonly number[] };
  /** Left out of the legend and of the values shown. */
  silent?: true;
}

export interface ChartOptions {
  /** Also its key among the data of the page: letters and dashes. */
  id: string;
  title: string;
  /** What it shows in a sentence, for who does not see it. */
  description: string;
  x: { name: string; axis: Axis };
  y: Axis;
  series: readonly Series[];
  /** Places on the horizontal axis that are worth a line. */
  marks?: readonly { x: number; name: string }[];
  /** From corner to corner, as what guessing gives. */
  diagonal?: boolean;
  /** Said below. */
  note?: string | undefined;
  /** Above the chart. */
  controls?: Markup | undefined;
}

/** What the script needs to show values under the pointer. */
export interface ChartData {
  frame: [left: number, top: number, width: number, height: number];
  x: [low: number, high: number];
  y: [low: number, high: number];
  xName: string;
  series: {
    name: string;
    style: string;
    x: readonly number[];
    y: readonly number[];
    notes?: readonly string[];
  }[];
}

export interface Chart {
  id: string;
  markup: Markup;
  data: ChartData;
}

/** A chart as SVG in a figure, which says all that it says without a script. */
export function chart(options: ChartOptions): Chart {
  const { id, title, description, series, marks = [] } = options;
  const scale = scales(options.x.axis, options.y);
  const shown = series.filter(({ silent }) => !silent);
  const ends = { right: WIDTH - RIGHT, bottom: HEIGHT - BOTTOM };
  const markup = html`<figure class="card chart" id="${id}">
<figcaption>${title}</figcaption>
${options.controls ?? ""}${shown.length > 1 && html`<p class="legend">${shown.map(({ name, style }) => html`<span class="key ${style}">${name}</span> `)}</p>`}
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="${id}-title ${id}-text" data-chart="${id}">
<title id="${id}-title">${title}</title><desc id="${id}-text">${description}</desc>
<g class="grid">${options.y.ticks.map((tick) => html`<path d="M${LEFT} ${place(scale.y(tick))}H${ends.right}"/>`)}</g>
<g class="labels y">${options.y.ticks.map((tick) => html`<text x="${LEFT - 6}" y="${place(scale.y(tick) + 4)}">${options.y.label(tick)}</text>`)}</g>
<g class="labels x">${options.x.axis.ticks.map((tick) => html`<text x="${place(scale.x(tick))}" y="${ends.bottom + 16}">${options.x.axis.label(tick)}</text>`)}
<text x="${(LEFT + ends.right) / 2}" y="${HEIGHT - 6}">${options.x.name}</text></g>
${options.diagonal && html`<path class="diagonal" d="M${LEFT} ${ends.bottom}L${ends.right} ${TOP}"/>`}
${series.map((one) => drawn(one, scale, ends.bottom))}
${marks.map(({ x, name }) => mark(scale.x(x), name, ends.bottom))}
<path class="baseline" d="M${LEFT} ${ends.bottom}H${ends.right}"/>
</svg>
<p class="readout" aria-live="polite"></p>
${options.note !== undefined && html`<p class="note">${options.note}</p>`}
</figure>`;
  return {
    id,
    markup,
    data: {
      frame: [LEFT, TOP, ends.right - LEFT, ends.bottom - TOP],
      x: [...options.x.axis.range],
      y: [...options.y.range],
      xName: options.x.name,
      series: shown.map(({ name, style, x, y, notes }) => ({ name, style, x, y, ...(notes && { notes }) })),
    },
  };
}

interface Scales {
  x: (value: number) => number;
  y: (value: number) => number;
}

function scales(x: Axis, y: Axis): Scales {
  const linear =
    ([low, high]: Axis["range"], from: number, to: number) =>
    (value: number) =>
      from + ((value - low) / (high - low)) * (to - from);
  return { x: linear(x.range, LEFT, WIDTH - RIGHT), y: linear(y.range, HEIGHT - BOTTOM, TOP) };
}

function drawn({ style, x, y, shape = "line" }: Series, scale: Scales, bottom: number): Markup {
  const points = (values: readonly number[]): string[] =>
    values.map((value, i) => `${place(scale.x(x[i] as number))} ${place(scale.y(value))}`);
  if (shape === "bars") {
    const half = (scale.x(x[1] ?? (x[0] as number) + 1) - scale.x(x[0] as number)) / 2;
    const steps = x.map((at, i) => `V${place(scale.y(y[i] as number))}H${place(scale.x(at) + half)}`);
    return html`<path class="bars ${style}" d="M${place(scale.x(x[0] as number) - half)} ${bottom}${steps.join("")}V${bottom}Z"/>`;
  }
  if (typeof shape === "object") {
    const outline = [...points(y), ...points(shape.upTo).reverse()];
    return html`<path class="band ${style}" d="M${outline.join("L")}Z"/>`;
  }
  const line = points(y);
  const dots = shape === "dots" || line.length === 1;
  return html`<path class="line ${style}" d="M${line.join("L")}"/>${dots && line.map((point) => dot(point, style))}`;
}

function dot(point: string, style: string): Markup {
  const [x, y] = point.split(" ");
  return html`<circle class="dot ${style}" cx="${x}" cy="${y}" r="3.5"/>`;
}

function mark(x: number, name: string, bottom: number): Markup {
  // On the side where there is room for its name.
  const right = x > (LEFT + WIDTH) / 2;
  return html`<path class="mark" d="M${place(x)} ${TOP}V${bottom}"/><text class="labels mark-name${right && " end"}" x="${place(x + (right ? -5 : 5))}" y="${TOP + 14}">${name}</text>`;
}

/** A tenth of a unit is finer than a pixel. */
function place(value: number): string {
  return String(Math.round(value * 10) / 10);
}
