/* The board's pages. One classic script.

   Text from a pool is hostile: everything on the screen is made by el(), which sets textContent and
   attributes, never markup. Ids are decimal strings: a number here holds 53 bits. */
"use strict";

window.Popfactory = (() => {
  // ------------------------------------------------------------------ small tools

  const el = (tag, options = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "text") node.textContent = value;
      else if (name === "class") node.className = value;
      else if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const fill = (node, ...children) => node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  const clip = (text, length) => (text && text.length > length ? `${text.slice(0, length)}…` : text || "");
  const count = (number) => number.toLocaleString("en");
  const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const button = (label, key, title, action, extra = "") =>
    el("button", { type: "button", class: `pf-button ${extra}`, title, on: { click: action } }, label,
      key ? el("kbd", { text: key }) : null);
  const remembered = (name, otherwise) => {
    try { return localStorage.getItem(name) ?? otherwise; } catch { return otherwise; }
  };
  const remember = (name, value) => {
    try { localStorage.setItem(name, value); return true; } catch { return false; }
  };
  const forget = (name) => { try { localStorage.removeItem(name); } catch { /* nothing was kept */ } };

  // ------------------------------------------------------------------ state

  const state = {
    base: "",
    run: null,
    centroids: [],
    centroid: null,
    rows: [],
    shown: [],
    limit: 200,
    cursor: null,
    ticked: new Set(),
    revealed: new Set(),
    filters: {},
    show: "passing",
    sort: "rank",
    search: "",
    centroidSort: "id",
    lastEvent: 0,
    jobs: [],
    waiting: [],
    history: [],
    notice: "",
  };
  const listeners = {};
  const on = (topic, listener) => (listeners[topic] ??= []).push(listener);
  const tell = (...topics) => topics.forEach((topic) => (listeners[topic] || []).forEach((listener) => listener()));

  // ------------------------------------------------------------------ the server

  const get = async (path) => {
    const reply = await fetch(`${state.base}${path}`, { headers: { Accept: "application/json" } });
    const content = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(content.error || `the board's server answered ${reply.status}`);
    return content;
  };
  const post = async (path, body) => {
    const reply = await fetch(`${state.base}${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Popfactory": "1" },
      body: JSON.stringify(body),
    });
    const content = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(content.error || `the board's server answered ${reply.status}`);
    return content;
  };
  const thumbnail = (sha256, blurred) => `${state.base}/thumb/${sha256}${blurred ? ".blurred" : ""}.webp`;
  const notice = (text) => { state.notice = text; tell("notice"); };

  // ------------------------------------------------------------------ the address is the view

  const FILTERS = [
    { name: "side_px", label: "Shorter side", word: "small", bound: "min", digits: 0, step: 1, of: (row) => side(row) },
    { name: "pwatermark", label: "Watermark", word: "watermark", bound: "max", digits: 2, step: 0.01, of: (row) => row.pwatermark, range: [0, 1] },
    { name: "punsafe", label: "Unsafe", word: "unsafe", bound: "max", digits: 2, step: 0.01, of: (row) => row.punsafe, range: [0, 1] },
    { name: "aesthetic", label: "Aesthetic", word: "low aesthetic", bound: "min", digits: 1, step: 0.1, of: (row) => row.aesthetic },
    { name: "similarity", label: "Similarity", word: "low similarity", bound: "min", digits: 3, step: 0.001, of: (row) => row.similarity, viewOnly: true },
  ];
  const SORTS = { rank: "similarity", aesthetic: "aesthetic", side: "size" };
  const SHOWS = {
    passing: "passing the filters",
    open: "passing, undecided",
    selected: "selected by the last run",
    decided: "decided by people",
    all: "everything found",
  };
  const side = (row) => (row.width && row.height ? Math.min(row.width, row.height) : null);
  const defaults = () => ({
    side_px: state.run.filters.side_px, pwatermark: state.run.filters.pwatermark,
    punsafe: state.run.filters.punsafe, aesthetic: state.run.filters.aesthetic,
    similarity: null, unknown: state.run.filters.unknown,
  });

  const readAddress = () => {
    const query = new URLSearchParams(location.search);
    state.filters = defaults();
    for (const given of query.getAll("f")) {
      const [name, value = ""] = given.split(":");
      if (name === "unknown" && (value === "keep" || value === "drop")) state.filters.unknown = value;
      const filter = FILTERS.find((candidate) => candidate.name === name);
      if (!filter) continue;
      const number = Number.parseFloat(value.replaceAll("..", ""));
      state.filters[name] = Number.isFinite(number) ? number : null;
    }
    state.show = Object.hasOwn(SHOWS, query.get("show")) ? query.get("show") : "passing";
    state.sort = Object.hasOwn(SORTS, query.get("sort")) ? query.get("sort") : "rank";
    state.search = query.get("cq") || "";
    state.centroidSort = query.get("csort") || "id";
    return query.get("centroid");
  };

  const writeAddress = () => {
    const query = new URLSearchParams(location.search);
    for (const name of ["centroid", "f", "show", "sort", "cq", "csort"]) query.delete(name);
    if (state.centroid !== null) query.set("centroid", state.centroid);
    const usual = defaults();
    for (const filter of FILTERS) {
      const value = state.filters[filter.name];
      if (value === usual[filter.name]) continue;
      query.append("f", `${filter.name}:${value === null ? "off" : filter.bound === "min" ? `${value}..` : `..${value}`}`);
    }
    if (state.filters.unknown !== usual.unknown) query.append("f", `unknown:${state.filters.unknown}`);
    if (state.show !== "passing") query.set("show", state.show);
    if (state.sort !== "rank") query.set("sort", state.sort);
    if (state.search) query.set("cq", state.search);
    if (state.centroidSort !== "id") query.set("csort", state.centroidSort);
    const text = query.toString().replaceAll("%3A", ":");
    history.replaceState(history.state, "", text ? `?${text}` : location.pathname);
  };

  // ------------------------------------------------------------------ filters, exactly as spine/filters.py

  const fails = (row, filter) => {
    const limit = state.filters[filter.name];
    if (limit === null || limit === undefined) return false;
    const value = filter.of(row);
    if (value === null || value === undefined) return state.filters.unknown === "drop";
    return filter.bound === "min" ? value < limit : value > limit;
  };
  const firstFailed = (row) => FILTERS.find((filter) => fails(row, filter)) || null;

  const funnel = () => {
    const ready = state.rows.filter((row) => row.state === "ready");
    const taken = new Map(FILTERS.map((filter) => [filter.name, 0]));
    let passed = 0;
    for (const row of ready) {
      const failed = firstFailed(row);
      if (failed) taken.set(failed.name, taken.get(failed.name) + 1);
      else passed += 1;
    }
    return { found: state.rows.length, ready: ready.length, taken, passed };
  };

  const refresh = () => {
    const keepers = {
      passing: (row) => (row.state === "pending" ? false : row.state !== "ready" || row.decision || !firstFailed(row)),
      open: (row) => row.state === "ready" && !row.decision && !firstFailed(row),
      selected: (row) => row.verdict === "selected",
      decided: (row) => Boolean(row.decision),
      all: () => true,
    };
    const orders = {
      rank: (a, b) => a.rank - b.rank,
      aesthetic: (a, b) => (b.aesthetic ?? -1e9) - (a.aesthetic ?? -1e9) || a.rank - b.rank,
      side: (a, b) => (side(b) ?? -1) - (side(a) ?? -1) || a.rank - b.rank,
    };
    state.shown = state.rows.filter(keepers[state.show]).sort(orders[state.sort]);
    if (!state.shown.some((row) => row.id === state.cursor)) state.cursor = state.shown.length ? state.shown[0].id : null;
    tell("grid", "cursor", "filters", "status");
  };

  // ------------------------------------------------------------------ decisions: drawn at once, sent in order

  const client = crypto.getRandomValues(new Uint32Array(4)).reduce((text, part) => text + part.toString(16).padStart(8, "0"), "");
  const queue = { events: [], next: 1, busy: false, wait: 0, trouble: "", kept: true };
  const queueName = () => `popfactory.queue.${state.run.run_id}.${client}`;
  const keepQueue = () => {
    if (queue.events.length) queue.kept = remember(queueName(), JSON.stringify(queue.events));
    else forget(queueName());
    tell("saving");
  };
  const curator = () => remembered("popfactory.curator", "") || "curator";

  const enqueue = (event) => {
    queue.events.push({ seq: queue.next, centroid_id: state.centroid, last_seen: state.lastEvent, ...event });
    queue.next += 1;
    keepQueue();
    send();
  };

  const send = async () => {
    if (queue.busy || !queue.events.length) return;
    queue.busy = true;
    const batch = queue.events.slice(0, 500);
    try {
      const answer = await post("/api/decisions", { client, curator: curator(), events: batch });
      const last = batch[batch.length - 1].seq;
      queue.events = queue.events.filter((event) => event.seq > last);
      queue.wait = 0;
      queue.trouble = "";
      settle(answer);
    } catch (error) {
      queue.wait = Math.min(queue.wait ? queue.wait * 2 : 500, 10_000);
      queue.trouble = error.message;
    }
    queue.busy = false;
    keepQueue();
    if (queue.events.length) setTimeout(send, queue.wait);
  };

  // Events an earlier page could not send. Sending them twice changes nothing: client and number are theirs.
  const adoptQueues = async () => {
    const prefix = `popfactory.queue.${state.run.run_id}.`;
    for (const name of Object.keys(localStorage).filter((key) => key.startsWith(prefix) && key !== queueName())) {
      const content = remembered(name, "[]");
      try {
        const events = JSON.parse(content);
        if (events.length) await post("/api/decisions", { client: name.slice(prefix.length), curator: curator(), events });
        if (remembered(name, "") === content) forget(name);
      } catch (error) {
        notice(`decisions of an earlier page are not saved yet: ${error.message}`);
      }
    }
  };

  // What the server says of these pictures now, unless a later decision is still on its way.
  const settle = (answer) => {
    const pending = new Set(queue.events.flatMap((event) => event.ids || []));
    const undoing = queue.events.some((event) => event.action === "undo");
    for (const [id, verdict] of Object.entries(answer.verdicts || {})) {
      const row = state.rows.find((candidate) => candidate.id === id);
      if (!row || pending.has(id) || undoing) continue;
      if (row.decision !== verdict.decision) setDecision(row, verdict.decision);
      row.curator = verdict.curator;
    }
    if (!queue.events.length) {
      for (const centroid of state.centroids) [centroid.kept, centroid.rejected] = answer.counts[centroid.centroid] || [0, 0];
    }
    state.lastEvent = answer.last_event;
    if (answer.conflicts.length) {
      const [first] = answer.conflicts;
      notice(`${count(answer.conflicts.length)} left as decided by ${clip(first.curator, 40)} meanwhile; decide again to overrule.`);
    }
    tell("centroids", "status");
  };

  const setDecision = (row, decision) => {
    const centroid = state.centroids.find((candidate) => candidate.centroid === state.centroid);
    if (centroid) {
      for (const [action, field] of [["keep", "kept"], ["reject", "rejected"]]) {
        if (row.decision === action) centroid[field] -= 1;
        if (decision === action) centroid[field] += 1;
      }
    }
    row.decision = decision;
    row.curator = decision ? curator() : null;
    drawTile(row);
  };

  const targets = () => {
    const chosen = state.ticked.size ? state.shown.filter((row) => state.ticked.has(row.id)) : state.shown.filter((row) => row.id === state.cursor);
    return chosen.filter((row) => row.state !== "blocked");
  };

  const decide = (action) => {
    const rows = targets();
    if (!rows.length) return;
    const single = !state.ticked.size;
    const changing = action === "clear" ? rows.filter((row) => row.decision) : rows;
    if (changing.length) {
      state.history.push(changing.map((row) => [row.id, row.decision]));
      enqueue({ action, ids: changing.map((row) => row.id) });
      for (const row of changing) setDecision(row, action === "clear" ? null : action);
    }
    if (single) move(1);
    else untick();
    tell("centroids", "status", "cursor");
  };

  const undo = () => {
    for (const [id, decision] of state.history.pop() || []) {
      const row = state.rows.find((candidate) => candidate.id === id);
      if (row) setDecision(row, decision);
    }
    enqueue({ action: "undo", ids: [] });
    tell("centroids", "status", "cursor");
  };

  // ------------------------------------------------------------------ cursor, ticks, reveal

  const rowAt = () => state.shown.findIndex((row) => row.id === state.cursor);
  const place = (id) => { state.cursor = id; tell("cursor"); };
  const move = (steps) => {
    const next = rowAt() + steps;
    if (!state.shown.length || next < 0 || next >= state.shown.length) return;
    if (next >= state.limit) { state.limit = Math.min(next + 200, 1000); tell("grid"); }
    place(state.shown[next].id);
  };
  const tick = (id) => {
    if (state.ticked.has(id)) state.ticked.delete(id);
    else state.ticked.add(id);
    drawTile(state.rows.find((row) => row.id === id));
    tell("status");
  };
  const untick = () => {
    const before = [...state.ticked];
    state.ticked.clear();
    for (const id of before) drawTile(state.rows.find((row) => row.id === id));
    tell("status");
  };
  const reveal = (id) => {
    const row = state.rows.find((candidate) => candidate.id === id);
    if (!row || row.state !== "ready" || !row.blurred) return;
    if (state.revealed.has(id)) state.revealed.delete(id);
    else state.revealed.add(id);
    drawTile(row);
    tell("cursor");
  };

  // ------------------------------------------------------------------ loading

  const openCentroid = async (number) => {
    if (number === null || number === undefined) return;
    state.centroid = String(number);
    Object.assign(state, { rows: [], limit: 200, cursor: null, history: [] });
    state.ticked.clear();
    state.revealed.clear();
    writeAddress();
    document.body.classList.remove("pf-show-left");
    tell("centroids", "opened");
    try {
      const answer = await get(`/api/neighbours?centroid=${encodeURIComponent(state.centroid)}`);
      if (answer.centroid !== state.centroid) return;
      state.rows = answer.rows;
      state.lastEvent = answer.last_event;
      const pending = queue.events.filter((event) => event.centroid_id === state.centroid);
      for (const event of pending) {
        for (const row of state.rows.filter((candidate) => (event.ids || []).includes(candidate.id))) {
          row.decision = event.action === "clear" ? null : event.action;
        }
      }
      notice("");
    } catch (error) {
      notice(error.message);
    }
    refresh();
  };

  const listed = () => {
    const words = state.search.trim().toLowerCase();
    const fits = words.startsWith("#")
      ? (entry) => entry.centroid === words.slice(1)
      : (entry) => entry.label.toLowerCase().includes(words);
    const orders = {
      id: (a, b) => Number(a.centroid) - Number(b.centroid),
      size: (a, b) => b.size - a.size,
      open: (a, b) => b.neighbours - b.kept - b.rejected - (a.neighbours - a.kept - a.rejected),
      selected: (a, b) => b.selected - a.selected,
    };
    return state.centroids.filter(fits).sort(orders[state.centroidSort] || orders.id);
  };

  const step = (direction) => {
    const entries = listed();
    const here = entries.findIndex((entry) => entry.centroid === state.centroid);
    const next = entries[Math.max(0, Math.min(entries.length - 1, here + direction))];
    if (next && next.centroid !== state.centroid) openCentroid(next.centroid);
  };

  const load = async () => {
    try {
      state.run = await get("/api/run");
      tell("run");
      if (!panels.has("grid")) return;
      const wanted = readAddress();
      state.centroids = (await get("/api/centroids")).centroids;
      tell("run", "filters", "centroids");
      await adoptQueues();
      const first = state.centroids.find((entry) => entry.centroid === wanted) || listed()[0];
      if (first) await openCentroid(first.centroid);
      else {
        notice("This run has no centroids yet. Start “run” on the Jobs page, or `popfactory run` in a terminal.");
        refresh();
      }
    } catch (error) {
      notice(`${error.message}. Trying again.`);
      setTimeout(load, 3000);
    }
  };

  const reload = async () => {
    state.run = await get("/api/run");
    if (panels.has("grid")) {
      state.centroids = (await get("/api/centroids")).centroids;
      const cursor = state.cursor;
      const answer = state.centroid === null ? { rows: [] } : await get(`/api/neighbours?centroid=${state.centroid}`);
      if (!queue.events.length && answer.centroid === state.centroid) state.rows = answer.rows;
      state.cursor = cursor;
      refresh();
    }
    tell("run", "centroids");
  };

  // ------------------------------------------------------------------ jobs

  const ACTIVE = ["queued", "running"];
  const active = () => state.jobs.find((job) => ACTIVE.includes(job.state)) || null;
  let polling = null;
  const poll = async () => {
    clearTimeout(polling);
    const before = active();
    try {
      const answer = await get("/api/jobs");
      state.jobs = answer.jobs;
      state.waiting = answer.waiting;
      tell("jobs");
      const ended = before && state.jobs.find((job) => job.job === before.job && !ACTIVE.includes(job.state));
      if (ended) await reload();
    } catch (error) {
      notice(error.message);
    }
    polling = setTimeout(poll, active() || state.waiting.length ? 1000 : 5000);
  };
  const startJobs = async (commands) => {
    try {
      await post("/api/jobs", { commands });
      notice("");
    } catch (error) {
      notice(error.message);
    }
    await poll();
  };
  const cancel = async (job) => {
    try { await post(`/api/jobs/${job}/cancel`, {}); } catch (error) { notice(error.message); }
    await poll();
  };

  const seconds = (value) => {
    if (value === null || value === undefined) return "";
    if (value < 90) return `${Math.max(1, Math.round(value))} s`;
    return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
  };
  const figures = (job) => {
    const parts = [];
    if (job.stage) parts.push(job.total === null ? `${count(job.done)} ${job.unit}` : `${count(job.done)} of ${count(job.total)} ${job.unit}`);
    if (job.rate) parts.push(`${job.rate >= 10 ? count(Math.round(job.rate)) : job.rate.toFixed(1)}/s`);
    if (job.eta_s) parts.push(`${seconds(job.eta_s)} left`);
    const failed = Object.values(job.failures).reduce((sum, number) => sum + number, 0);
    if (failed) parts.push(`${count(failed)} failed`);
    return parts.join(" · ");
  };
  const bar = (job) => {
    const share = job.state === "done" ? 1 : job.total ? Math.min(1, job.done / job.total) : 0;
    const moving = job.state === "running" && !job.total;
    const fill = el("span", { class: "pf-bar-fill" });
    fill.style.width = `${share * 100}%`;
    return el("div", {
      class: `pf-bar pf-bar-${job.state}${moving ? " pf-bar-moving" : ""}`, role: "progressbar",
      "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(share * 100), "aria-label": job.stage || job.command,
    }, fill);
  };

  // ------------------------------------------------------------------ the page's head

  const headPanel = (host) => {
    const name = el("span", { class: "pf-run" });
    const stamp = el("span", { class: "pf-stamp", hidden: true });
    const saving = el("span", { class: "pf-saving", role: "status" });
    const trouble = el("div", { class: "pf-notice", role: "alert", hidden: true });
    const person = el("input", {
      class: "pf-input pf-curator", "aria-label": "Your name", placeholder: "your name", maxlength: 40,
      on: { change: (event) => remember("popfactory.curator", event.target.value.trim()) },
    });
    person.value = remembered("popfactory.curator", "");
    const here = location.pathname.replace(/\/$/, "").endsWith("/jobs") ? "jobs" : "curate";
    const link = (target, label) => el("a", {
      href: `${state.base}/${target === "jobs" ? "jobs" : ""}`, text: label, "aria-current": here === target ? "page" : null,
    });
    host.append(
      el("header", { class: "pf-head" },
        el("h1", { class: "pf-title", text: here === "jobs" ? "popfactory jobs" : "popfactory board" }),
        name,
        el("nav", { class: "pf-nav", "aria-label": "Pages" }, link("curate", "Curate"), link("jobs", "Jobs")),
        stamp,
        el("span", { class: "pf-gap" }),
        here === "curate" ? saving : null,
        here === "curate" ? person : null,
        here === "curate" ? button("Keys", "?", "All keys", help) : null),
      trouble);
    on("run", () => {
      name.textContent = state.run.server ? `${state.run.run} · ${state.run.server}` : state.run.run;
      stamp.textContent = state.run.demo || "";
      stamp.hidden = !state.run.demo;
    });
    on("saving", () => {
      const waiting = queue.events.length;
      saving.classList.toggle("pf-bad", Boolean(queue.trouble));
      saving.textContent = queue.trouble ? `${count(waiting)} not saved, retrying` : waiting ? `saving ${count(waiting)}` : "saved";
      saving.title = queue.trouble || (queue.kept ? "" : "this browser keeps nothing: don't close the page");
    });
    on("notice", () => { trouble.textContent = state.notice; trouble.hidden = !state.notice; });
    tell("saving");
  };

  // ------------------------------------------------------------------ left: centroids

  const ROW_PX = 58;
  const centroidPanel = (host) => {
    const search = el("input", {
      type: "search", class: "pf-input", placeholder: "Label or #id", "aria-label": "Search centroids",
      on: { input: () => { state.search = search.value; writeAddress(); draw(); } },
    });
    const sort = choice({ id: "by number", size: "by size", open: "most open", selected: "most selected" }, "Order of centroids",
      (value) => { state.centroidSort = value; writeAddress(); draw(); });
    const inner = el("div", { class: "pf-virtual", role: "presentation" });
    const list = el("div", { class: "pf-list", role: "listbox", tabindex: 0, "aria-label": "Centroids", on: { scroll: () => paint() } }, inner);
    const total = el("div", { class: "pf-muted pf-foot", role: "status" });
    host.append(el("h2", { class: "pf-part", text: "Centroids" }), el("div", { class: "pf-tools" }, search, sort), list, total);
    let entries = [];
    const entry = (item, index) => {
      const picture = item.exemplars[0];
      const row = el("div", {
        class: "pf-centroid", role: "option", id: `pf-centroid-${item.centroid}`, "data-centroid": item.centroid,
        "aria-selected": item.centroid === state.centroid ? "true" : "false", title: clip(item.label, 300),
        on: { click: () => openCentroid(item.centroid) },
      },
      picture ? el("img", { src: thumbnail(picture.sha256, picture.blurred), alt: "", width: 44, height: 44, decoding: "async" }) : el("span", { class: "pf-nopic" }),
      el("div", { class: "pf-centroid-text" },
        el("div", { class: "pf-label", text: clip(item.label, 120) }),
        el("div", { class: "pf-muted pf-counts" },
          el("span", { text: `#${item.centroid}` }),
          el("span", { title: "concept pictures in it", text: `${count(item.size)} pictures` }),
          el("span", { title: "neighbours found, of which selected", text: `${count(item.selected)}/${count(item.neighbours)}` }),
          item.kept ? el("span", { class: "pf-kept", title: "kept by people", text: `✓${count(item.kept)}` }) : null,
          item.rejected ? el("span", { class: "pf-rejected", title: "rejected by people", text: `✕${count(item.rejected)}` }) : null)));
      row.style.top = `${index * ROW_PX}px`;
      return row;
    };
    const paint = () => {
      const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - 4);
      const last = Math.min(entries.length, Math.ceil((list.scrollTop + (list.clientHeight || 600)) / ROW_PX) + 4);
      inner.replaceChildren(...entries.slice(first, last).map((item, offset) => entry(item, first + offset)));
    };
    const draw = () => {
      entries = listed();
      inner.style.height = `${entries.length * ROW_PX}px`;
      total.textContent = entries.length === state.centroids.length ? `${count(entries.length)} centroids` : `${count(entries.length)} of ${count(state.centroids.length)} centroids`;
      paint();
    };
    on("run", () => { search.value = state.search; sort.value = state.centroidSort; });
    on("centroids", draw);
    on("opened", () => {
      const index = entries.findIndex((item) => item.centroid === state.centroid);
      const top = index * ROW_PX;
      if (index >= 0 && (top < list.scrollTop || top + ROW_PX > list.scrollTop + list.clientHeight)) list.scrollTop = top - list.clientHeight / 2;
      paint();
    });
    new ResizeObserver(paint).observe(list);
  };

  const choice = (options, label, change) => {
    const select = el("select", { class: "pf-input pf-choice", "aria-label": label, on: { change: () => { change(select.value); select.blur(); } } },
      ...Object.entries(options).map(([value, text]) => el("option", { value, text })));
    return select;
  };

  // ------------------------------------------------------------------ centre: the grid

  const RULE_WORDS = {
    min_side_px: "small", pwatermark_max: "watermark", punsafe_max: "unsafe", aesthetic_min: "low aesthetic",
    near_duplicate: "duplicate", other_centroid: "elsewhere", quota: "quota full", unfetched: "gone", unscored: "unscored",
    takedown: "taken down", hash_block: "blocked", centroid_left_out: "left out",
  };
  const STATE_WORDS = { gone: "could not be had", pending: "not fetched yet", blocked: "kept out by a list" };
  const tiles = new Map();
  let grid = null;

  const tileLabel = (row) => {
    const parts = [`${row.rank + 1}`, `similarity ${fixed(row.similarity, 3)}`];
    if (row.decision) parts.push(row.decision === "keep" ? "kept" : "rejected");
    if (row.rule) parts.push(RULE_WORDS[row.rule] || row.rule);
    if (row.state !== "ready") parts.push(row.reason || "");
    return parts.join(", ");
  };

  const drawTile = (row) => {
    if (!row) return;
    const tile = tiles.get(row.id);
    if (tile) fillTile(tile, row);
  };

  const fillTile = (tile, row) => {
    const covered = row.state === "ready" && row.blurred && !state.revealed.has(row.id);
    const failing = row.state === "ready" ? firstFailed(row) : null;
    tile.className = ["pf-tile", `pf-${row.state}`, row.decision ? `pf-is-${row.decision}` : "", state.ticked.has(row.id) ? "pf-ticked" : "",
      failing && !row.decision ? "pf-failing" : "", row.id === state.cursor ? "pf-cursor" : ""].join(" ");
    tile.setAttribute("aria-selected", state.ticked.has(row.id) ? "true" : "false");
    tile.setAttribute("aria-label", tileLabel(row));
    const source = row.state === "ready" ? thumbnail(row.sha256, covered) : null;
    let picture = tile.querySelector(".pf-picture");
    if (!picture || picture.dataset.source !== String(source)) {
      const made = source
        ? el("img", { src: source, alt: "", loading: "lazy", decoding: "async", width: 256, height: 256,
          on: { error: (event) => event.target.replaceWith(el("span", { class: "pf-why", text: "its file can't be opened any more" })) } })
        : el("span", { class: "pf-why", text: row.state === "gone" ? `${STATE_WORDS.gone}: ${String(row.reason).replaceAll("_", " ")}` : STATE_WORDS[row.state] });
      const fresh = el("div", { class: "pf-picture", "data-source": String(source) }, made);
      if (picture) picture.replaceWith(fresh);
      else tile.append(fresh);
      picture = fresh;
    }
    tile.querySelectorAll(".pf-over").forEach((node) => node.remove());
    const mark = { keep: "✓", reject: "✕" }[row.decision];
    const tickBox = el("span", { class: "pf-over pf-tick", "aria-hidden": "true", text: state.ticked.has(row.id) ? "✓" : "",
      on: { click: (event) => { event.stopPropagation(); place(row.id); tick(row.id); } } });
    tile.append(tickBox);
    if (mark) tile.append(el("span", { class: `pf-over pf-mark pf-mark-${row.decision}`, text: mark }));
    if (covered) {
      tile.append(el("span", { class: "pf-over pf-reveal", "aria-hidden": "true",
        title: row.punsafe === null ? "Blurred: without an unsafe score" : `Blurred: unsafe ${fixed(row.punsafe, 2)}`,
        on: { click: (event) => { event.stopPropagation(); place(row.id); reveal(row.id); } } }, "Reveal", el("kbd", { text: "V" })));
    }
    const word = row.verdict === "selected" ? "selected" : row.rule === "person" ? "" : RULE_WORDS[row.rule] || row.rule || "";
    tile.append(el("div", { class: "pf-over pf-line" },
      el("span", { class: "pf-figure", title: "similarity to the centroid", text: fixed(row.similarity, 2).replace(/^0/, "") }),
      el("span", { class: "pf-muted pf-size-px", title: "shorter side in pixels", text: row.width ? String(side(row)) : "" }),
      row.group_size > 1 ? el("span", { class: "pf-duplicate", title: "near-duplicates in its group", text: `≈${row.group_size}` }) : null,
      el("span", { class: row.verdict === "selected" ? "pf-badge pf-badge-in" : "pf-badge", title: row.meaning || "", text: failing && !row.verdict ? failing.word : word })));
  };

  const gridPanel = (host) => {
    const title = el("h2", { class: "pf-part pf-centroid-title" });
    const show = choice(SHOWS, "Which pictures to show", (value) => { state.show = value; writeAddress(); refresh(); });
    const sort = choice(SORTS, "Order of pictures", (value) => { state.sort = value; writeAddress(); refresh(); });
    const size = el("input", { type: "range", min: 96, max: 256, step: 8, class: "pf-size", "aria-label": "Size of tiles", title: "Size of tiles",
      on: { input: () => { remember("popfactory.tile", size.value); grid.style.setProperty("--pf-tile", `${size.value}px`); } } });
    size.value = remembered("popfactory.tile", "136");
    grid = el("div", { class: "pf-grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Neighbours", tabindex: 0 });
    grid.style.setProperty("--pf-tile", `${size.value}px`);
    const more = button("Show more", "", "The next 200", () => { state.limit = Math.min(state.limit + 200, 1000); tell("grid"); }, "pf-more");
    const scroller = el("div", { class: "pf-scroll" }, grid, more);
    const detail = el("div", { class: "pf-detail", tabindex: 0, role: "region", "aria-label": "The picture under the cursor" });
    const status = el("div", { class: "pf-status pf-muted", role: "status" });
    const verdicts = el("div", { class: "pf-verdicts" },
      button("Keep", "A", "Keep the ticked ones, else the one under the cursor (also P)", () => decide("keep"), "pf-keep"),
      button("Reject", "R", "Reject them (also Del)", () => decide("reject"), "pf-reject"),
      button("Clear", "0", "Take the verdict back", () => decide("clear")),
      button("Undo", "U", "Undo your last decision, also after a reload", undo),
      button("Tick", "X", "Tick the one under the cursor", () => state.cursor && tick(state.cursor)),
      button("Reveal", "V", "Show or blur the one under the cursor", () => state.cursor && reveal(state.cursor)),
      button("Back", "J", "Previous picture", () => move(-1)),
      button("On", "K", "Next picture", () => move(1)));
    host.append(
      el("div", { class: "pf-bar-top" },
        button("Centroids", "", "Show the centroids", () => document.body.classList.toggle("pf-show-left"), "pf-open-left"),
        title,
        button("Filters", "", "Show filters and captions", () => document.body.classList.toggle("pf-show-right"), "pf-open-right"),
        el("div", { class: "pf-tools" },
          button("◂", "⇧N", "Previous centroid", () => step(-1)), button("▸", "N", "Next centroid", () => step(1)),
          show, sort, size)),
      scroller, detail, verdicts, status);

    on("run", () => { show.value = state.show; sort.value = state.sort; });
    on("opened", () => {
      const entry = state.centroids.find((candidate) => candidate.centroid === state.centroid);
      title.textContent = entry ? clip(entry.label, 160) : "";
      title.title = entry ? clip(entry.label, 300) : "";
      scroller.scrollTop = 0;
      grid.replaceChildren();
      tiles.clear();
      grid.setAttribute("aria-busy", "true");
    });
    on("grid", () => {
      const rows = state.shown.slice(0, state.limit);
      const wanted = new Set(rows.map((row) => row.id));
      for (const id of [...tiles.keys()]) if (!wanted.has(id)) { tiles.get(id).remove(); tiles.delete(id); }
      const nodes = rows.map((row) => {
        let tile = tiles.get(row.id);
        if (!tile) {
          tile = el("div", { role: "option", id: `pf-tile-${row.id}`, "data-id": row.id,
            on: { click: (event) => { place(row.id); if (event.ctrlKey || event.metaKey) tick(row.id); } } });
          tiles.set(row.id, tile);
        }
        fillTile(tile, row);
        return tile;
      });
      // Nodes already in their place are not touched: moving an <img> makes it load again.
      if (nodes.length !== grid.childNodes.length || nodes.some((node, index) => grid.childNodes[index] !== node)) {
        if (nodes.length) grid.replaceChildren(...nodes);
        else grid.replaceChildren(el("p", { class: "pf-empty pf-muted", text: emptyText() }));
      }
      grid.removeAttribute("aria-busy");
      more.hidden = state.shown.length <= state.limit || state.limit >= 1000;
    });
    let before = null;
    on("cursor", () => {
      if (before && tiles.get(before)) tiles.get(before).classList.remove("pf-cursor");
      before = state.cursor;
      const tile = state.cursor && tiles.get(state.cursor);
      if (tile) {
        tile.classList.add("pf-cursor");
        tile.scrollIntoView({ block: "nearest" });
        grid.setAttribute("aria-activedescendant", tile.id);
      } else grid.removeAttribute("aria-activedescendant");
      describe(detail);
    });
    on("status", () => {
      const tally = (test) => state.rows.filter(test).length;
      const taken = funnel().taken;
      const parts = [`${count(state.shown.length)} of ${count(state.rows.length)} shown`];
      for (const filter of FILTERS) if (taken.get(filter.name)) parts.push(`${count(taken.get(filter.name))} out by ${filter.label.toLowerCase()}`);
      for (const [kind, word] of [["gone", "gone"], ["pending", "not fetched"], ["blocked", "blocked"]]) {
        const number = tally((row) => row.state === kind);
        if (number) parts.push(`${count(number)} ${word}`);
      }
      parts.push(`✓ ${count(tally((row) => row.decision === "keep"))} ✕ ${count(tally((row) => row.decision === "reject"))}`);
      if (state.ticked.size) parts.push(`${count(state.ticked.size)} ticked`);
      status.textContent = parts.join(" · ");
    });
  };

  const emptyText = () => {
    if (state.centroid === null) return "";
    if (!state.rows.length) return state.run && state.run.stages.neighbours ? "This centroid has no neighbours." : "No neighbours yet: run `popfactory retrieve`, or start “run” on the Jobs page.";
    return "Nothing to show with these filters. Widen them, or choose “everything found”.";
  };

  const describe = (host) => {
    const row = state.rows.find((candidate) => candidate.id === state.cursor);
    if (!row) { host.replaceChildren(); return; }
    const facts = [`#${row.rank + 1}`, `similarity ${fixed(row.similarity, 3)}`];
    if (row.state === "ready") {
      facts.push(`${row.width}×${row.height} px`, `aesthetic ${fixed(row.aesthetic, 2)}`, `watermark ${fixed(row.pwatermark, 2)}`, `unsafe ${fixed(row.punsafe, 2)}`);
    } else facts.push(row.reason || STATE_WORDS[row.state]);
    const why = row.verdict ? `${row.verdict}: ${row.meaning || row.rule}${row.detail ? ` (${row.detail})` : ""}` : "no candidate of the last selection";
    const person = row.decision ? ` · ${row.decision === "keep" ? "kept" : "rejected"} by ${row.curator || "you"}` : "";
    fill(host,
      el("div", { class: "pf-facts", text: facts.join(" · ") }),
      el("div", { class: "pf-muted" }, `${why}${person}`, el("span", { class: "pf-id", title: "its id", text: row.id })),
      row.caption ? el("div", { class: "pf-text", title: clip(row.caption, 2000) }, el("b", { text: "caption " }), clip(row.caption, 600)) : null,
      row.text ? el("div", { class: "pf-text", title: clip(row.text, 2000) }, el("b", { text: "text " }), clip(row.text, 400)) : null,
      !row.text && row.address ? el("div", { class: "pf-text" }, el("b", { text: "from " }), clip(row.address, 400)) : null);
  };

  // ------------------------------------------------------------------ right: filters, selection, captions

  const BINS = 36;
  const sidePanel = (host) => {
    const controls = FILTERS.map((filter) => filterControl(filter));
    const unknown = choice({ keep: "keep", drop: "drop" }, "Pictures whose value is unknown", (value) => { state.filters.unknown = value; writeAddress(); refresh(); });
    const line = el("div", { class: "pf-funnel-line", role: "status" });
    const differs = el("div", { class: "pf-muted pf-small" });
    const chain = el("ol", { class: "pf-funnel" });
    const captionText = el("div", { class: "pf-muted pf-small" });
    const caption = button("Caption what is selected", "", "Bring the selection up to date with every decision, then caption it", () => startJobs(["select", "caption"]), "pf-primary");
    const select = button("Select", "", "Apply popfactory.toml and every decision", () => startJobs(["select"]));
    const strip = el("div", { class: "pf-strip" });
    const usually = button("Back to popfactory.toml", "", "The run's own filter settings", () => { state.filters = defaults(); writeAddress(); refresh(); });
    host.append(
      el("button", { type: "button", class: "pf-button pf-close-right", text: "Close", on: { click: () => document.body.classList.remove("pf-show-right") } }),
      el("div", { class: "pf-side-scroll", tabindex: 0, "aria-label": "Filters and the run's funnel" },
        el("section", {}, el("h2", { class: "pf-part", text: "Filters" }), ...controls.map((control) => control.node),
          el("label", { class: "pf-unknown" }, "Unknown values", unknown), line, differs, usually),
        el("section", {}, el("h2", { class: "pf-part", text: "The whole run" }), chain)),
      el("section", { class: "pf-captions" }, el("h2", { class: "pf-part", text: "Captions" }), captionText, el("div", { class: "pf-tools" }, caption, select), strip));

    on("filters", () => {
      unknown.value = state.filters.unknown || "keep";
      controls.forEach((control) => control.draw());
      const { found, ready, taken, passed } = funnel();
      const steps = [`${count(found)} found`, `${count(ready)} fetched`];
      let left = ready;
      for (const filter of FILTERS) {
        if (state.filters[filter.name] === null || state.filters[filter.name] === undefined) continue;
        left -= taken.get(filter.name);
        steps.push(`${count(left)} ${filter.label.toLowerCase()}`);
      }
      line.textContent = `${steps.join(" → ")} → ${count(passed)} pass`;
      const usual = state.run ? defaults() : {};
      const changed = FILTERS.some((filter) => !filter.viewOnly && state.filters[filter.name] !== usual[filter.name]) || state.filters.unknown !== usual.unknown;
      usually.hidden = !changed && state.filters.similarity === null;
      differs.textContent = changed ? "For looking only: select goes by popfactory.toml." : "";
    });
    on("run", () => {
      const run = state.run;
      chain.replaceChildren(...run.funnel.flatMap((step) => [
        el("li", {}, el("span", { text: step.label }), el("b", { text: count(step.count) })),
        ...step.losses.map((loss) => el("li", { class: "pf-loss", title: loss.meaning },
          el("span", { text: loss.reason.replaceAll("_", " ") }), el("span", { text: `−${count(loss.count)}` }))),
      ]));
      if (!run.funnel.length) chain.append(el("li", { class: "pf-muted", text: "no stage is finished yet" }));
      captionText.textContent = `${run.selected === null ? "nothing selected yet" : `${count(run.selected)} selected`} · prompt ${run.caption.prompt} · ${run.caption.engine} engine · ${run.caption.model}`;
    });
    on("jobs", () => {
      const job = active() || state.jobs[0];
      const busy = Boolean(active() || state.waiting.length);
      caption.disabled = select.disabled = busy || !state.run || !state.run.stages.neighbours;
      strip.replaceChildren(...(job ? [jobStrip(job, busy || job.state !== "done")] : []));
    });
  };

  const jobStrip = (job, withLine = true) => el("div", { class: "pf-job", "data-state": job.state },
    el("div", { class: "pf-job-head" },
      el("b", { text: job.command.split(" ")[1] || "job" }), el("span", { class: `pf-state pf-state-${job.state}`, text: job.state }),
      state.waiting.length && ACTIVE.includes(job.state) ? el("span", { class: "pf-muted", text: `then ${state.waiting.join(", ")}` }) : null,
      el("span", { class: "pf-gap" }),
      ACTIVE.includes(job.state) ? button("Cancel", "", "Stop; what is finished stays", () => cancel(job.job), "pf-quiet") : null),
    bar(job),
    el("div", { class: "pf-muted pf-small", text: [job.stage, figures(job)].filter(Boolean).join(" · ") }),
    job.message ? el("div", { class: "pf-small pf-bad", text: clip(job.message, 400) }) : null,
    withLine && job.lines.length ? el("div", { class: "pf-muted pf-small pf-text", text: clip(job.lines[job.lines.length - 1], 300) }) : null);

  const filterControl = (filter) => {
    const bars = el("div", { class: "pf-bars", "aria-hidden": "true" });
    const set = (text) => {
      const value = Number.parseFloat(text);
      state.filters[filter.name] = Number.isFinite(value) ? value : null;
      writeAddress();
      refresh();
    };
    const number = el("input", { type: "number", class: "pf-input pf-number", step: filter.step, placeholder: "off",
      "aria-label": `${filter.label}, ${filter.bound === "min" ? "at least" : "at most"}`, "data-filter": filter.name,
      on: { change: () => set(number.value), keydown: (event) => { if (event.key === "Enter") number.blur(); } } });
    const slider = el("input", { type: "range", class: "pf-slider", "aria-label": `${filter.label} slider`, on: { input: () => set(slider.value) } });
    const off = el("button", { type: "button", class: "pf-off", title: `Take the limit on ${filter.label.toLowerCase()} off`, text: "×", on: { click: () => set("") } });
    const counts = el("span", { class: "pf-muted pf-small" });
    const node = el("div", { class: "pf-filter" },
      el("div", { class: "pf-filter-head" },
        el("span", { class: "pf-filter-name", text: filter.label }),
        counts, el("span", { class: "pf-gap" }),
        el("span", { class: "pf-muted", text: filter.bound === "min" ? "≥" : "≤" }), number, off),
      bars, slider);
    const draw = () => {
      const limit = state.filters[filter.name] ?? null;
      const ready = state.rows.filter((row) => row.state === "ready");
      const values = ready.map(filter.of).filter((value) => value !== null && value !== undefined);
      const [low, high] = filter.range || [Math.min(...values), Math.max(...values)];
      const span = high > low ? high - low : 1;
      const all = new Array(BINS).fill(0);
      const kept = new Array(BINS).fill(0);
      let out = 0;
      for (const row of ready) {
        const value = filter.of(row);
        if (fails(row, filter)) out += 1;
        if (value === null || value === undefined) continue;
        const bin = Math.min(BINS - 1, Math.max(0, Math.floor(((value - low) / span) * BINS)));
        all[bin] += 1;
        if (!firstFailed(row)) kept[bin] += 1;
      }
      const top = Math.max(1, ...all);
      bars.replaceChildren(...all.map((total, bin) => {
        const inner = el("i");
        inner.style.height = `${total ? (kept[bin] / total) * 100 : 0}%`;
        const outer = el("span", {}, inner);
        outer.style.height = `${total ? Math.max(6, Math.sqrt(total / top) * 100) : 0}%`;
        return outer;
      }));
      const unknown = ready.length - values.length;
      counts.textContent = [limit !== null ? `−${count(out)}` : "", unknown ? `${count(unknown)} unknown` : ""].filter(Boolean).join(" · ");
      if (document.activeElement !== number) number.value = limit === null ? "" : String(limit);
      slider.disabled = !values.length;
      if (values.length) Object.assign(slider, { min: low, max: high, step: filter.step });
      slider.value = limit === null ? (filter.bound === "min" ? low : high) : limit;
      off.disabled = limit === null;
      node.classList.toggle("pf-filter-on", limit !== null);
    };
    return { node, draw };
  };

  // ------------------------------------------------------------------ the Jobs page

  const COMMANDS = {
    run: "Every stage that is not up to date, in order, to the release",
    select: "Decide on every candidate: filters, people, duplicates, quota",
    caption: "Describe the selected pictures",
    release: "Publish the dataset with its card",
  };
  const jobsPanel = (host) => {
    const buttons = Object.entries(COMMANDS).map(([command, meaning]) => button(command, "", meaning, () => startJobs([command]), command === "run" ? "pf-primary" : ""));
    const table = el("div", { class: "pf-jobs" });
    const detail = el("div", { class: "pf-job-detail" });
    let chosen = new URLSearchParams(location.search).get("job");
    buttons.forEach((node) => { node.disabled = true; }); // until it is known whether a job is at work
    host.append(el("div", { class: "pf-page" },
      el("section", { class: "pf-start" }, el("h2", { class: "pf-part", text: "Start" }), el("div", { class: "pf-tools" }, ...buttons),
        el("p", { class: "pf-muted pf-small", text: "Each is the command of that name on this run, as its own process: it goes on when this page or the board is closed. Stopped and started again, it goes on from where it was." })),
      el("section", {}, el("h2", { class: "pf-part", text: "Jobs" }), table),
      detail));
    const when = (time) => new Date(time * 1000).toLocaleString("en-GB", { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
    on("jobs", () => {
      const busy = Boolean(active() || state.waiting.length);
      buttons.forEach((node) => { node.disabled = busy; });
      if (!state.jobs.length) { table.replaceChildren(el("p", { class: "pf-muted", text: "No job yet on this run." })); detail.replaceChildren(); return; }
      const job = state.jobs.find((candidate) => candidate.job === chosen) || state.jobs[0];
      table.replaceChildren(...state.jobs.map((entry) => el("button", {
        type: "button", class: "pf-job-row", "data-job": entry.job, "data-state": entry.state, "aria-pressed": entry === job ? "true" : "false",
        on: { click: () => {
          chosen = entry.job;
          const query = new URLSearchParams(location.search);
          query.set("job", chosen);
          history.replaceState(history.state, "", `?${query}`);
          tell("jobs");
        } },
      },
      el("span", { class: "pf-job-name", text: entry.command.split(" ")[1] || "" }),
      el("span", { class: `pf-state pf-state-${entry.state}`, text: entry.state }),
      bar(entry),
      el("span", { class: "pf-muted pf-job-figures", text: [entry.stage, figures(entry)].filter(Boolean).join(" · ") }),
      el("span", { class: "pf-muted pf-job-time", text: `${when(entry.started)} · ${seconds(Math.max(1, (entry.ended || entry.updated) - entry.started))}` }))));
      const failures = Object.entries(job.failures).sort((a, b) => b[1] - a[1]);
      fill(detail,
        el("h2", { class: "pf-part" }, `Job ${job.job}`),
        el("code", { class: "pf-command", text: clip(job.command, 500) }),
        jobStrip(job, false),
        failures.length ? el("table", { class: "pf-failures" }, el("caption", { text: "Failures by cause" }),
          ...failures.map(([reason, number]) => el("tr", {}, el("td", { text: reason.replaceAll("_", " ") }), el("td", { text: count(number) })))) : null,
        job.lines.length ? el("pre", { class: "pf-log", tabindex: 0, "aria-label": "Last lines", text: job.lines.map((entry) => clip(entry, 2000)).join("\n") }) : null);
    });
  };

  // ------------------------------------------------------------------ keys

  const KEYS = [
    ["← → ↑ ↓, J, K", "move"], ["A or P", "keep the ticked ones, else the one under the cursor"], ["R or Del", "reject"],
    ["0", "clear the verdict"], ["U or Ctrl+Z", "undo your last decision"], ["X", "tick"], ["Ctrl+A", "tick all shown"], ["Esc", "untick all"],
    ["V", "reveal or blur again"], ["N / Shift+N", "next / previous centroid"], ["Home / End", "first / last picture"], ["?", "this list"],
  ];
  let dialog = null;
  const help = () => {
    if (!dialog) {
      dialog = el("dialog", { class: "pf-dialog", "aria-label": "Keys" },
        el("h2", { class: "pf-part", text: "Keys" }),
        el("dl", {}, ...KEYS.flatMap(([key, meaning]) => [el("dt", {}, el("kbd", { text: key })), el("dd", { text: meaning })])),
        el("p", { class: "pf-muted pf-small", text: "A click only moves the cursor. Nothing is ever deleted: a verdict is an event, and undo is another." }),
        button("Close", "Esc", "Close", () => dialog.close()));
      (document.querySelector(".gradio-container") || document.body).append(dialog);
    }
    if (!dialog.open) dialog.showModal();
  };

  const columns = () => {
    const nodes = grid ? [...grid.children] : [];
    const top = nodes.length ? nodes[0].offsetTop : 0;
    const next = nodes.findIndex((node) => node.offsetTop > top);
    return next > 0 ? next : Math.max(1, nodes.length);
  };
  const actions = {
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), k: () => move(1), j: () => move(-1),
    ArrowDown: () => move(columns()), ArrowUp: () => move(-columns()),
    Home: () => state.shown.length && place(state.shown[0].id),
    End: () => state.shown.length && place(state.shown[Math.min(state.limit, state.shown.length) - 1].id),
    a: () => decide("keep"), p: () => decide("keep"), r: () => decide("reject"), Delete: () => decide("reject"), 0: () => decide("clear"),
    u: undo, x: () => state.cursor && tick(state.cursor), v: () => state.cursor && reveal(state.cursor),
    n: (event) => step(event.shiftKey ? -1 : 1), "?": help, Escape: untick,
  };
  const typing = (target) => {
    if (target.isContentEditable) return true;
    if (target.tagName === "INPUT") return !["range", "checkbox", "button"].includes(target.type);
    return ["TEXTAREA", "SELECT"].includes(target.tagName);
  };
  const pressed = (event) => {
    if (!panels.has("grid") || typing(event.target) || (dialog && dialog.open)) return;
    // Caps Lock changes nothing; some keyboards need Shift for 0.
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const letter = /^[a-z]$/.test(key);
    let action = null;
    if (event.altKey) return;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") action = undo;
      else if (key === "a") action = () => { for (const row of state.shown) if (!state.ticked.has(row.id)) tick(row.id); };
    } else if (event.shiftKey && letter && key !== "n") return;
    else if (event.target.type === "range" && (key.startsWith("Arrow") || key === "Home" || key === "End")) return;
    else action = Object.hasOwn(actions, key) ? actions[key] : null;
    if (!action) return;
    event.preventDefault();
    action(event);
  };

  // ------------------------------------------------------------------ parts of the page, as Gradio mounts them

  const builders = { header: headPanel, centroids: centroidPanel, grid: gridPanel, side: sidePanel, jobs: jobsPanel };
  const panels = new Set();
  const panel = (host, base) => {
    const part = host.dataset.part;
    if (host.dataset.built || !builders[part]) return;
    host.dataset.built = "yes";
    state.base = base || "";
    if (!panels.size) document.addEventListener("keydown", pressed);
    panels.add(part);
    builders[part](host);
    const whole = panels.has("header") && (panels.has("jobs") || ["centroids", "grid", "side"].every((name) => panels.has(name)));
    if (whole) load().then(poll);
  };

  window.addEventListener("beforeunload", (event) => { if (queue.events.length && !queue.kept) event.preventDefault(); });
  const draw = () => { for (const [host, base] of (window.popfactoryParts || []).splice(0)) panel(host, base); };
  return { draw };
})();

window.Popfactory.draw();
