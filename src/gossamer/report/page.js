// Charts: of a page of few all at once, of a page of many each when it comes into sight.
const PICKED = 12;
const AT_ONCE = 60;
const AROUND = "500px";
const FILLINGS = ["", "-open", "-dot", "-open-dot"];
const config = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtons: [["toImage", "resetScale2d"]] };
const plots = [...document.querySelectorAll(".plot")];
const drawn = new Set();
const fresh = new Set();
const queue = new Set();
const visible = new Set();
const condition = document.getElementById("condition");
let figures;

// Figures and the drawing library are inside the page, packed: bare they are several times as long.
const unpacked = (id) => {
  const text = atob(document.getElementById(id).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) packed[i] = text.charCodeAt(i);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
const load = async () => {
  figures = JSON.parse(await unpacked("figures"));
  const script = document.createElement("script");
  script.textContent = await unpacked("plotly");
  document.head.append(script);
};

// What a filter leaves of a trace that has points of several rows.
const pointsOf = (trace, rows) => {
  const left = (values) => values.filter((_, i) => rows.has(trace.meta.rows[i]));
  const bars = trace.error_y && { ...trace.error_y, array: left(trace.error_y.array), arrayminus: left(trace.error_y.arrayminus) };
  return { ...trace, x: left(trace.x), y: left(trace.y), ...(trace.text && { text: left(trace.text) }), ...(bars && { error_y: bars }) };
};
// Rows drawn over each other have looks by their order: no two of them the same.
const looking = (trace, place) => {
  const look = figures.looks[place];
  // Where a row has several lines, dashes and fillings tell them apart.
  const symbol = `${look.symbol}${FILLINGS[(trace.meta.second ?? 0) % FILLINGS.length]}`;
  const dash = trace.meta.second === undefined ? look.dash : trace.line?.dash;
  return {
    ...trace,
    line: { ...trace.line, color: look.colour, ...(trace.line?.dash && { dash }) },
    ...(trace.marker && { marker: { ...trace.marker, color: look.colour, symbol } }),
    ...(trace.fillcolor && { fillcolor: `${look.colour}24` }),
  };
};
const frontier = (traces) => {
  const points = traces.flatMap((trace) => (trace.meta?.rows ? trace.x.map((x, i) => [x, trace.y[i]]) : []));
  points.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
  let best = -1;
  const kept = points.filter(([, y]) => { const better = y > best; best = Math.max(best, y); return better; });
  if (kept.length) kept.push([points.at(-1)[0], kept.at(-1)[1]]);
  return { x: kept.map(([x]) => x), y: kept.map(([, y]) => y) };
};
const EMPTY = { text: "nothing that the table shows was measured for this chart", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 };
const chosen = (figure, scope) => {
  if (!scope) return { data: figure.data, layout: structuredClone(figure.layout) };
  // Few of the rows may have what a chart draws: the first that have are drawn.
  const own = new Set(figure.data.flatMap((trace) => trace.meta?.rows ?? [trace.meta?.row]));
  const order = rowsShown.order().filter((row) => own.has(row)).slice(0, scope === "picked" ? PICKED : undefined);
  const rows = new Set(order);
  const left = figure.data.flatMap((trace) => {
    if (trace.meta?.rows) { const points = pointsOf(trace, rows); return points.x.length ? [points] : []; }
    if (trace.meta?.row === undefined) return [trace];
    if (!rows.has(trace.meta.row)) return [];
    return [scope === "picked" ? looking(trace, order.indexOf(trace.meta.row)) : trace];
  });
  const data = left.map((trace) => (trace.meta?.frontier ? { ...trace, ...frontier(left) } : trace));
  const layout = structuredClone(figure.layout);
  const named = data.filter((trace) => trace.showlegend !== false).length;
  // Beside the plot, and a plot high enough that no name is cut off on paper.
  layout.legend = { ...layout.legend, orientation: "v", x: 1.01, y: 1, yanchor: "top" };
  layout.margin = { ...layout.margin, t: 34 };
  layout.height = Math.max(layout.height, 116 + 20 * named);
  if (!order.length) layout.annotations = [EMPTY];
  return { data, layout };
};
const figureOf = (plot) => figures.drawn[`${plot.dataset.figure}:${condition?.value}`] ?? figures.drawn[plot.dataset.figure];
const paint = (plot) => {
  const { data, layout } = chosen(figureOf(plot), plot.dataset.scope);
  fresh.add(plot);
  if (drawn.has(plot)) return Plotly.react(plot, data, layout, config);
  drawn.add(plot);
  return Plotly.newPlot(plot, data, layout, config);
};

let library;
let busy = false;
const drain = async () => {
  if (busy) return;
  busy = true;
  try {
    library ??= load();
    await library;
    while (queue.size) {
      const [plot] = queue;
      queue.delete(plot);
      if (!fresh.has(plot)) await paint(plot);
      if (drawn.size === 1) performance.mark("first chart");
    }
  } catch (error) {
    plots.filter((plot) => !drawn.has(plot)).forEach((plot) => { plot.textContent = `This browser cannot draw the chart: ${error}`; });
  }
  busy = false;
  document.documentElement.dataset.charts = String(drawn.size);
};
const enqueue = (some) => { some.forEach((plot) => queue.add(plot)); drain(); };
const few = plots.length <= AT_ONCE;
const watch = () => {
  if (few) { enqueue(plots); return; }
  const observer = new IntersectionObserver((entries) => {
    entries.forEach((entry) => (entry.isIntersecting ? visible.add(entry.target) : visible.delete(entry.target)));
    const stale = [...visible].filter((plot) => !fresh.has(plot));
    if (stale.length) enqueue(stale); else if (!busy) drain();
  }, { rootMargin: AROUND });
  plots.forEach((plot) => observer.observe(plot));
};
const stale = (some) => {
  some.forEach((plot) => fresh.delete(plot));
  enqueue(some.filter((plot) => few || visible.has(plot)));
};
rowsShown.onChange(() => stale(plots.filter((plot) => plot.dataset.scope)));
condition?.addEventListener("change", () => stale(plots.filter((plot) => plot.dataset.scope === "all")));
// The table is there first; drawing begins when it has been shown.
addEventListener("load", () => setTimeout(watch));

// Paper is narrower than a screen, and a drawn chart does not reflow by itself.
const fit = (width) => drawn.forEach((plot) => Plotly.relayout(plot, { width: width(plot), autosize: width(plot) === undefined }));
// What is folded or filtered away is not printed.
const printed = (plot) => !plot.closest("details:not([open]), [hidden]");
addEventListener("beforeprint", () => {
  if (figures && window.Plotly) plots.filter((plot) => printed(plot) && !fresh.has(plot)).forEach(paint);
  document.documentElement.dataset.charts = String(drawn.size);
  fit((plot) => (plot.closest(".wide") ? 660 : 310));
});
addEventListener("afterprint", () => fit(() => undefined));
