"use strict";
// Draws every figure, and draws it again when its width crosses the line between phone and
// desk or when the reader switches between light and dark.
(() => {
  const NARROW = 600;
  const colours = JSON.parse(document.getElementById("dark-colours").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  const merge = (into, from) => {
    for (const [key, value] of Object.entries(from)) {
      const both = [into[key], value].every((x) => x && typeof x === "object" && !Array.isArray(x));
      if (both) merge(into[key], value);
      else into[key] = value;
    }
    return into;
  };

  const recolour = (value) => {
    if (typeof value === "string") return colours[value] ?? value;
    if (Array.isArray(value)) return value.map(recolour);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, x]) => [key, recolour(x)]));
    }
    return value;
  };

  const draw = async (figure) => {
    const width = figure.canvas.clientWidth;
    if (!width || !figure.canvas.checkVisibility()) return; // inside a closed section
    const look = `${width < NARROW ? "narrow" : "wide"} ${dark.matches && !printing}`;
    if (look === figure.look) {
      if (width !== figure.width) window.Plotly.Plots.resize(figure.canvas);
      figure.width = width;
      return;
    }
    figure.look = look;
    figure.width = width;
    let spec = structuredClone({ data: figure.spec.data, layout: figure.spec.layout });
    if (width < NARROW) merge(spec.layout, figure.spec.narrow);
    if (dark.matches && !printing) spec = recolour(spec);
    await window.Plotly.react(figure.canvas, spec.data, spec.layout, { displayModeBar: false });
    figure.canvas.dataset.drawn = look;
  };

  const figures = [...document.querySelectorAll("script.spec")].map((script) => ({
    canvas: document.getElementById(script.dataset.for),
    spec: JSON.parse(script.textContent),
  }));
  if (!figures.length) return;
  const byCanvas = new Map(figures.map((figure) => [figure.canvas, figure]));
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) setTimeout(() => draw(byCanvas.get(target)));
  });
  figures.forEach((figure) => observer.observe(figure.canvas));

  const redraw = () => figures.forEach(draw);
  document.querySelectorAll("details").forEach((x) => x.addEventListener("toggle", redraw));
  dark.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => { printing = true; redraw(); });
  window.addEventListener("afterprint", () => { printing = false; redraw(); });
  const openTarget = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const folded = target && target.querySelector(":scope > details");
    if (folded) folded.open = true;
  };
  window.addEventListener("hashchange", openTarget);
  openTarget();
})();
