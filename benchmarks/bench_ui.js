/* What bench_ui.py does in the page, each timed from the deed to the frame that shows it. */
(() => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const search = () => document.querySelector('[aria-label="Search centroids"]');
  const type = (text) => { search().value = text; search().dispatchEvent(new Event("input")); };
  const key = (name) => document.querySelector(".pf-grid").dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const first = () => document.querySelector(".pf-tile")?.dataset.id;
  const onScreen = (tile) => { const box = tile.getBoundingClientRect(); return box.bottom > 0 && box.top < innerHeight; };
  // A picture that could not be had, or was passed over, has words in its place.
  const decoded = (tile) => { const picture = tile.querySelector("img"); return picture ? picture.complete && picture.naturalWidth : tile.querySelector(".pf-why"); };
  const shown = async (before, all) => {
    for (;;) {
      const tiles = [...document.querySelectorAll(".pf-tile")].filter((tile) => all || onScreen(tile));
      if (tiles.length && tiles[0].dataset.id !== before && tiles.every(decoded)) break;
      await new Promise((done) => requestAnimationFrame(done));
    }
    await frame();
  };
  const timed = async (act, until) => { const start = performance.now(); act(); await until(); return performance.now() - start; };
  const sleep = (time) => new Promise((done) => setTimeout(done, time));

  /* A page of Gradio's own: its gallery's first screen after a click. */
  const gallery = async (open) => {
    const pictures = () => [...document.querySelectorAll("#gallery img")];
    const before = pictures()[0]?.src;
    const start = performance.now();
    open();
    for (;;) {
      const shown = pictures();
      if (shown.length && shown[0].src !== before && shown.filter(onScreen).every((each) => each.complete && each.naturalWidth)) break;
      await new Promise((done) => requestAnimationFrame(done));
    }
    await frame();
    return performance.now() - start;
  };

  window.bench = {
    gallery: () => gallery(() => [...document.querySelectorAll("button")].find((each) => each.textContent.trim() === "Open").click()),
    clear: () => type(""),
    open: (centroid, all) => {
      type(`#${centroid}`);
      const before = first();
      return timed(() => document.querySelector(`.pf-centroid[data-centroid="${centroid}"]`).click(), () => shown(before, all));
    },
    next: () => { const before = first(); return timed(() => key("n"), () => shown(before, false)); },
    verdict: () => timed(() => key("a"), frame),
    filterList: () => ["r", "re", "red", "red ", "red s", ""].map((text) => { const start = performance.now(); type(text); return performance.now() - start; }),
    drawMap: () => timed(() => [...document.querySelectorAll(".pf-map button")].find((each) => each.textContent === "All").click(), frame),
    /* From the end of the next drag with Shift to the frame that lists what lies inside. */
    lassoed: () => new Promise((done) => {
      addEventListener("pointerup", () => { const start = performance.now(); frame().then(() => done(performance.now() - start)); }, { capture: true, once: true });
    }),
    listed: () => document.querySelector(".pf-foot [role=status]").textContent,
    slide: async () => {
      const slider = document.querySelector('[aria-label="Aesthetic, at least, slider"]');
      const times = [];
      for (let step = 0; step < 20; step += 1) {
        slider.value = 3 + step * 0.15;
        times.push(await timed(() => slider.dispatchEvent(new Event("input")), frame));
      }
      return times;
    },
    burst: async (count) => {
      key("Home");
      const start = performance.now();
      for (let place = 0; place < count; place += 1) {
        key(place % 2 ? "r" : "a");
        while (performance.now() < start + (place + 1) * 16) await sleep(1);
      }
      return performance.now() - start;
    },
    ids: (count) => [...document.querySelectorAll(".pf-tile")].slice(0, count).map((tile) => tile.dataset.id),
  };
})();
