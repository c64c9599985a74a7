// Shows the values under the pointer, or those that the arrow keys choose. The page says all the rest without it.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const charts = JSON.parse(document.getElementById("charts").textContent);
  document.documentElement.classList.add("scripted");
  for (const svg of document.querySelectorAll("svg[data-chart]")) watch(svg, charts[svg.dataset.chart]);

  function watch(svg, chart) {
    const readout = svg.parentElement.querySelector(".readout");
    const pointer = svg.appendChild(document.createElementNS(SVG, "g"));
    pointer.setAttribute("class", "pointer");
    let at = null;

    // A series that the smoothing leaves out is not drawn.
    const drawn = () =>
      chart.series.filter(({ style }) => {
        const path = svg.querySelector(`path.${style.replaceAll(" ", ".")}`);
        return path === null || getComputedStyle(path).display !== "none";
      });
    const show = (value) => {
      at = value;
      pointer.replaceChildren();
      readout.textContent = "";
      if (at === null) return;
      const found = drawn().map((series) => ({ series, i: nearest(series.x, at) }));
      const x = found[0].series.x[found[0].i];
      const line = element("line", { x1: across(chart, x), x2: across(chart, x), y1: chart.frame[1] });
      line.setAttribute("y2", chart.frame[1] + chart.frame[3]);
      pointer.append(line);
      const values = found.map(({ series, i }) => {
        const dot = element("circle", { cx: across(chart, series.x[i]), cy: up(chart, series.y[i]), r: 4 });
        dot.setAttribute("class", series.style);
        pointer.append(dot);
        const note = series.notes ? `${series.notes[i].startsWith("%") ? " " : ", "}${series.notes[i]}` : "";
        return `${series.name}: ${number(series.y[i])}${note}`;
      });
      readout.textContent = `${chart.xName} ${number(x)} \u00b7 ${values.join(" \u00b7 ")}`;
    };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const unit = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const [left, , width] = chart.frame;
      const part = Math.min(1, Math.max(0, (unit - left) / width));
      show(chart.x[0] + part * (chart.x[1] - chart.x[0]));
    };
    const step = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      const { x } = drawn()[0];
      const next = at === null ? 0 : nearest(x, at) + by;
      show(x[Math.min(x.length - 1, Math.max(0, next))]);
    };
    svg.tabIndex = 0;
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", () => show(null));
    svg.addEventListener("keydown", step);
    svg.addEventListener("blur", () => show(null));
    svg.parentElement.addEventListener("change", () => show(at));
  }

  // Values rise; of equal ones the last.
  function nearest(values, wanted) {
    let low = 0;
    let high = values.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (values[middle] <= wanted) low = middle;
      else high = middle - 1;
    }
    return low + 1 < values.length && values[low + 1] - wanted < wanted - values[low] ? low + 1 : low;
  }

  function across({ frame: [left, , width], x: [low, high] }, value) {
    return left + ((value - low) / (high - low)) * width;
  }

  function up({ frame: [, top, , height], y: [low, high] }, value) {
    return top + height - ((value - low) / (high - low)) * height;
  }

  function element(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function number(value) {
    if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(2);
    return Number(value.toFixed(4)).toLocaleString("en-US", { maximumFractionDigits: 4 });
  }
})();
