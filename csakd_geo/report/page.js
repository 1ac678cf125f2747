"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { axis, lattice, series } = data;
  const rows = lattice.rows.length, cols = lattice.cols.length;
  const NODATA = 65535, MOST = 65534;

  // ---- numbers: deflated, low bytes before high ones, each band as its difference from the one before
  async function unpack(cube) {
    const bytes = Uint8Array.from(atob(cube.data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const plain = new Uint8Array(await new Response(stream).arrayBuffer());
    const n = plain.length / 2, [bands, height, width] = cube.shape, size = height * width;
    const numbers = new Uint16Array(n);
    for (let i = 0; i < n; i++) numbers[i] = (plain[i] | (plain[n + i] << 8)) + (i < size ? 0 : numbers[i - size]);
    const at = (band, row, col) => {
      const q = numbers[band * size + row * width + col];
      return q === NODATA ? null : cube.low[band] + (q / MOST) * (cube.high[band] - cube.low[band]);
    };
    return { bands, at, spectrum: (row, col) => Array.from({ length: bands }, (_, b) => at(b, row, col)) };
  }

  const cubes = {};
  for (const [name, cube] of Object.entries(data.cubes)) cubes[name] = await unpack(cube);
  const maps = [];
  for (const map of data.maps) maps.push({ ...map, values: await unpack(map.cube) });

  // ---- theme
  const root = document.documentElement;
  if (matchMedia("(prefers-color-scheme: dark)").matches) root.classList.add("dark");
  $("theme").onclick = () => root.classList.toggle("dark");

  // ---- charts
  const number = (v, digits = 4) => (v === null ? "–" : String(+v.toPrecision(digits)));
  const svg = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(+v.toPrecision(12));
    return found;
  }
  const finite = (values) => values.filter((v) => v !== null && Number.isFinite(v));

  // lines: {name, x, y, colour, dash, points, half}, half being how far the shaded interval reaches to either side; options: x, y (labels), low, high, shade, rule
  const edge = (line, side) => (line.half || []).map((h, i) => (h === null || line.y[i] === null ? null : line.y[i] + side * h));
  function chart(host, lines, options) {
    const draw = () => {
      const width = host.clientWidth, height = host.clientHeight;
      if (!width) return;
      const box = { left: 58, right: width - 10, top: 26, bottom: height - 42 };
      const xs = finite(lines.flatMap((l) => l.x)), ys = finite(lines.flatMap((l) => [...l.y, ...edge(l, -1), ...edge(l, 1)]));
      const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1e-9);
      let low = options.low ?? Math.min(...ys, 0), high = options.high ?? Math.max(...ys, low + 1e-12);
      if (options.high === undefined) high += (high - low) * 0.05;
      if (options.low === undefined && low < 0) low -= (high - low) * 0.03;
      const X = (v) => box.left + ((v - x0) / (x1 - x0)) * (box.right - box.left);
      const Y = (v) => box.bottom - ((Math.min(Math.max(v, low), high) - low) / (high - low)) * (box.bottom - box.top);
      const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
      for (const [a, b] of options.shade || [])
        picture.append(svg("rect", { x: X(Math.max(a, x0)), y: box.top, width: Math.max(1, X(Math.min(b, x1)) - X(Math.max(a, x0))), height: box.bottom - box.top, fill: options.tint || "var(--band)" }));
      for (const v of ticks(low, high, Math.max(3, (box.bottom - box.top) / 60))) {
        picture.append(svg("line", { x1: box.left, x2: box.right, y1: Y(v), y2: Y(v), class: "rule" }));
        picture.append(svg("text", { x: box.left - 8, y: Y(v) + 4, "text-anchor": "end" }, number(v, 6)));
      }
      for (const v of ticks(x0, x1, Math.max(3, width / 100)))
        picture.append(svg("text", { x: X(v), y: box.bottom + 18, "text-anchor": "middle" }, number(v, 6)));
      picture.append(svg("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "base" }));
      picture.append(svg("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, options.x));
      if (options.y) picture.append(svg("text", { x: 0, y: 12 }, options.y));
      if (options.rule !== undefined)
        picture.append(svg("line", { x1: box.left, x2: box.right, y1: Y(options.rule), y2: Y(options.rule), stroke: "var(--bad)", "stroke-dasharray": "4 4" }));
      for (const line of lines) {
        if (line.points) {
          line.x.forEach((v, i) => {
            if (v !== null && line.y[i] !== null)
              picture.append(svg("circle", { cx: X(v), cy: Y(line.y[i]), r: 5, fill: line.colour, stroke: "var(--panel)", "stroke-width": 1.5 }));
          });
          continue;
        }
        const gap = Math.max(...[5 * typical(line.x), 1e-9]);
        const runs = [];
        line.x.forEach((v, i) => {
          if (line.y[i] === null) return;
          const last = runs.at(-1)?.at(-1);
          if (last !== i - 1 || v - line.x[last] > gap) runs.push([i]); else runs.at(-1).push(i);
        });
        const trace = (run, y) => run.map((i, k) => `${k ? "L" : "M"}${X(line.x[i]).toFixed(1)} ${Y(y[i]).toFixed(1)}`).join("");
        if (line.half) {
          const [below, above] = [edge(line, -1), edge(line, 1)];
          for (const run of runs.map((r) => r.filter((i) => line.half[i] !== null)))
            if (run.length) picture.append(svg("path", { d: trace(run, above) + trace([...run].reverse(), below).replace("M", "L") + "Z", class: "interval", fill: line.colour }));
        }
        const path = runs.map((run) => trace(run, line.y)).join("");
        picture.append(svg("path", { d: path, class: "line" + (line.dash ? " dash" : ""), stroke: line.colour }));
      }
      legend(picture, lines.filter((l) => l.name), box);
      hover(picture, lines, options, box, x0, x1, X);
      host.replaceChildren(picture);
    };
    host.redraw = draw;
    draw();
  }
  function typical(x) {
    const steps = finite(x.slice(1).map((v, i) => v - x[i])).sort((a, b) => a - b);
    return steps.length ? steps[Math.floor(steps.length / 2)] : 0;
  }
  function legend(picture, lines, box) {
    let right = box.right;
    for (const line of [...lines].reverse()) {
      right -= line.name.length * 6.7 + 3;
      picture.append(svg("text", { x: right, y: 12 }, line.name));
      right -= 6;
      picture.append(line.points
        ? svg("circle", { cx: right - 5, cy: 8, r: 4.5, fill: line.colour })
        : svg("line", { x1: right - 18, x2: right, y1: 8, y2: 8, stroke: line.colour, class: "line" + (line.dash ? " dash" : "") }));
      right -= line.points ? 22 : 34;
    }
  }
  function hover(picture, lines, options, box, x0, x1, X) {
    const main = lines.find((l) => !l.points);
    const cross = svg("line", { y1: box.top, y2: box.bottom, class: "cross", visibility: "hidden" });
    const label = svg("text", { y: box.top + 14, visibility: "hidden", style: "fill: var(--ink); paint-order: stroke; stroke: var(--panel); stroke-width: 5px" });
    picture.append(cross, label);
    picture.onpointermove = (event) => {
      const v = x0 + ((event.offsetX - box.left) / (box.right - box.left)) * (x1 - x0);
      let best = 0;
      main.x.forEach((x, i) => { if (Math.abs(x - v) < Math.abs(main.x[best] - v)) best = i; });
      const px = X(main.x[best]), left = px > (box.left + box.right) / 2;
      for (const node of [cross, label]) node.setAttribute("visibility", "visible");
      cross.setAttribute("x1", px); cross.setAttribute("x2", px);
      label.setAttribute("x", left ? px - 7 : px + 7);
      label.setAttribute("text-anchor", left ? "end" : "start");
      const told = lines.filter((l) => !l.points && l.x.length === main.x.length).map((l) => `${l.name || ""} ${number(l.y[best])}${l.half ? ` ± ${number(l.half[best], 2)}` : ""}`);
      label.textContent = `${number(main.x[best], 5)}: ${told.join(" · ")}`;
    };
    picture.onpointerleave = () => { for (const node of [cross, label]) node.setAttribute("visibility", "hidden"); };
  }

  // ---- bands that the MSI cannot support, as stretches of the axis
  const half = Math.max(0.5, typical(axis.x) / 2);
  const stretches = (flags) => flags.reduce((all, flag, i) => {
    const last = all.at(-1), [a, b] = [axis.x[i] - half, axis.x[i] + half];
    if (flag) { if (last && a <= last[1] + half) last[1] = b; else all.push([a, b]); }
    return all;
  }, []);
  const merged = stretches(series.support.map((v) => v !== null && v < series.supported));

  // ---- slider
  const stage = $("stage"), divider = $("divider");
  let view = data.views[0], cut = 50;
  function setCut(value) {
    cut = Math.min(100, Math.max(0, value));
    stage.style.setProperty("--cut", cut + "%");
    divider.setAttribute("aria-valuenow", Math.round(cut));
  }
  function show() {
    const [left, right] = [$("left").value, $("right").value];
    $("over").src = view.images[left]; $("over").alt = left;
    $("under").src = view.images[right]; $("under").alt = right;
    $("tag-left").textContent = left; $("tag-right").textContent = right;
    const own = view.msi_caption !== view.caption && [left, right].includes("MSI") ? ` MSI: ${view.msi_caption}.` : "";
    $("caption").textContent = `${view.caption[0].toUpperCase()}${view.caption.slice(1)}.${own} Drag the divider.`;
    for (const tab of $("tabs").children) tab.setAttribute("aria-selected", tab.textContent === view.name);
  }
  for (const each of data.views) {
    const tab = document.createElement("button");
    tab.type = "button"; tab.textContent = each.name; tab.setAttribute("role", "tab");
    tab.onclick = () => { view = each; show(); };
    $("tabs").append(tab);
  }
  for (const [id, wanted] of [["left", "HSI"], ["right", "Fused"]]) {
    for (const name of Object.keys(view.images)) $(id).append(new Option(name, name, name === wanted, name === wanted));
    $(id).onchange = show;
  }
  divider.onpointerdown = (event) => { divider.setPointerCapture(event.pointerId); event.preventDefault(); divider.focus(); };
  divider.onpointermove = (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    const box = stage.getBoundingClientRect();
    setCut((100 * (event.clientX - box.left)) / box.width);
  };
  divider.onkeydown = (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
    if (step) { setCut(cut + step); event.preventDefault(); event.stopPropagation(); }
  };

  // ---- pixel
  const spots = [{ host: stage, mark: $("mark") }];
  let row = rows >> 1, col = Math.floor(cols * 0.7);
  const nearest = (list, v) => list.reduce((best, x, i) => (Math.abs(x - v) < Math.abs(list[best] - v) ? i : best), 0);
  const under = (host, event) => {
    const box = host.getBoundingClientRect();
    return [
      nearest(lattice.rows, ((event.clientY - box.top) / box.height) * lattice.height),
      nearest(lattice.cols, ((event.clientX - box.left) / box.width) * lattice.width),
    ];
  };
  function select(newRow, newCol) {
    row = Math.min(rows - 1, Math.max(0, newRow)); col = Math.min(cols - 1, Math.max(0, newCol));
    const v = lattice.rows[row], u = lattice.cols[col], [a, b, c, d, e, f] = lattice.transform;
    for (const { mark } of spots) {
      mark.hidden = false;
      mark.style.left = (100 * u) / lattice.width + "%"; mark.style.top = (100 * v) / lattice.height + "%";
    }
    const x = a * u + b * v + c, y = d * u + e * v + f;
    $("place").textContent = `row ${Math.floor(v) + 1}, column ${Math.floor(u) + 1} · ${number(x, 9)}, ${number(y, 9)}`;
    const spectra = {
      Fused: cubes.fused.spectrum(row, col),
      HSI: cubes.hsi.spectrum(lattice.cell_row[row], lattice.cell_col[col]),
      ...(cubes.truth ? { Truth: cubes.truth.spectrum(row, col) } : {}),
    };
    if (cubes.amplitude) {
      const amplitude = cubes.amplitude.at(0, row, col);
      spectra.Sigma = series.alpha.map((v, i) => (v === null || amplitude === null ? null : Math.sqrt(v + series.beta[i] * amplitude ** 2)));
    }
    const lines = [
      { name: "HSI", x: axis.x, y: spectra.HSI, colour: "var(--hsi)" },
      ...(spectra.Truth ? [{ name: "Truth", x: axis.x, y: spectra.Truth, colour: "var(--truth)", dash: true }] : []),
      { name: "Fused", x: axis.x, y: spectra.Fused, colour: "var(--fused)", half: spectra.Sigma?.map((v) => (v === null ? null : series.tail * v)) },
    ];
    if (axis.nm && data.msi_axis.every((nm) => nm !== null)) {
      const inside = data.msi_axis.map((nm) => (nm >= axis.x[0] && nm <= axis.x.at(-1) ? nm : null));
      lines.push({ name: "MSI, in HSI units", x: inside, y: cubes.msi.spectrum(row, col), colour: "var(--msi)", points: true });
    }
    chart($("spectrum"), lines, { x: axis.label, y: axis.units, shade: merged });
    $("readings").textContent = maps.map((m) => `${m.name} ${number(m.values.at(0, row, col), 3)} ${m.unit}`.replace(" °", "°")).join(" · ");
    const head = ["band", axis.nm ? "wavelength_nm" : "number", ...Object.keys(spectra).map((s) => s.toLowerCase())];
    const table = axis.band.map((band, i) => [band, axis.x[i], ...Object.values(spectra).map((s) => s[i] ?? "")].join(","));
    $("csv").href = "data:text/csv," + encodeURIComponent([head.join(","), ...table].join("\n"));
    window.selection = { row: Math.floor(v), col: Math.floor(u), x, y, spectra };
  }
  stage.addEventListener("click", (event) => { if (!divider.contains(event.target)) select(...under(stage, event)); });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || /SELECT|BUTTON|SUMMARY/.test(event.target.tagName) || event.ctrlKey || event.altKey || event.metaKey) return;
    if (!stage.matches(":hover") && !spots.some((s) => s.host.matches(":hover"))) return;
    select(row + step[0], col + step[1]);
    event.preventDefault();
  });

  // ---- maps
  const INFERNO = ["#000004", "#160b39", "#420a68", "#6a176e", "#932667", "#bc3754", "#dd513a", "#f37819", "#fca50a", "#f6d746", "#fcffa4"]
    .map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const ramp = (t) => {
    const at = Math.min(Math.max(t, 0), 1) * (INFERNO.length - 1), k = Math.min(Math.floor(at), INFERNO.length - 2);
    return INFERNO[k].map((v, i) => v + (at - k) * (INFERNO[k + 1][i] - v));
  };
  for (const map of maps) {
    const figure = document.createElement("figure");
    figure.innerHTML = '<figcaption><b></b><span></span></figcaption><div class="map"><canvas></canvas><div class="mark"></div></div><div class="scale"><span>0</span><i></i><span></span><output></output></div>';
    figure.querySelector("b").textContent = map.name;
    figure.querySelector("figcaption span").textContent = map.text;
    const canvas = figure.querySelector("canvas"), host = figure.querySelector(".map"), output = figure.querySelector("output");
    canvas.width = cols; canvas.height = rows;
    const image = new ImageData(cols, rows);
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < cols; j++) {
        const v = map.values.at(0, i, j);
        image.data.set(v === null ? [0, 0, 0, 0] : [...ramp(v / map.top), 255], 4 * (i * cols + j));
      }
    canvas.getContext("2d").putImageData(image, 0, 0);
    figure.querySelector("i").style.background = `linear-gradient(90deg, ${INFERNO.map((c) => `rgb(${c})`)})`;
    figure.querySelector(".scale span:nth-of-type(2)").textContent = `${number(map.top, 3)} ${map.unit}`.replace(" °", "°");
    host.onclick = (event) => select(...under(host, event));
    host.onpointermove = (event) => { output.textContent = `${number(map.values.at(0, ...under(host, event)), 3)} ${map.unit}`.replace(" °", "°"); };
    host.onpointerleave = () => { output.textContent = ""; };
    spots.push({ host, mark: figure.querySelector(".mark") });
    $("maps").append(figure);
  }

  // ---- band by band, and what was found
  const top = (values) => {
    const sorted = finite(values).sort((a, b) => a - b);
    return sorted.length ? Math.min(sorted.at(-1), 3 * sorted[Math.floor(sorted.length * 0.95)]) * 1.08 : 1;
  };
  const charts = () => {
    chart($("chart-hsi"), [
      { name: "HSI's noise", x: axis.x, y: series.noise, colour: "var(--hsi)" },
      { name: "difference", x: axis.x, y: series.hsi, colour: "var(--fused)" },
    ], { x: axis.label, y: "%", low: 0, high: top([...series.hsi, ...series.noise]) || 1 });
    $("figure-sigma").parentElement.classList.toggle("four", Boolean(series.sigma && series.psnr));
    $("interval").hidden = $("figure-sigma").hidden = !series.sigma;
    if (series.sigma) chart($("chart-sigma"), [{ x: axis.x, y: series.sigma, colour: "var(--fused)" }],
      { x: axis.label, y: "%", low: 0, high: top(series.sigma), shade: stretches(series.informed.map((v) => !v)) });
    chart($("chart-support"), [{ x: axis.x, y: series.support, colour: "var(--fused)" }],
      { x: axis.label, low: 0, high: 1, rule: series.supported, shade: merged });
    if (series.psnr) chart($("chart-psnr"), [{ x: axis.x, y: series.psnr, colour: "var(--truth)" }], { x: axis.label, y: "dB", low: Math.min(0, ...finite(series.psnr)) || 5 * Math.floor(Math.min(...finite(series.psnr)) / 5), shade: merged });
    else $("figure-psnr").hidden = true;
    const few = series.srf_names.join("   ").length < 40;
    const hues = series.srf.map((_, k) => `hsl(${(250 - (290 * k) / Math.max(1, series.srf.length - 1) + 360) % 360} 62% 52%)`);
    chart($("chart-srf"), series.srf.map((y, k) => ({ name: few ? series.srf_names[k] : "", x: axis.x, y, colour: hues[k] })), { x: axis.label, low: 0 });
    chart($("chart-psf"), [
      { name: "down", x: series.psf.at, y: series.psf.y, colour: "var(--msi)", dash: true },
      { name: "right", x: series.psf.at, y: series.psf.x, colour: "var(--fused)" },
    ], { x: "MSI pixels from the HSI pixel's centre", low: 0, shade: [[-series.psf.half, series.psf.half]], tint: "var(--grid)" });
  };

  // ---- sizes follow the window
  function fit() {
    const aspect = lattice.width / lattice.height;
    for (const { host } of spots) {
      const room = host.parentElement.clientWidth - (host === stage ? 36 : 0), tallest = host === stage ? Math.max(320, innerHeight * 0.75) : 420;
      const width = Math.min(room, tallest * aspect);
      host.style.width = width + "px"; host.style.height = width / aspect + "px";
    }
    for (const host of document.querySelectorAll(".chart")) if (host.redraw) host.redraw();
  }
  setCut(50);
  show();
  charts();
  select(row, col);
  fit();
  addEventListener("resize", fit);
  root.dataset.ready = "yes";
})().catch((error) => {
  console.error(error);
  document.querySelector("main").insertAdjacentHTML("afterbegin", '<ul class="warnings"><li>This page needs a browser of 2023 or later to show its data.</li></ul>');
});
