"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const plots = [...document.querySelectorAll(".plot")];
const config = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtons: [["toImage", "resetScale2d"]] };
Promise.all(plots.map((plot) => {
  const figure = figures[plot.dataset.figure];
  return Plotly.newPlot(plot, figure.data, figure.layout, config);
})).then(() => { document.documentElement.dataset.charts = String(plots.length); });
// Paper is narrower than a screen, and a drawn chart does not reflow by itself.
const fit = (width) => plots.forEach((plot) => Plotly.relayout(plot, { width: width(plot), autosize: width(plot) === undefined }));
addEventListener("beforeprint", () => fit((plot) => plot.closest(".wide") ? 660 : 310));
addEventListener("afterprint", () => fit(() => undefined));
