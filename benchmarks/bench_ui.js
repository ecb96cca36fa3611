/* What bench_ui.py does in the page, each timed from the deed to the frame that shows it. */
(() => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const search = () => document.querySelector('[aria-label="Search centroids"]');
  const type = (text) => { search().value = text; search().dispatchEvent(new Event("input")); };
  const key = (name) => document.querySelector(".pf-grid").dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const first = () => document.querySelector(".pf-tile")?.dataset.id;
  const onScreen = (tile) => { const box = tile.getBoundingClientRect(); return box.bottom > 0 && box.top < innerHeight; };
  const decoded = (tile) => { const picture = tile.querySelector("img"); return picture && picture.complete && picture.naturalWidth; };
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

  window.bench = {
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
