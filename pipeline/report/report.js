"use strict";
// The map of words: pan, zoom, search, and the nearest words of a word. All text from the data is set as text, never as HTML.
(() => {
  const source = document.getElementById("words");
  if (!source) return;
  const { words, xy, near, cosines, counts } = JSON.parse(source.textContent);
  const canvas = document.getElementById("canvas"), panel = document.getElementById("near");
  const search = document.getElementById("search"), found = document.getElementById("found");
  const pen = canvas.getContext("2d");
  let width = 1, height = 1, scale = 1, left = 0, top = 0, pointed = -1, chosen = -1, colours = {};
  const at = (i) => [xy[i][0] * scale + left, xy[i][1] * scale + top];

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["paper", "card", "ink", "soft", "line", "accent", "warn"]) colours[name] = style.getPropertyValue("--" + name).trim();
  }
  const ends = [0, 1].map((axis) => xy.reduce(([low, high], spot) => [Math.min(low, spot[axis]), Math.max(high, spot[axis])], [10000, 0]));
  const fit = () => Math.min((width - 56) / Math.max(1, ends[0][1] - ends[0][0]), (height - 40) / Math.max(1, ends[1][1] - ends[1][0]));
  function showAll() {
    scale = Math.max(1e-6, fit());
    left = width / 2 - (ends[0][0] + ends[0][1]) / 2 * scale - 8;
    top = height / 2 - (ends[1][0] + ends[1][1]) / 2 * scale;
    draw();
  }
  function resize() {
    const box = canvas.getBoundingClientRect(), dense = window.devicePixelRatio || 1;
    if (!box.width) return;
    const before = [width, height];
    [width, height] = [box.width, box.height];
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    if (before[0] === 1) showAll();
    else { left += (width - before[0]) / 2; top += (height - before[1]) / 2; draw(); }
  }
  function draw() {
    pen.clearRect(0, 0, width, height);
    const size = Math.max(1.2, Math.min(4, scale * 40)), centre = chosen >= 0 ? chosen : pointed;
    const close = new Set(centre >= 0 ? near[centre] : []);
    pen.fillStyle = colours.accent;
    for (let i = words.length - 1; i >= 0; i--) {
      // Frequent words are larger and darker.
      const [x, y] = at(i), rare = i / words.length;
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
      pen.globalAlpha = 0.75 - 0.4 * rare;
      pen.beginPath();
      pen.arc(x, y, size * (1.5 - 0.6 * Math.sqrt(rare)), 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (centre >= 0) {
      pen.strokeStyle = colours.warn;
      pen.globalAlpha = 0.5;
      for (const i of close) {
        pen.beginPath();
        pen.moveTo(...at(centre));
        pen.lineTo(...at(i));
        pen.stroke();
      }
      pen.globalAlpha = 1;
    }
    label(centre, close, size);
  }
  function label(centre, close, size) {
    // The most frequent words first; a label that would overlap another is left out, so zooming in shows more of them.
    const taken = new Set(), cell = 24;
    const special = centre >= 0 ? [centre, ...close] : [], last = [];
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    let shown = 0;
    const write = ([i, x, y, font, colour]) => {
      pen.font = font;
      pen.lineWidth = 3;
      pen.strokeStyle = colours.card;
      pen.strokeText(words[i], x, y);
      pen.fillStyle = colour;
      pen.fillText(words[i], x, y);
    };
    for (const i of [...special, ...words.keys()]) {
      const [x, y] = at(i), is = special.includes(i);
      if (x < 0 || y < 0 || x > width || y > height || (is && shown >= special.length)) continue;
      const common = i < 200;
      const font = (i === centre ? "600 14px " : is ? "500 13px " : common ? "500 12.5px " : "11.5px ") + "system-ui, sans-serif";
      pen.font = font;
      const wide = pen.measureText(words[i]).width, cells = [];
      const x0 = x + size + 3 + wide > width - 4 ? x - size - 4 - wide : x + size + 3;
      for (let c = Math.floor(x0 / cell); c <= Math.floor((x0 + wide) / cell); c++)
        for (let r = Math.floor((y - 7) / cell); r <= Math.floor((y + 7) / cell); r++) cells.push(c + "," + r);
      if (!is && cells.some((key) => taken.has(key))) continue;
      for (const key of cells) taken.add(key);
      const label = [i, x0, y, font, i === centre ? colours.warn : is || common ? colours.ink : colours.soft];
      if (is) last.unshift(label);
      else write(label);
      if (++shown > 400) break;
    }
    last.forEach(write);
  }
  function nearestTo(x, y, reach) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < words.length; i++) {
      const [px, py] = at(i), distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }
  function show(i) {
    panel.replaceChildren();
    const head = panel.appendChild(document.createElement("h3")), list = document.createElement("ol");
    if (i < 0) { head.textContent = "Nearest words"; return; }
    head.appendChild(document.createElement("bdi")).textContent = words[i];
    if (counts.length) panel.appendChild(document.createElement("p")).textContent = counts[i].toLocaleString("en") + " times, rank " + (i + 1).toLocaleString("en");
    near[i].forEach((other, k) => {
      const line = list.appendChild(document.createElement("li")), button = line.appendChild(document.createElement("button"));
      button.type = "button";
      button.appendChild(document.createElement("bdi")).textContent = words[other];
      button.addEventListener("click", () => choose(other, true));
      line.appendChild(document.createElement("span")).textContent = (cosines[i][k] / 100).toFixed(2);
    });
    panel.appendChild(list);
  }
  function choose(i, centred) {
    chosen = i;
    if (i >= 0 && centred) {
      scale = Math.max(scale, fit() * 4);
      left = width / 2 - xy[i][0] * scale;
      top = height / 2 - xy[i][1] * scale;
    }
    show(i);
    draw();
  }
  function zoom(factor, x = width / 2, y = height / 2) {
    const least = Math.max(1e-6, fit() * 0.7);
    factor = Math.max(least, Math.min(least * 120, scale * factor)) / scale;
    left = x - (x - left) * factor;
    top = y - (y - top) * factor;
    scale *= factor;
    draw();
  }

  const fingers = new Map();
  let moved = false;
  const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, place(event)); moved = false; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), before = fingers.get(event.pointerId);
    if (!before) {
      const i = nearestTo(x, y, 18);
      if (i !== pointed) { pointed = i; if (chosen < 0) { if (i >= 0) show(i); draw(); } }
      canvas.classList.toggle("over", i >= 0);
      return;
    }
    if (Math.hypot(x - before[0], y - before[1]) > 3) moved = true;
    if (!moved) return;
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, spot]) => spot);
    if (others.length) zoom(Math.hypot(x - others[0][0], y - others[0][1]) / Math.max(1, Math.hypot(before[0] - others[0][0], before[1] - others[0][1])), others[0][0], others[0][1]);
    else { left += x - before[0]; top += y - before[1]; draw(); }
    fingers.set(event.pointerId, [x, y]);
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => {
    if (fingers.delete(event.pointerId) && !moved && kind === "pointerup") choose(nearestTo(...place(event), event.pointerType === "mouse" ? 18 : 30), false);
  });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...place(event)); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = 60, keys = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (keys[event.key]) { left += keys[event.key][0]; top += keys[event.key][1]; draw(); }
    else if (event.key === "+" || event.key === "=") zoom(1.3);
    else if (event.key === "-") zoom(1 / 1.3);
    else if (event.key === "Enter") choose(nearestTo(width / 2, height / 2, Math.max(width, height)), false);
    else if (event.key === "Escape") choose(-1, false);
    else return;
    event.preventDefault();
  });
  document.getElementById("zoom-in").addEventListener("click", () => zoom(1.5));
  document.getElementById("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  document.getElementById("zoom-all").addEventListener("click", () => { chosen = -1; show(-1); showAll(); });
  search.addEventListener("input", () => {
    const asked = search.value.normalize("NFC").toLowerCase();
    if (!asked) { found.textContent = ""; choose(-1, false); return; }
    const lower = words.map((word) => word.toLowerCase());
    let i = lower.indexOf(asked);
    if (i < 0) i = lower.findIndex((word) => word.startsWith(asked));
    const count = lower.filter((word) => word.startsWith(asked)).length;
    found.textContent = i < 0 ? "not on this map" : count === 1 ? "1 word found" : count + " words found";
    choose(i, true);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
  readColours();
  new ResizeObserver(resize).observe(canvas);
  resize();
})();
