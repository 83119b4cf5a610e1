"use strict";
(() => {
  // Everything that is shown comes from /api/status.json, and goes into the page as text: names, labels
  // and errors may hold anything. Nothing here changes anything.
  const pollEvery = 5000, patience = 8000, lost = 12000;
  const $ = (id) => document.getElementById(id);
  const el = (tag, cls, ...kids) => {
    const e = document.createElement(tag);
    if (cls) e.className = cls;
    e.append(...kids.filter((k) => k !== "" && k !== null && k !== undefined && k !== false));
    return e;
  };
  const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  // Time, by the daemon's clock.
  let skew = 0;
  const now = () => Date.now() + skew;
  const parsed = new Map(); // thousands of instants, asked for again and again by every sort
  const at = (text) => {
    if (!text) return NaN;
    let t = parsed.get(text);
    if (t === undefined) {
      if (parsed.size > 50000) parsed.clear();
      parsed.set(text, (t = Date.parse(text)));
    }
    return t;
  };
  const known = (t) => !Number.isNaN(t);
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const length = (ms) => {
    const s = Math.round(Math.abs(ms) / 1000);
    const i = units.findIndex(([, n]) => s >= n);
    if (i < 0) return "0s";
    const [name, n] = units[i], next = units[i + 1], rest = s % n;
    return Math.floor(s / n) + name + (next && rest >= next[1] ? Math.floor(rest / next[1]) + next[0] : "");
  };
  const distance = (t) => (t > now() ? "in " + length(t - now()) : length(now() - t) + " ago");
  const format = (o) => { const f = new Intl.DateTimeFormat(undefined, o); return (t) => f.format(t); };
  const clock = format({ hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const hour = format({ hour: "2-digit", minute: "2-digit", hour12: false });
  const day = format({ day: "numeric", month: "short" });
  const weekday = format({ weekday: "short", day: "numeric", month: "short" });
  const month = format({ month: "short" });
  const moment = format({ weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });
  const year = (t) => String(new Date(t).getFullYear());
  const instant = (t) => moment(t) + (year(t) === year(now()) ? "" : " " + year(t));
  const both = (t) => distance(t) + " (" + instant(t) + ")";
  const count = (n, what) => n + " " + what + (n === 1 ? "" : "s");

  // The states, the most urgent first: mark, word, and what it means.
  const states = {
    failing: ["✕", "failing", "Something fails now."],
    none: ["○", "no token", "There is no working token."],
    held: ["!", "held", "It waits for a person."],
    due: ["◔", "due", "A rotation is due."],
    rotating: ["↻", "rotating", "A new token is on its way to its sinks."],
    paused: ["‖", "paused", "A person has put off its rotations."],
    unmanaged: ["?", "undeclared", "It is no longer declared: it lives out its life and gets no successor."],
    current: ["✓", "current", "Every required sink has the newest token."],
  };
  const rank = Object.keys(states);

  // What a person chose; the address keeps it, so that a wall shows the same after a reload.
  const wish = { q: "", state: "", sort: "", range: "", open: new Set() };
  const readWish = () => {
    const p = new URLSearchParams(location.hash.slice(1));
    for (const k of ["q", "state", "sort", "range"]) wish[k] = p.get(k) || "";
    $("q").value = wish.q;
    $("sort").value = wish.sort;
    $("range").value = wish.range;
    if ($("sort").selectedIndex < 0) $("sort").value = wish.sort = "";
    if ($("range").selectedIndex < 0) $("range").value = wish.range = "";
    if (!(wish.state in states)) wish.state = "";
  };
  const keepWish = () => {
    const p = new URLSearchParams();
    for (const k of ["q", "state", "sort", "range"]) if (wish[k]) p.set(k, wish[k]);
    const text = p.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname);
  };

  // The timeline. Bars stand at seconds from base; only three numbers of the table move them all.
  const base = Date.now();
  const sec = (t) => ((t - base) / 1000).toFixed(0);
  const range = { from: 0, to: 0 };
  const lives = (t) => [...(t.generation ? [[at(t.created), at(t.expires)]] : []), ...t.retiring.map((g) => [at(g.created), ends(g)])];
  const ends = (g) => (g.revoke_at && !g.leave ? Math.max(at(g.revoke_at), now()) : at(g.expires));
  const most = (list, part) => { list.sort((a, b) => a - b); return list.length ? list[Math.min(list.length - 1, Math.floor(list.length * part))] : 0; };
  const hours = { "6h": 6, "1d": 24, "7d": 168, "30d": 720, "90d": 2160, "365d": 8760 };
  const choose = (tokens) => {
    const n = now();
    if (hours[wish.range]) {
      const l = hours[wish.range] * 3600e3;
      range.from = n - l / 4; range.to = n + (l * 3) / 4;
      return;
    }
    const all = tokens.flatMap(lives).filter(([a, b]) => known(a) && known(b));
    // Half of the lives fit; those that are much longer run off the edge, and do not crowd out the rest.
    const back = 1.2 * most(all.map(([a]) => n - a), 0.5), ahead = 1.2 * most(all.map(([, b]) => b - n), 0.6);
    const l = Math.max(back + ahead, 3600e3);
    range.from = n - Math.max(back, l * 0.08) - l * 0.02;
    range.to = n + Math.max(ahead, l * 0.2) + l * 0.03;
  };
  const D = 86400e3;
  const steps = [[9e5], [18e5], [36e5], [72e5], [3 * 36e5], [6 * 36e5], [12 * 36e5], [D, 1], [2 * D, 2], [7 * D, 7], [14 * D, 14], [30 * D, 0, 1], [61 * D, 0, 2], [91 * D, 0, 3], [182 * D, 0, 6], [365 * D, 0, 12], [730 * D, 0, 24]];
  const ticks = (width) => {
    const span = range.to - range.from, room = Math.max(3, width / 84);
    const [step, days, months] = steps.find(([s]) => span / s <= room) || steps.at(-1);
    const out = [], d = new Date(range.from);
    d.setHours(0, 0, 0, 0);
    if (months) d.setMonth(months > 12 ? 0 : d.getMonth() - (d.getMonth() % months), 1);
    else if (days >= 7) d.setDate(d.getDate() - ((d.getDay() + 6) % 7));
    for (let i = 0; i < 4000 && d.getTime() <= range.to; i++) {
      const t = d.getTime();
      if (t >= range.from) out.push([t, months ? (d.getMonth() === 0 ? year(t) : month(t)) : days ? day(t) : d.getHours() + d.getMinutes() === 0 ? weekday(t) : hour(t)]);
      if (months) d.setMonth(d.getMonth() + months);
      else if (days) d.setDate(d.getDate() + days);
      else d.setTime(t + step);
    }
    return out;
  };
  const drawAxis = () => {
    const root = $("tokens").style, span = (range.to - range.from) / 1000;
    root.setProperty("--t0", sec(range.from));
    root.setProperty("--span", span.toFixed(0));
    root.setProperty("--now-at", sec(now()));
    const axis = $("axis"), width = axis.clientWidth || 600, list = ticks(width);
    const lines = list.map(([t]) => `linear-gradient(var(--grid), var(--grid)) ${((t - range.from) / (range.to - range.from) * 100).toFixed(3)}% 0 / 1px 100% no-repeat`);
    root.setProperty("--lines", lines.join(", ") || "linear-gradient(transparent, transparent)");
    const place = (t, cls, text) => { const s = el("span", cls, text); s.style.setProperty("--at", sec(t)); return s; };
    const px = (t) => (t - range.from) / (range.to - range.from) * width;
    axis.replaceChildren(
      ...list.filter(([t]) => px(t) > 22 && px(t) < width - 22).map(([t, text]) => place(t, "", text)),
      place(now(), "now", "now " + hour(now())),
    );
  };

  // One token's row. It is made anew when, and only when, what is known of the token changed.
  const rows = new Map();
  const bar = (cls, a, b) => {
    const e = el("i", "bar " + cls);
    e.style.setProperty("--a", sec(a));
    e.style.setProperty("--b", sec(Math.max(a, b)));
    return e;
  };
  const track = (t) => {
    const e = el("div", "track");
    e.setAttribute("role", "img");
    const words = [];
    if (t.generation) {
      const a = at(t.created), b = at(t.expires);
      const cut = (x) => (known(x) ? Math.min(Math.max(x, a), b) : b);
      const planned = cut(at(t.planned)), overlap = Math.max(planned, cut(at(t.overlap)));
      e.append(bar("serves" + (planned === b ? " only" : ""), a, planned));
      if (overlap > planned) e.append(bar("margin", planned, overlap));
      if (b > overlap) e.append(bar("overlap", overlap, b));
      if (known(at(t.planned))) {
        const k = el("i", "tick");
        k.style.setProperty("--a", sec(planned));
        e.append(k);
      }
      words.push("generation " + t.generation + ", created " + instant(a), "next rotation " + instant(planned), "expires " + instant(b));
    }
    if (t.state === "failing" && known(at(t.breaks))) {
      const k = el("i", "tick dead");
      k.style.setProperty("--a", sec(at(t.breaks)));
      e.append(k);
    }
    t.retiring.forEach((g, i) => {
      const o = bar("old", at(g.created), ends(g));
      o.style.setProperty("--lane", Math.min(i, 5));
      e.append(o);
      words.push("generation " + g.generation + " is valid until " + instant(ends(g)));
    });
    if (t.retiring.length > 1) e.style.minHeight = 30 + 16 * Math.min(t.retiring.length, 6) + "px";
    e.setAttribute("aria-label", words.join("; ") || "no token");
    e.title = words.join("\n");
    return e;
  };
  const short = (s) => {
    const [path, ...rest] = (s.name.startsWith(s.kind + " ") ? s.name.slice(s.kind.length + 1) : s.name).split(" ");
    return [path.includes("/") && rest.length < 2 ? path.slice(path.lastIndexOf("/") + 1) : path, ...rest].join(" ");
  };
  const sinkWord = (s) => (s.error ? "failing" : { holds: "", behind: "behind", held: "held", empty: "empty" }[s.state] ?? s.state);
  const chip = (cls, mark, text, title) => {
    const m = el("span", "", mark);
    m.setAttribute("aria-hidden", "true");
    const c = el("li", "chip " + cls, m, el("span", "", text));
    c.title = title;
    return c;
  };
  const sinkChip = (s) => {
    const word = sinkWord(s), cls = s.error ? "failing" : s.state;
    const mark = { holds: "✓", behind: "↻", held: "!", empty: "○", failing: "✕" }[cls] || "·";
    return chip(cls + (s.required ? "" : " optional"), mark, word ? word + ": " + short(s) : short(s),
      [s.name + " (" + s.kind + (s.required ? "" : ", not required") + ")", s.state + (s.generation ? ", generation " + s.generation : "") + (s.proven ? ", read back" : ""), s.error].filter(Boolean).join("\n"));
  };
  const consumerChip = (c, t) => {
    const taken = c.taken === c.told && c.taken > 0, cls = c.error ? "failing" : taken ? "holds" : "waiting";
    return chip(cls, c.error ? "✕" : taken ? "→" : "…", (c.error ? "not told: " : taken ? "" : "told: ") + c.title,
      [c.title + (taken ? " uses generation " + c.taken : " was told of generation " + c.told + ", uses " + (c.taken || "none yet")), c.error].filter(Boolean).join("\n"));
  };
  const cell = (cls, ...kids) => { const e = el("div", cls, ...kids); e.setAttribute("role", "cell"); return e; };
  const build = (t) => {
    const item = el("div", "item " + t.state), word = (states[t.state] || ["", t.state])[1];
    item.setAttribute("role", "rowgroup");
    return { item, t, full: false, text: "", hay: [t.name, t.description, t.schedule, t.label, t.id, word, ...t.sinks.flatMap((s) => [s.name, s.kind, s.place]), ...(t.consumers || []).map((c) => c.title)].join("\n").toLowerCase() };
  };
  // What is on the screen is filled at once, the rest of a thousand rows when there is time for it.
  const fill = (r) => {
    if (r.full) return;
    const t = r.t;
    const toggle = el("button", "", t.name);
    toggle.type = "button";
    toggle.title = t.name;
    toggle.setAttribute("aria-expanded", "false");
    const [mark, word, meaning] = states[t.state] || ["·", t.state, ""];
    const m = el("span", "", mark);
    m.setAttribute("aria-hidden", "true");
    const badge = el("span", "badge " + t.state, m, word);
    badge.title = meaning;
    const name = cell("name", toggle, el("small", "", t.description || t.schedule || ""));
    name.setAttribute("role", "rowheader");
    const when = cell("when", el("span", ""), el("small", ""));
    const trouble = (s) => (s.error ? 0 : s.state === "held" ? 1 : s.state === "holds" ? 3 : 2);
    const sinks = [...t.sinks].sort((a, b) => trouble(a) - trouble(b)), programs = t.consumers || [];
    const chips = el("ul", "chips", ...sinks.slice(0, 3).map(sinkChip), ...programs.slice(0, 2).map((c) => consumerChip(c, t)));
    const hidden = Math.max(0, sinks.length - 3) + Math.max(0, programs.length - 2);
    if (hidden) chips.append(chip("more", "", "+" + hidden, "open the row to see all"));
    const row = el("div", "row", name, cell("", badge), cell("lane", track(t)), when, cell("places", chips));
    row.setAttribute("role", "row");
    r.item.append(row);
    Object.assign(r, { full: true, toggle, when });
    toggle.addEventListener("click", () => { wish.open.has(t.name) ? wish.open.delete(t.name) : wish.open.add(t.name); fold(r); });
    fold(r);
    sayWhen(r);
  };
  const idle = window.requestIdleCallback || ((f) => setTimeout(() => f({ timeRemaining: () => 0 }), 30));
  let filling = false;
  const fillRest = () => {
    if (filling) return;
    filling = true;
    idle((left) => {
      filling = false;
      let n = 0;
      for (const name of shownOrder) {
        const r = rows.get(name);
        if (!r || r.full) continue;
        if (n++ >= 20 && left.timeRemaining() < 4) return fillRest();
        fill(r);
      }
    }, { timeout: 500 });
  };
  const fold = (r) => {
    const open = wish.open.has(r.t.name), there = r.item.children[1];
    r.toggle.setAttribute("aria-expanded", String(open));
    if (there) there.remove();
    if (open) r.item.append(details(r.t));
  };
  const list = (pairs) => {
    const dl = el("dl");
    for (const [k, v, cls] of pairs) if (v !== "" && v !== undefined && v !== null) dl.append(el("dt", "", k), el("dd", cls || "", v));
    return dl;
  };
  const time = (text) => (text ? both(at(text)) : "");
  const details = (t) => {
    const e = el("div", "details", list([
      ["Description", t.description], ["Schedule", t.schedule], ["Generation", t.generation], ["Label", t.label, "mono"], ["Id at SiteGPT", t.id, "mono"],
      ["Scopes", (t.scopes || []).join(", ")], ["Created", time(t.created)], ["In every sink", time(t.converged)], ["Next rotation", time(t.planned)],
      ["Overlap begins", time(t.overlap)], ["Expires", time(t.expires)], ["Users break", t.breaks && time(t.breaks)], ["Paused until", time(t.paused_until)],
    ]));
    for (const s of t.sinks) e.append(list([
      ["Sink", s.name], ["Kind", s.kind + (s.required ? "" : ", not required")], ["Place", s.place, "mono"],
      ["State", s.state + (s.generation ? ", generation " + s.generation : "") + (s.proven ? ", read back" : "")], ["Since", time(s.since)], ["Error", s.error, "err"], ["Next try", time(s.next)],
    ]));
    for (const c of t.consumers || []) e.append(list([["Program", c.title], ["Told of", c.told ? "generation " + c.told : "nothing yet"], ["Uses", c.taken ? "generation " + c.taken : ""], ["Since", time(c.since)], ["Error", c.error, "err"], ["Next try", time(c.next)]]));
    for (const g of t.retiring) e.append(list([["Older", "generation " + g.generation], ["Label", g.label, "mono"], ["Id at SiteGPT", g.id, "mono"], ["Created", time(g.created)], ["Is revoked", g.leave ? "" : time(g.revoke_at)], ["Expires", time(g.expires)], ["Waits", g.waits]]));
    return e;
  };
  const sayWhen = (r) => {
    if (!r.full) return;
    const t = r.t, p = at(t.planned), x = at(t.expires), n = now();
    const [first, second] = r.when.children;
    set(first, known(p) ? (p > n ? "rotates " : "was due ") + distance(p) : t.state === "unmanaged" ? "no successor" : "no working token");
    set(second, known(x) ? (x > n ? "expires " : "expired ") + distance(x) : t.retiring.length ? "last expires " + distance(Math.max(...t.retiring.map((g) => at(g.expires)))) : "");
    first.className = known(p) && p <= n ? "soon" : "";
    r.when.title = [known(p) && "next rotation " + instant(p), known(x) && "expires " + instant(x)].filter(Boolean).join("\n");
  };

  // Which rows, and in which order.
  const far = (t) => (known(t) ? t : Infinity);
  const orders = {
    "": (a, b) => rank.indexOf(a.state) - rank.indexOf(b.state) || far(at(a.breaks)) - far(at(b.breaks)) || far(at(a.expires)) - far(at(b.expires)),
    name: () => 0,
    planned: (a, b) => far(at(a.planned)) - far(at(b.planned)),
    expires: (a, b) => far(at(a.expires)) - far(at(b.expires)),
    created: (a, b) => (at(b.created) || 0) - (at(a.created) || 0),
  };
  let facts = null, shownOrder = [];
  const arrange = () => {
    const order = orders[wish.sort] || orders[""];
    const tokens = [...facts.tokens].sort((a, b) => order(a, b) || 0 || (a.name < b.name ? -1 : 1));
    const words = wish.q.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = tokens.filter((t) => words.every((w) => rows.get(t.name).hay.includes(w)));
    const show = texts.filter((t) => !wish.state || t.state === wish.state).map((t) => t.name);
    if (show.length !== shownOrder.length || show.some((n, i) => n !== shownOrder[i] || rows.get(n).item.parentNode === null)) {
      const focus = document.activeElement, keep = focus && $("rows").contains(focus) ? focus.closest(".item") : null;
      for (const n of show.slice(0, 30)) fill(rows.get(n));
      $("rows").replaceChildren(...show.map((n) => rows.get(n).item));
      shownOrder = show;
      if (keep && keep.isConnected) focus.focus({ preventScroll: true });
    }
    fillRest();
    const none = $("none");
    none.hidden = show.length > 0;
    set(none, facts.tokens.length ? "No token fits the filter." : "No tokens are declared: there is nothing to rotate.");
    drawStates(texts);
  };
  const drawStates = (tokens) => {
    const n = {};
    for (const t of tokens) n[t.state] = (n[t.state] || 0) + 1;
    const want = ["", ...rank.filter((s) => n[s] || s === wish.state)];
    const box = $("states");
    if (box.dataset.of !== want.join()) {
      const focused = box.contains(document.activeElement) ? document.activeElement.dataset.state : null;
      box.dataset.of = want.join();
      box.replaceChildren(...want.map((s) => {
        const b = el("button", "pill", s ? states[s][0] + " " + states[s][1] : "all", el("b"));
        b.type = "button";
        b.dataset.state = s;
        b.addEventListener("click", () => { wish.state = wish.state === s ? "" : s; keepWish(); arrange(); });
        return b;
      }));
      if (focused !== null) [...box.children].find((b) => b.dataset.state === focused)?.focus();
    }
    for (const b of box.children) {
      b.setAttribute("aria-pressed", String(b.dataset.state === wish.state));
      set(b.lastChild, String(b.dataset.state ? n[b.dataset.state] || 0 : tokens.length));
    }
  };

  // What is wrong, in the words of rotatord status. What many tokens suffer alike is one card.
  let allCards = false;
  const cards = 9;
  const alike = (p) => {
    if (p.outage) return "outage\n" + p.outage;
    let error = p.error || "";
    const t = rows.get(p.token)?.t, own = t ? t.sinks.flatMap((s) => [s.name, s.place]) : [];
    for (const part of [p.sink, ...own.sort((a, b) => b.length - a.length), p.token]) if (part) error = error.split(part).join("…");
    return [p.kind, p.what.split(p.token).join("…"), error, p.consumer].join("\n");
  };
  const seek = (name) => { wish.q = name; wish.state = ""; $("q").value = name; keepWish(); arrange(); $("tokens").scrollIntoView(); };
  const link = (name) => { const b = el("button", "link", name); b.type = "button"; b.title = "show this token"; b.addEventListener("click", () => seek(name)); return b; };
  const card = (bad, tag, title, ...rest) => el("article", bad ? "card bad" : "card", el("h2", "", el("span", "tag", (bad ? "✕ " : "! ") + tag), ...title), ...rest);
  const lines = (text) => (text || "").split("\n").map((l) => l.replace(/[ \t]+$/, "")).filter(Boolean).join("\n");
  const times = (since, next, until, breaks) => {
    const out = [];
    if (known(since)) out.push("since " + distance(since) + " (" + instant(since) + ")");
    if (known(next) && next > now()) out.push("next try " + distance(next));
    if (known(until) && until > now()) out.push("waits for a person, at most until " + instant(until) + ", " + distance(until));
    const kids = [];
    if (out.length) kids.push(el("p", "facts", out.join(" · ")));
    if (known(breaks)) kids.push(el("p", "breaks", breaks > now() ? "breaks its users " + both(breaks) : "its users have no working token NOW"));
    return kids;
  };
  const first = (list) => list.filter(known).sort((a, b) => a - b)[0] ?? NaN;
  const group = (ps) => {
    const p = ps[0], cut = (e) => lines(p.sink ? (e || "").split("\n").map((l) => (l.startsWith(p.sink + ": ") ? l.slice(p.sink.length + 2) : l)).join("\n") : e);
    const error = cut(p.error), names = [...new Set(ps.map((x) => x.token))];
    const tag = p.failing ? "failing" : p.kind.startsWith("held") || p.kind === "blocked" ? "waits for you" : "worth a look";
    const title = ps.length === 1 ? [p.token ? link(p.token) : "", p.sink ? ": " : "", p.sink ? el("code", "", p.sink) : "", ": " + p.what]
      : [link(names[0]), (names.length > 1 ? " and " + (names.length - 1) + " more" : "") + ": " + (ps.every((x) => x.sink) ? count(ps.length, "sink") + ": " : "") + p.what];
    if (p.outage) title.splice(0, title.length, p.outage + " is out: " + count(names.length, "token") + (names.length === 1 ? " waits" : " wait"));
    const kids = times(first(ps.map((x) => at(x.since))), first(ps.map((x) => at(x.next))), first(ps.map((x) => at(x.until))), first(ps.map((x) => at(x.breaks))));
    if (error) { const pre = el("pre", "", error); pre.tabIndex = 0; kids.push(pre); }
    if (p.do) kids.push(el("p", "do", p.do));
    if (names.length > 1) kids.push(el("p", "names", el("span", "", count(names.length, "token") + ":"), ...names.slice(0, 12).map(link), names.length > 12 ? "and " + (names.length - 12) + " more" : ""));
    return card(p.failing, tag, title, ...kids);
  };
  const drawTrouble = () => {
    const out = [], c = facts.configuration, l = facts.list;
    if (facts.daemon && facts.daemon.stuck) out.push(card(true, "hangs", ["rotatord itself: " + facts.daemon.stuck], el("p", "do", "→ restart it; its log may say what it waits for")));
    if (c.refused) {
      const again = at(c.refused.next);
      const pre = el("pre", "", lines((c.refused.problems || []).join("\n")));
      pre.tabIndex = 0;
      out.push(card(true, "refused", [c.refused.error], pre.textContent ? pre : "",
        el("p", "facts", "In force is the configuration that was accepted " + (c.accepted ? instant(at(c.accepted)) : "before") + "."),
        el("p", "do", known(again) ? "→ it is tried again by itself, " + distance(again) : "→ mend the file: rotatord validate checks it, and the daemon takes it over by itself")));
    } else if (c.edited) out.push(card(false, "edited", ["the configuration was edited, and is taken over within seconds"], el("p", "do", "→ at once: rotatord reload")));
    const groups = new Map();
    for (const p of facts.problems) { const k = alike(p); groups.has(k) ? groups.get(k).push(p) : groups.set(k, [p]); }
    for (const ps of groups.values()) out.push(group(ps));
    if (l.unexplained.length) {
      const names = el("ul", "mono", ...l.unexplained.slice(0, 20).map((t) => el("li", "", t.ID + "  " + t.Name)), l.unexplained.length > 20 ? el("li", "", "and " + (l.unexplained.length - 20) + " more") : "");
      out.push(card(false, "unexplained", ["At SiteGPT, " + count(l.unexplained.length, "token") + " with this instance's mark that this state never made"],
        known(at(l.at)) ? el("p", "facts", "seen " + distance(at(l.at))) : "", names, el("p", "do", "→ rotatord orphans shows them; on a copied machine: rotatord new-instance")));
    }
    const box = $("trouble"), more = out.length - cards;
    const scrolled = [...box.querySelectorAll("pre")].map((p) => p.scrollTop);
    const key = document.activeElement && box.contains(document.activeElement) ? document.activeElement.textContent : null;
    if (more > 0) {
      const b = el("button", "", allCards ? "Show the most urgent ones alone" : "Show " + more + " more");
      b.id = "more";
      b.type = "button";
      b.addEventListener("click", () => { allCards = !allCards; drawTrouble(); });
      box.replaceChildren(...(allCards ? out : out.slice(0, cards)), b);
    } else box.replaceChildren(...out);
    box.querySelectorAll("pre").forEach((p, i) => { p.scrollTop = scrolled[i] || 0; });
    if (key !== null) [...box.querySelectorAll("button")].find((b) => b.textContent === key)?.focus({ preventScroll: true });
    box.hidden = out.length === 0;
    return out.length;
  };

  // The verdict, in the header, the title and the icon of the tab.
  const colours = { good: "%2317683b", bad: "%23b3201a", wait: "%23b77900", stale: "%23777" };
  const verdict = (cards) => {
    const failing = new Set(facts.problems.filter((p) => p.failing).map((p) => p.token)), n = facts.tokens.length;
    const c = facts.configuration, stuck = facts.daemon && facts.daemon.stuck;
    let kind = "good", mark = "✓", text = n === 1 ? "The one token is fresh" : n ? "All " + n + " tokens are fresh" : "No tokens are declared";
    if (stuck) [kind, mark, text] = ["bad", "✕", "The daemon hangs"];
    else if (failing.size) [kind, mark, text] = ["bad", "✕", failing.size + " of " + count(n, "token") + (failing.size === 1 ? " is" : " are") + " failing"];
    else if (c.refused) [kind, mark, text] = ["bad", "✕", "The configuration is refused"];
    else if (facts.problems.length || facts.list.unexplained.length) [kind, mark, text] = ["wait", "!", count(Math.max(1, cards), "thing") + " to look at"];
    else if (facts.tokens.some((t) => t.state === "none" || t.state === "due" || t.state === "rotating")) [kind, mark, text] = ["wait", "↻", count(facts.tokens.filter((t) => t.state !== "current").length, "token") + " on the way"];
    const root = document.body.classList;
    root.remove("is-good", "is-bad", "is-wait");
    root.add("is-" + kind);
    set($("verdict").firstChild, mark);
    set($("verdict-text"), text);
    let ahead = null;
    for (const t of facts.tokens) if (at(t.planned) > now() && (!ahead || at(t.planned) < at(ahead.planned))) ahead = t;
    set($("verdict-note"), ahead ? "next: " + ahead.name + " " + distance(at(ahead.planned)) : "");
    title(kind, (failing.size ? "(" + failing.size + ") " : "") + "rotatord" + (facts.instance ? " / " + facts.instance : ""));
  };
  let icon = "";
  const title = (kind, text) => {
    if (document.title !== text) document.title = text;
    if (icon === kind) return;
    icon = kind;
    $("icon").href = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='" + colours[kind] + "'/><path d='M4 8h8' stroke='white' stroke-width='2.4' stroke-linecap='round'/></svg>";
  };

  const take = (f) => {
    skew = at(f.at) - Date.now();
    facts = f;
    const names = new Set();
    for (const t of f.tokens) {
      names.add(t.name);
      const text = JSON.stringify(t), old = rows.get(t.name);
      if (old && old.text === text) continue;
      const r = build(t);
      r.text = text;
      rows.set(t.name, r);
      if (old && old.item.parentNode) {
        const focused = old.full && old.toggle === document.activeElement;
        if (old.full) fill(r);
        old.item.replaceWith(r.item);
        if (focused) r.toggle.focus({ preventScroll: true });
      }
    }
    for (const n of rows.keys()) if (!names.has(n)) { rows.get(n).item.remove(); rows.delete(n); }
    set($("instance"), f.instance || "");
    draw();
    arrange();
    if (!heard) requestAnimationFrame(() => setTimeout(() => performance.mark("drawn"), 0));
  };
  const draw = () => {
    choose(facts.tokens);
    drawAxis();
    for (const r of rows.values()) sayWhen(r);
    verdict(drawTrouble());
  };

  // Asking, again and again, while somebody looks.
  let tag = "", heard = 0, trouble = "", misses = 0, timer = 0, asking = false;
  const ask = async () => {
    if (asking || document.hidden) return;
    asking = true;
    clearTimeout(timer);
    const stop = new AbortController(), late = setTimeout(() => stop.abort(), patience);
    try {
      const answer = await fetch(location.origin + "/api/status.json", { cache: "no-store", credentials: "same-origin", redirect: "error", signal: stop.signal, headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        const f = await answer.json();
        if (f.format !== 1) throw new Error("it is another version: load this page again");
        tag = answer.headers.get("ETag") || "";
        take(f);
      } else if (answer.status === 304) {
        draw();
      } else if (answer.status === 401) {
        throw new Error("it wants the token: load this page again, and log in");
      } else if (answer.status === 503) {
        throw new Error("it cannot look at its state: " + ((await answer.json().catch(() => ({}))).error || "503"));
      } else {
        throw new Error("it answers " + answer.status);
      }
      heard = Date.now();
      misses = 0;
      trouble = "";
      const dot = document.querySelector(".dot");
      dot.classList.remove("beat");
      requestAnimationFrame(() => dot.classList.add("beat"));
    } catch (e) {
      misses++;
      trouble = e instanceof TypeError || e.name === "AbortError" ? "the daemon does not answer" : e.message;
    } finally {
      clearTimeout(late);
      asking = false;
    }
    tell();
    timer = setTimeout(ask, misses === 1 ? 1000 : pollEvery);
  };
  const tell = () => {
    const old = Date.now() - heard, stale = misses > 1 || (misses > 0 && !heard) || (heard > 0 && old > lost && !asking && !document.hidden && misses > 0);
    document.body.classList.toggle("is-stale", stale);
    $("banner").hidden = !stale;
    if (stale) {
      const what = trouble[0].toUpperCase() + trouble.slice(1);
      set($("banner"), "⚠ " + what + ". " + (heard ? "What you see is of " + clock(heard + skew) + ", " + length(old) + " ago: nothing here is news." : "There is nothing to show yet."));
      title("stale", "⚠ no answer – rotatord");
      set($("pulse-text"), heard ? "no answer for " + length(old) : "no answer");
    } else if (heard) set($("pulse-text"), "as of " + clock(heard + skew));
  };
  setInterval(() => { if (!document.hidden) tell(); }, 1000);
  document.addEventListener("visibilitychange", () => { if (document.hidden) clearTimeout(timer); else ask(); });
  addEventListener("pageshow", () => ask());

  // Keys and controls.
  const changed = () => { keepWish(); if (facts) { draw(); arrange(); } };
  $("q").addEventListener("input", () => { wish.q = $("q").value; changed(); });
  $("sort").addEventListener("change", () => { wish.sort = $("sort").value; changed(); });
  $("range").addEventListener("change", () => { wish.range = $("range").value; changed(); });
  addEventListener("hashchange", () => { readWish(); if (facts) { draw(); arrange(); } });
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const on = document.activeElement;
    if (e.key === "/" && !(on && /INPUT|SELECT/.test(on.tagName))) { $("q").focus(); e.preventDefault(); }
    if (e.key === "Escape" && on === $("q")) { $("q").value = wish.q = ""; changed(); on.blur(); }
    const item = on && on.closest && on.closest(".item");
    if (item && (e.key === "ArrowDown" || e.key === "ArrowUp")) {
      const to = e.key === "ArrowDown" ? item.nextElementSibling : item.previousElementSibling;
      if (to) { fill(rows.get(shownOrder[[...to.parentNode.children].indexOf(to)])); to.querySelector("button").focus(); e.preventDefault(); }
    }
  });
  let resized = 0;
  addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(() => { if (facts) drawAxis(); }); });

  readWish();
  $("app").hidden = false;
  ask();
})();
