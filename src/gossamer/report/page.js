"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const plots = [...document.querySelectorAll(".plot")];
const config = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtons: [["toImage", "resetScale2d"]] };
// The library is inside the page, packed: bare it is two and a half times as long.
const load = async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (letter) => letter.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
};
const draw = async () => {
  await load();
  await Promise.all(plots.map((plot) => {
    const figure = figures[plot.dataset.figure];
    return Plotly.newPlot(plot, figure.data, figure.layout, config);
  }));
  document.documentElement.dataset.charts = String(plots.length);
};
draw().catch((error) => { plots.forEach((plot) => { plot.textContent = `This browser cannot draw the chart: ${error}`; }); });
// Paper is narrower than a screen, and a drawn chart does not reflow by itself.
const fit = (width) => plots.forEach((plot) => Plotly.relayout(plot, { width: width(plot), autosize: width(plot) === undefined }));
addEventListener("beforeprint", () => fit((plot) => plot.closest(".wide") ? 660 : 310));
addEventListener("afterprint", () => fit(() => undefined));
