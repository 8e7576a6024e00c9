/* Draws every figure of the page with plotly, in the colours of light, dark and paper. */
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var charts = [];
  // Names of phases: those that would stand on one another are left out.
  function apart(notes, layout, width) {
    var range = (layout.xaxis || {}).range, last = -Infinity;
    return notes.filter(function (note) {
      if (!range || note.xref !== "x" || note.xanchor !== "center") { return true; }
      var at = note.x / (range[1] - range[0]) * (width - 84);
      if (at - last < 46) { return false; }
      last = at;
      return true;
    });
  }
  function theme(layout, isDark) {
    var text = isDark ? "#c9ced8" : "#3a4150", grid = isDark ? "#2b313c" : "#e7e9ee";
    var paper = isDark ? "#1d222b" : "#ffffff";
    var themed = Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hovermode: "closest",
      font: {
        family: "system-ui, -apple-system, 'Segoe UI', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif",
        size: 12, color: text
      },
      hoverlabel: {bgcolor: paper, bordercolor: grid, font: {color: text}}
    }, layout);
    themed.legend = {
      orientation: "h", x: 0, xanchor: "left", y: 1, yref: "container", yanchor: "top", traceorder: "normal"
    };
    themed.margin = {l: 64, r: layout.yaxis2 && layout.yaxis2.side === "right" ? 60 : 20, t: 58, b: 48};
    themed.annotations = (layout.annotations || []).map(function (note) {
      return Object.assign({bgcolor: isDark ? "rgba(26,31,39,0.75)" : "rgba(255,255,255,0.75)"}, note);
    });
    Object.keys(themed).forEach(function (key) {
      if (/^[xy]axis\d*$/.test(key)) {
        themed[key] = Object.assign({
          gridcolor: grid, linecolor: grid, zerolinecolor: grid, automargin: true
        }, themed[key]);
      }
    });
    return themed;
  }
  function draw(isDark, width) {
    charts.forEach(function (chart) {
      var layout = theme(chart.figure.layout, isDark);
      layout.annotations = apart(layout.annotations, layout, width || chart.element.clientWidth);
      layout.width = width;
      layout.autosize = !width;
      window.Plotly.react(chart.element, chart.figure.data, layout,
        {responsive: !width, displaylogo: false, displayModeBar: false, showTips: false});
    });
  }
  document.querySelectorAll("figure[data-chart]").forEach(function (element) {
    var source = document.getElementById(element.dataset.chart);
    charts.push({element: element.querySelector(".plot"), figure: JSON.parse(source.textContent)});
  });
  draw(dark.matches);
  dark.addEventListener("change", function () { draw(dark.matches); });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (element) { element.open = true; });
    draw(false, 690);
  });
  window.addEventListener("afterprint", function () { draw(dark.matches); });
})();
