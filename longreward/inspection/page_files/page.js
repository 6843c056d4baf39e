"use strict";
(() => {
  // Texts of records are untrusted: they become text nodes, never markup.
  const $ = (id) => document.getElementById(id);

  const el = (tag, properties = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") node.className = value;
      else if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
      else if (name === "data") Object.assign(node.dataset, value);
      else if (name === "style") for (const [key, setting] of Object.entries(value)) node.style.setProperty(key, setting);
      else node.setAttribute(name, value === true ? "" : SHOWN.has(name) ? visible(value) : value);
    }
    node.append(...nodes(children));
    return node;
  };
  const nodes = (children) =>
    children
      .flat(2)
      .filter((child) => child !== null && child !== undefined)
      .map((child) => (child instanceof Node ? child : visible(child)));
  const fill = (node, ...children) => node.replaceChildren(...nodes(children));
  const SHOWN = new Set(["title", "aria-label"]);

  // Control and direction characters become visible, one for one: spans of evidence keep their offsets.
  const visible = (text) =>
    String(text)
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
      .replace(/[\u007f-\u0084\u0086-\u009f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/g, "\u2426")
      .replace(/[\u0085\u2028\u2029]/g, "\n");

  // --- data ---------------------------------------------------------------------------------------------------------

  const bytesOf = (base64) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  };
  const decode = async (id) => {
    const stream = new Blob([bytesOf($(id).textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  // In MLflow's sandboxed frame there is no localStorage and no download: flags then last as long as the page.
  const isSandboxed = window.origin === "null" && location.protocol !== "file:";
  const memory = new Map();
  const storage = {
    get: (key) => {
      try {
        return localStorage.getItem(key);
      } catch {
        return memory.get(key) ?? null;
      }
    },
    set: (key, value) => {
      try {
        localStorage.setItem(key, value);
      } catch {
        memory.set(key, value);
      }
    },
  };

  const state = {
    index: null,
    collection: null,
    rows: [], // of the collection, as filtered and sorted
    row: null,
    entry: null,
    document: "",
    sides: [null, null], // ids of the responses on the left and on the right
    statement: null, // {side, number}
    reader: "document",
  };
  const isPairs = () => state.collection.kind === "rewards";
  const sideNames = () => (isPairs() ? ["Chosen", "Rejected"] : ["SFT", "DPO"]);

  // --- numbers ------------------------------------------------------------------------------------------------------

  const number = (value, digits = 2) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(2);
  const count = (value) => value.toLocaleString("en");
  const cost = (value) =>
    value === null || value === undefined ? null : `${state.index.currency} ${value === 0 ? "0" : value.toPrecision(2)}`;

  const supportClass = (support) => (support === null ? "unread" : support >= 1 ? "full" : support > 0 ? "partial" : "none");
  const SUPPORT = { full: "supported", partial: "partly supported", none: "not supported", unread: "unreadable verdict" };
  const MET = { ...SUPPORT, full: "met", none: "not met" };
  const SIGN = { full: "✓", partial: "◐", none: "✗", unread: "?" };

  // --- flags --------------------------------------------------------------------------------------------------------

  const storageKey = () => `longreward/${state.index.storageKey}/${state.collection.name}`;
  const readFlags = () => {
    try {
      return new Map(JSON.parse(storage.get(storageKey()) ?? "[]"));
    } catch {
      return new Map();
    }
  };
  const writeFlags = () => storage.set(storageKey(), JSON.stringify([...flags]));
  let flags = new Map(); // {flagged, comment} by the id of a prompt
  const saveFlag = (id, change) => {
    flags = readFlags(); // another tab may have changed them
    const flag = { flagged: false, comment: "", ...flags.get(id), ...change };
    if (flag.flagged || flag.comment) flags.set(id, flag);
    else flags.delete(id);
    writeFlags();
    showFlagCount();
    markRow(id);
  };
  const flagKey = (row) => (isPairs() ? row.id : row.key);
  const flagOf = (row) => flags.get(flagKey(row));
  const flagged = () => [...flags].filter(([, flag]) => flag.flagged);
  const showFlagCount = () => {
    $("flag-count").textContent = flagged().length;
  };
  const publishedId = (id) => (/^(0|[1-9]\d{0,14})$/.test(id) ? Number(id) : id);
  const exportLines = () =>
    flagged()
      .map(([id, flag]) => JSON.stringify({ idx: publishedId(id), ...(flag.comment ? { comment: flag.comment } : {}) }) + "\n")
      .join("");

  // --- list ---------------------------------------------------------------------------------------------------------

  const responsesOf = (row, which) => {
    if (which === "any") return row.responses;
    const id = which === "left" ? row.left : row.right;
    return row.responses.filter((response) => response.id === id);
  };
  const range = (name) => {
    const bound = (end) => ($(`${name}-${end}`).value === "" ? null : Number($(`${name}-${end}`).value));
    const [low, high] = [bound("min"), bound("max")];
    return low === null && high === null ? null : (value) => value !== null && value !== undefined && (low === null || value >= low) && (high === null || value <= high);
  };
  const filterTests = () => {
    const tests = [];
    const [margin, length, score] = [range("margin"), range("length"), range("score")];
    const [show, reason, group, of, dimension] = ["show", "reason", "group", "of", "dimension"].map((id) => $(id).value);
    if (show === "pair") tests.push((row) => row.margin !== null || (isPairs() && row.left && !row.noPair));
    if (show === "disputed") tests.push((row) => row.disputed);
    if (show === "no-pair") tests.push((row) => row.noPair !== null);
    if (show === "flagged") tests.push((row) => flagOf(row)?.flagged);
    if (show === "commented") tests.push((row) => flagOf(row)?.comment);
    if (show === "unscored") tests.push((row) => row.unscored.length > 0);
    if (group) tests.push((row) => row.group === group);
    if (reason) tests.push((row) => row.noPair === reason || row.unscored.includes(reason));
    if (margin) tests.push((row) => margin(row.margin));
    if (length) tests.push((row) => responsesOf(row, of).some((response) => length(response.length)));
    if (score) tests.push((row) => responsesOf(row, of).some((response) => score(dimension === "value" ? response.value : response.scores[dimension])));
    return tests;
  };
  const magnitude = (row) => (row.margin === null ? -1 : Math.abs(row.margin) / row.maxValue);
  const bestValue = (row) => Math.max(...row.responses.map((response) => response.value ?? -1), -1);
  const SORTS = {
    file: ["as in the data", null],
    large: ["largest difference", (a, b) => magnitude(b) - magnitude(a)],
    small: ["smallest difference", (a, b) => (a.margin === null) - (b.margin === null) || magnitude(a) - magnitude(b)],
    better: ["right side better first", (a, b) => (b.margin ?? -99) - (a.margin ?? -99)],
    worse: ["right side worse first", (a, b) => (a.margin ?? 99) - (b.margin ?? 99)],
    high: ["highest reward", (a, b) => bestValue(b) - bestValue(a)],
    low: ["lowest reward", (a, b) => bestValue(a) - bestValue(b)],
  };

  const texts = new Map(); // lower-case texts of blocks, filled by the first search
  const flatten = (value, out) => {
    if (typeof value === "string") out.push(value);
    else if (value && typeof value === "object") for (const inner of Object.values(value)) flatten(inner, out);
    return out;
  };
  const SEARCHED = (entry) => [
    entry.id, entry.query, entry.answer, entry.document_name,
    entry.responses.map((r) => [r.text, r.dimensions.map((d) => [d.reply, d.reason, d.statements.map((s) => [s.text, s.reply])])]),
    entry.extracts.map((e) => e.text),
  ];
  const textOf = async (block) => {
    if (!texts.has(block)) {
      const value = await decode(block);
      texts.set(block, flatten(typeof value === "string" ? value : SEARCHED(value), []).join("\n").toLowerCase());
    }
    return texts.get(block);
  };
  let searching = 0;

  const update = async ({ keep = true } = {}) => {
    const run = ++searching;
    const tests = filterTests();
    $("filter-count").hidden = tests.length === 0;
    $("filter-count").textContent = tests.length;
    const sort = SORTS[$("sort").value][1];
    let rows = state.collection.rows.filter((row) => tests.every((test) => test(row)));
    if (sort) rows = [...rows].sort(sort);
    const words = $("search").value.toLowerCase().trim();
    $("progress").hidden = true;
    if (words) {
      const found = [];
      let shown = performance.now();
      for (const [number, row] of rows.entries()) {
        const comment = flagOf(row)?.comment ?? "";
        const match =
          (await textOf(row.block)).includes(words) ||
          comment.toLowerCase().includes(words) ||
          (row.document !== null && (await textOf(row.document)).includes(words));
        if (run !== searching) return;
        if (match) found.push(row);
        if (performance.now() - shown > 120) {
          shown = performance.now();
          $("progress").hidden = false;
          $("progress").textContent = `${number + 1} of ${rows.length}`;
          await new Promise((resolve) => setTimeout(resolve));
          if (run !== searching) return;
        }
      }
      rows = found;
      $("progress").hidden = true;
    }
    state.rows = rows;
    showList();
    if (!keep || !rows.includes(state.row)) await open(rows[0] ?? null);
    else markCurrent();
  };

  const showList = () => {
    const { rows: all, total } = state.collection;
    const shown = state.rows.length === all.length ? count(all.length) : `${count(state.rows.length)} of ${count(all.length)}`;
    $("counter").textContent = `${shown} prompts` + (total && total > all.length ? `, ${isPairs() ? "evenly spaced" : "the largest differences"} of ${count(total)}` : "");
    $("list").replaceChildren(...state.rows.map(listRow));
  };
  const listRow = (row) =>
    el(
      "li",
      { data: { key: row.key } },
      el(
        "a",
        { href: addressOf(row), class: "item", tabindex: -1 },
        el(
          "span",
          { class: "item-head" },
          el("bdi", { class: "id" }, row.id),
          row.group ? el("span", { class: "chip" }, row.group) : null,
          el("span", { class: "spring" }),
          el("span", { class: "flag-mark", "aria-hidden": "true" }, markText(row)),
          row.margin !== null
            ? el("span", { class: `margin ${isPairs() ? "" : row.margin > 0 ? "up" : row.margin < 0 ? "down" : ""}`, title: "margin" }, isPairs() ? number(row.margin) : signed(row.margin))
            : row.noPair
              ? el("span", { class: "chip warn" }, "no pair")
              : null,
          row.disputed ? el("span", { class: "chip warn", title: "the judges disagree" }, "disputed") : null,
        ),
        el("bdi", { class: "item-query" }, row.query),
        row.noPair ? el("span", { class: "item-note" }, row.noPair) : null,
        row.unscored.length ? el("span", { class: "item-note" }, `unscored: ${row.unscored[0]}`) : null,
      ),
    );
  const markText = (row) => (flagOf(row)?.flagged ? "⚑" : "") + (flagOf(row)?.comment ? "✎" : "");
  const itemOf = (row) => row && [...$("list").children].find((item) => item.dataset.key === row.key);
  const markRow = (id) => {
    const row = state.collection.rows.find((candidate) => flagKey(candidate) === id);
    const item = itemOf(row);
    if (item) item.querySelector(".flag-mark").textContent = markText(row);
  };
  const markCurrent = () => {
    for (const item of $("list").querySelectorAll("[aria-current]")) item.removeAttribute("aria-current");
    const item = itemOf(state.row);
    if (!item) return;
    item.setAttribute("aria-current", "true");
    item.scrollIntoView({ block: "nearest" });
  };

  // --- address ------------------------------------------------------------------------------------------------------

  const addressOf = (row) => `#${encodeURIComponent(row.key)}`;
  const rowAtAddress = () => {
    let key;
    try {
      key = decodeURIComponent(location.hash.slice(1));
    } catch {
      return null;
    }
    for (const collection of state.index.collections) {
      const row = key && collection.rows.find((candidate) => candidate.key === key);
      if (row) return { collection, row };
    }
    return null;
  };
  const setAddress = (row) => {
    try {
      history.replaceState(null, "", row ? addressOf(row) : "#");
    } catch {
      // a sandboxed frame has no history
    }
  };

  // --- one prompt ---------------------------------------------------------------------------------------------------

  let opening = 0;
  const open = async (row) => {
    const run = ++opening;
    state.row = row;
    markCurrent();
    if (!row) {
      state.entry = null;
      $("main").replaceChildren(el("p", { class: "empty" }, "No prompt matches the filters."));
      $("reader").replaceChildren();
      $("reader-note").textContent = "";
      setAddress(null);
      return;
    }
    const [entry, text] = await Promise.all([decode(row.block), row.document ? decode(row.document) : ""]);
    if (run !== opening) return;
    setAddress(row);
    Object.assign(state, { entry, document: text, sides: [entry.left, entry.right], statement: null });
    if (state.reader === "extracts" && !entry.extracts.length) state.reader = "document";
    showEntry();
    $("main").scrollTop = 0;
  };

  const response = (side) => state.entry.responses.find((candidate) => candidate.id === state.sides[side]) ?? null;

  const showEntry = () => {
    const { entry, row } = state;
    const flag = flagOf(row);
    const comment = el("input", {
      id: "comment", type: "text", placeholder: "Comment (c)", "aria-label": "Comment", autocomplete: "off",
      on: { change: (event) => saveFlag(flagKey(row), { comment: event.target.value.trim() }) },
    });
    comment.value = flag?.comment ?? "";
    const usage = totalUsage(entry);
    fill(
      $("main"),
      el(
        "div",
        { class: "entry-head" },
        el("h1", {}, el("bdi", {}, entry.id)),
        entry.group ? el("span", { class: "chip" }, entry.group) : null,
        entry.margin !== null ? el("span", { class: "chip strong" }, isPairs() ? `margin ${number(entry.margin)}` : `DPO − SFT ${signed(entry.margin)}`) : null,
        Object.entries(entry.member_margins).map(([judge, margin]) => el("span", { class: `chip ${margin < 0 ? "warn" : ""}`, title: "margin by this judge" }, `${judge} ${signed(margin)}`)),
        entry.disputed ? el("span", { class: "chip warn" }, "disputed") : null,
        entry.no_pair ? el("span", { class: "chip warn" }, `no pair: ${entry.no_pair}`) : null,
        usage ? el("span", { class: "note", title: "All judge calls of this prompt" }, usage) : null,
        el(
          "span",
          { class: "entry-tools" },
          comment,
          el("button", { id: "flag", type: "button", "aria-pressed": String(Boolean(flag?.flagged)), title: "Flag (f)", on: { click: toggleFlag } }, "⚑ Flag"),
        ),
      ),
      el("p", { class: "query", dir: "auto" }, entry.query),
      entry.answer ? el("details", { class: "answer" }, el("summary", {}, "Reference answer"), el("p", { dir: "auto" }, entry.answer)) : null,
      ranking(),
      el("div", { class: "sides" }, sideColumn(0), sideColumn(1)),
    );
    showReader();
  };

  const totalUsage = (entry) => {
    let [calls, money, unknown] = [0, entry.extraction_cost ?? 0, false];
    for (const { dimensions } of entry.responses)
      for (const dimension of dimensions) {
        calls += dimension.calls;
        if (dimension.calls && dimension.cost === null) unknown = true;
        money += dimension.cost ?? 0;
      }
    if (!calls) return "";
    return `${count(calls)} judge calls` + (unknown ? "" : `, ${cost(money)}`);
  };

  const bar = (value, max, label) =>
    el(
      "span",
      { class: "bar-track", role: "img", "aria-label": `${label}: ${number(value)} of ${max}` },
      value === null ? null : el("span", { class: "bar-fill", style: { width: `${Math.max(0, Math.min(1, value / max)) * 100}%` } }),
    );

  const ranking = () => {
    const { entry } = state;
    if (entry.responses.length < 3) return null;
    const names = [...DIMENSIONS].filter((name) => entry.responses.some((one) => one.dimensions.some((dimension) => dimension.name === name)));
    const rows = entry.responses.map((candidate, position) => {
      const pick = (side) =>
        el("input", {
          type: "radio", name: `side-${side}`, checked: state.sides[side] === candidate.id, "aria-label": `${candidate.label} on the ${side ? "right" : "left"}`,
          on: { change: () => choose(side, candidate.id) },
        });
      const role = entry.is_pair && candidate.id === entry.left ? "chosen" : entry.is_pair && candidate.id === entry.right ? "rejected" : "";
      return el(
        "tr",
        { class: role },
        el("td", {}, pick(0)),
        el("td", {}, pick(1)),
        el("td", { class: "rank" }, isPairs() ? String(position + 1) : ""),
        el("td", {}, el("bdi", { class: "id" }, candidate.label), role ? el("span", { class: `chip ${role}` }, role) : null),
        el("td", { class: "wide" }, bar(candidate.value, entry.max_value, "reward"), el("b", {}, candidate.bounds ? `${number(candidate.bounds[0], 1)}–${number(candidate.bounds[1], 1)}` : number(candidate.value))),
        ...names.map((name) => {
          const dimension = candidate.dimensions.find((one) => one.name === name);
          return el("td", { class: "small" }, bar(dimension?.score ?? null, 10, name), number(dimension?.score, 1));
        }),
        el("td", { class: "num" }, count(candidate.tokens ?? candidate.text.length), candidate.truncated ? el("span", { class: "chip warn", title: "cut at the token limit" }, "cut") : null),
      );
    });
    const hasTokens = entry.responses[0].tokens !== null;
    const short = (name) => (name.length > 7 ? `${name.slice(0, 5)}.` : name);
    const heads = [["L", "on the left"], ["R", "on the right"], [isPairs() ? "#" : "", "rank"], ["Response"], ["Reward"], ...names.map((name) => [short(name), name]), [hasTokens ? "Tokens" : "Chars"]];
    return el(
      "div",
      { class: "scroll" },
      el("table", { class: "ranking" }, el("thead", {}, el("tr", {}, heads.map(([head, title]) => el("th", { scope: "col", title: title ?? head }, head)))), el("tbody", {}, rows)),
    );
  };

  const choose = (side, id) => {
    state.sides[side] = id;
    state.statement = null;
    showEntry();
  };
  const cycle = (side, step) => {
    const ids = state.entry.responses.map((candidate) => candidate.id);
    if (ids.length > 1) choose(side, ids[(ids.indexOf(state.sides[side]) + step + ids.length) % ids.length]);
  };

  const sideColumn = (side) => {
    const shown = response(side);
    const [left, right] = [state.entry.left, state.entry.right];
    if (!shown) return el("article", { class: "side-column" }, el("p", { class: "empty" }, state.entry.responses.length ? "No second response." : "No response."));
    const isChosen = isPairs() && state.entry.is_pair && shown.id === left;
    const isRejected = isPairs() && state.entry.is_pair && shown.id === right;
    const role = isChosen ? "Chosen" : isRejected ? "Rejected" : isPairs() ? "Response" : "";
    const statements = allStatements(shown);
    return el(
      "article",
      { class: `side-column ${isChosen ? "chosen" : isRejected ? "rejected" : ""}`, data: { side } },
      el(
        "h2",
        {},
        role ? el("span", {}, `${role} `) : null,
        el("bdi", { class: "id" }, shown.label),
        el("span", { class: "spring" }),
        el("span", { class: "value" }, shown.bounds ? `${number(shown.bounds[0], 1)}–${number(shown.bounds[1], 1)}` : number(shown.value)),
      ),
      el("div", { class: "response", dir: "auto" }, markedResponse(shown, statements, side)),
      Object.keys(shown.measures).length
        ? el("p", { class: "measures" }, Object.entries(shown.measures).map(([name, value]) => el("span", { class: "chip" }, `${name} ${number(value)}`)))
        : null,
      el("div", { class: "dimensions" }, shown.dimensions.map((dimension) => dimensionRow(dimension))),
      shown.dimensions
        .filter((dimension) => dimension.statements.length)
        .map((dimension) => [
          el("h3", {}, `${STATEMENTS[dimension.name] ?? "Statements"} (${dimension.statements.length})`),
          el("ol", { class: "statements" }, dimension.statements.map((statement) => statementRow(statement, side, statements.indexOf(statement), dimension.name))),
        ]),
    );
  };

  // What each judge of a panel gave.
  const memberScores = (scores) =>
    Object.keys(scores).length ? el("p", { class: "measures" }, Object.entries(scores).map(([judge, score]) => el("span", { class: "chip" }, `${judge} ${number(score, 1)}`))) : null;

  const STATEMENTS = { rubric: "Rubric", citations: "Statements with their citations" };
  // The statements of all dimensions: a position in this list identifies one of them.
  const allStatements = (shown) => (shown ? shown.dimensions.flatMap((dimension) => dimension.statements) : []);

  const DIMENSIONS = new Set(["helpfulness", "logicality", "faithfulness", "completeness", "rubric", "citations"]);
  const dimensionRow = (dimension) => {
    const max = dimension.calls || DIMENSIONS.has(dimension.name) ? 10 : null; // verdicts of benchmarks have scales of their own
    const facts = [
      dimension.judge,
      dimension.calls ? `${count(dimension.calls)} calls` : null,
      dimension.calls ? `${count(dimension.prompt_tokens)} + ${count(dimension.completion_tokens)} tokens` : null,
      dimension.calls ? (cost(dimension.cost) ?? "unknown cost") : null,
      dimension.truncated ? "from a reply that was cut" : null,
    ].filter(Boolean);
    return el(
      "details",
      { class: `dimension ${max ? "" : "wide"}`, data: { name: dimension.name } },
      el(
        "summary",
        {},
        el("span", { class: "dimension-name" }, dimension.name),
        max ? bar(dimension.score, max, dimension.name) : null,
        el("span", { class: "dimension-score" }, dimension.score !== null ? number(dimension.score, 1) : dimension.bounds ? `${number(dimension.bounds[0], 1)}–${number(dimension.bounds[1], 1)}` : "unscored"),
      ),
      memberScores(dimension.members),
      dimension.reason ? el("p", { class: "reason" }, dimension.reason) : null,
      dimension.reply ? el("blockquote", { dir: "auto" }, dimension.reply) : el("p", { class: "note" }, dimension.statements.length ? "The replies are with the statements." : "No reply is recorded."),
      el("p", { class: "note" }, facts.join(" · ")),
      dimension.prompt_hashes.length ? el("p", { class: "note hash" }, "prompts ", dimension.prompt_hashes.map((hash) => el("code", { title: hash }, hash.slice(0, 12)))) : null,
    );
  };

  const statementRow = (statement, side, position, dimension) => {
    const kind = supportClass(statement.support);
    const labels = dimension === "rubric" ? MET : SUPPORT;
    const active = state.statement?.side === side && state.statement.position === position;
    return el(
      "li",
      { class: `statement ${kind}`, "aria-current": active ? "true" : null, data: { position } },
      el(
        "button",
        { type: "button", title: `${labels[kind]}: show the evidence`, on: { click: () => pickStatement(side, position) } },
        el("span", { class: "sign", "aria-label": labels[kind] }, SIGN[kind]),
        el("span", { dir: "auto" }, statement.text),
        statement.weight === 1 ? null : el("span", { class: "note" }, ` weight ${number(statement.weight)}`),
      ),
      active
        ? el(
            "div",
            { class: "statement-more" },
            memberScores(statement.votes),
            statement.reason ? el("p", { class: "reason" }, statement.reason) : null,
            statement.reply ? el("blockquote", { dir: "auto" }, statement.reply) : null,
          )
        : null,
    );
  };

  const pickStatement = (side, position) => {
    const same = state.statement?.side === side && state.statement.position === position;
    state.statement = same ? null : { side, position };
    state.reader = "document";
    const scrolled = $("main").scrollTop;
    showEntry();
    $("main").scrollTop = scrolled;
    document.querySelector(".statement[aria-current]")?.scrollIntoView({ block: "nearest" });
  };
  const stepStatement = (step) => {
    const all = [0, 1].flatMap((side) => {
      return allStatements(response(side)).map((_, position) => ({ side, position }));
    });
    if (!all.length) return;
    const now = all.findIndex((one) => one.side === state.statement?.side && one.position === state.statement?.position);
    const next = all[now < 0 ? (step > 0 ? 0 : all.length - 1) : (now + step + all.length) % all.length];
    pickStatement(next.side, next.position);
  };

  // Nodes of a text with marked ranges [start, end, properties], sorted and without overlaps; `words` are emphasized.
  const markedNodes = (text, ranges, words = null) => {
    const nodes = [];
    let at = 0;
    for (const [start, end, properties] of ranges) {
      if (start < at) continue;
      const marked = text.slice(start, end);
      nodes.push(text.slice(at, start), el("mark", properties, words ? emphasized(marked, words) : marked));
      at = end;
    }
    nodes.push(text.slice(at));
    return nodes;
  };

  const WORD = /[\p{Script=Han}]|[\p{L}\p{N}]{4,}|\p{N}+/gu;
  const contentWords = (text) => new Set(text.toLowerCase().match(WORD) ?? []);
  const emphasized = (text, words) => {
    const nodes = [];
    let at = 0;
    for (const { 0: word, index } of text.matchAll(WORD)) {
      if (!words.has(word.toLowerCase())) continue;
      nodes.push(text.slice(at, index), el("b", {}, word));
      at = index + word.length;
    }
    return [...nodes, text.slice(at)];
  };

  const markedResponse = (shown, statements, side) => {
    const ranges = [];
    statements.forEach((statement, position) => {
      const start = statement.text ? shown.text.indexOf(statement.text) : -1;
      const kind = supportClass(statement.support);
      const active = state.statement?.side === side && state.statement.position === position;
      if (start >= 0)
        ranges.push([start, start + statement.text.length, { class: `${kind} ${active ? "active" : ""}`, title: SUPPORT[kind], on: { click: () => pickStatement(side, position) } }]);
    });
    ranges.sort((a, b) => a[0] - b[0]);
    return markedNodes(shown.text, ranges);
  };

  // --- document and extracts ----------------------------------------------------------------------------------------

  const showReader = () => {
    const { entry } = state;
    document.body.classList.toggle("without-reader", !state.document && !entry.extracts.length);
    for (const name of ["document", "extracts"]) $(`tab-${name}`).setAttribute("aria-selected", String(state.reader === name));
    $("tab-extracts").hidden = !entry.extracts.length;
    $("tab-extracts").textContent = `Extracts (${entry.extracts.length})`;
    if (state.reader === "extracts") showExtracts();
    else showDocument();
  };

  const currentStatement = () => {
    if (!state.statement) return null;
    return allStatements(response(state.statement.side))[state.statement.position] ?? null;
  };

  const showDocument = (span = null) => {
    const statement = span ? null : currentStatement();
    const kind = statement ? supportClass(statement.support) : "extract";
    const spans = [...(span ? [span] : (statement?.evidence ?? []))].sort((a, b) => a[0] - b[0]);
    const note = statement
      ? `${statement.evidence.length + statement.quotes.length} passages for this statement`
      : state.document
        ? `${state.entry.document_name ? state.entry.document_name + ", " : ""}${count(state.document.length)} characters`
        : "";
    $("reader-note").textContent = visible(note);
    if (!state.document) {
      $("reader").replaceChildren(el("p", { class: "empty" }, "This prompt has no document."));
      return;
    }
    $("reader").replaceChildren(
      ...(statement?.quotes ?? []).map((quote) => el("blockquote", { class: "quote", dir: "auto" }, quote)),
      el("div", { class: "document", dir: "auto" }, markedNodes(state.document, spans.map(([start, end]) => [start, end, { class: `evidence ${kind}` }]), statement && contentWords(statement.text))),
    );
    const mark = $("reader").querySelector("mark");
    if (mark) mark.scrollIntoView({ block: "center" });
    else $("reader").scrollTop = 0;
  };

  const coverage = (line, words) => {
    const own = [...contentWords(line)];
    return own.length ? own.filter((word) => words.has(word)).length / own.length : 1;
  };

  const showExtracts = () => {
    const shown = [0, 1].map(response);
    const words = shown.map((one) => (one ? contentWords(one.text) : null));
    const replies = shown.map((one, side) => {
      const dimension = one?.dimensions.find((candidate) => candidate.name === "completeness");
      return dimension && (dimension.reply || dimension.reason)
        ? el("div", { class: "verdict" }, el("h3", {}, side ? "Right: " : "Left: ", el("bdi", {}, one.label), ` · completeness ${number(dimension.score, 1)}`), el("blockquote", { dir: "auto" }, dimension.reply ?? dimension.reason))
        : null;
    });
    $("reader-note").textContent = "what completeness compares responses with";
    const badge = (line, side) => {
      if (!words[side]) return null;
      const share = coverage(line, words[side]);
      const covered = share >= 0.6;
      return el("span", { class: `cover ${covered ? "in" : "out"}`, title: `${side ? "right" : "left"} response: ${Math.round(share * 100)} % of these words occur in it` }, `${side ? "R" : "L"}${covered ? "✓" : "–"}`);
    };
    const parts = state.entry.extracts.map((extract) =>
      el(
        "section",
        { class: "extract" },
        el(
          "h3",
          {},
          el("button", { type: "button", disabled: !extract.span, title: "Show this part of the document", on: { click: () => showPart(extract.span) } }, `${extract.first_percent}–${extract.last_percent} %`),
        ),
        extract.text
          ? el("ul", {}, extract.text.split("\n").filter((line) => line.trim()).map((line) => el("li", { dir: "auto" }, el("span", { class: "covers" }, badge(line, 0), badge(line, 1)), el("span", {}, line))))
          : el("p", { class: "note" }, extract.reason ? extract.reason : "nothing relevant"),
      ),
    );
    $("reader").replaceChildren(
      ...replies.filter(Boolean),
      el("p", { class: "note" }, "L and R: whether most words of a line occur in the left and the right response. This compares words; the judge's verdict is above."),
      ...parts,
    );
    $("reader").scrollTop = 0;
  };
  const showPart = (span) => {
    state.statement = null;
    state.reader = "document";
    showReader();
    showDocument(span);
  };
  const showTab = (name) => {
    if (name === "extracts" && !state.entry?.extracts.length) return;
    state.reader = name;
    showReader();
  };

  // --- commands -----------------------------------------------------------------------------------------------------

  const toggleFlag = () => {
    if (!state.row) return;
    const flaggedNow = !flagOf(state.row)?.flagged;
    saveFlag(flagKey(state.row), { flagged: flaggedNow });
    $("flag").setAttribute("aria-pressed", String(flaggedNow));
  };
  const step = (distance) => {
    const next = state.rows[state.rows.indexOf(state.row) + distance];
    if (next) return open(next);
  };

  const showExport = () => {
    const lines = exportLines();
    $("export-text").value = lines;
    $("export-note").textContent = !lines
      ? "Nothing is flagged. Press f on a prompt; its comment is exported with it."
      : isPairs()
        ? "Save this as data/excluded.jsonl and set pair.exclude to it: these prompts then give no pair."
        : "Flags of this collection. pair.exclude takes the flags of training prompts only.";
    $("export-sandboxed").hidden = !isSandboxed;
    $("export-download").hidden = isSandboxed;
    $("export-copy").textContent = "Copy";
    $("export-download").disabled = $("export-copy").disabled = $("export-clear").disabled = !lines;
    $("export-dialog").showModal();
  };
  const download = () => {
    const url = URL.createObjectURL(new Blob([$("export-text").value], { type: "application/x-ndjson" }));
    el("a", { href: url, download: isPairs() ? "excluded.jsonl" : `flags-${state.collection.name}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  const copy = () => {
    $("export-text").select();
    // Deprecated, but navigator.clipboard is not available in MLflow's frame.
    $("export-copy").textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl-C";
  };
  const clearFlags = () => {
    flags = new Map();
    writeFlags();
    showFlagCount();
    showList();
    markCurrent();
    if (state.entry) showEntry();
    $("export-dialog").close();
  };

  const KEYS = {
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    ArrowRight: (event) => state.entry && cycle(event.shiftKey ? 0 : 1, 1),
    ArrowLeft: (event) => state.entry && cycle(event.shiftKey ? 0 : 1, -1),
    n: () => state.entry && stepStatement(1),
    p: () => state.entry && stepStatement(-1),
    d: () => state.entry && showTab(state.reader === "document" ? "extracts" : "document"),
    f: toggleFlag,
    c: () => $("comment")?.focus(),
    "/": () => $("search").select(),
    "?": () => $("help-dialog").showModal(),
  };
  const onKey = (event) => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && target instanceof HTMLElement) {
      if (target === $("search") && target.value) {
        target.value = "";
        update();
      }
      target.blur();
      return;
    }
    if (event.key === "Enter" && (target === $("search") || target.id === "comment")) {
      target.blur();
      return;
    }
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && target.type !== "radio") return;
    if (event.key.startsWith("Arrow") && target === $("reader") && (event.key === "ArrowDown" || event.key === "ArrowUp")) return;
    const command = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
    if (!command) return;
    event.preventDefault();
    command(event);
  };

  // --- start --------------------------------------------------------------------------------------------------------

  const options = (select, entries) => {
    select.replaceChildren(...entries.map(([value, label]) => el("option", { value }, label)));
  };
  const resetFilters = () => {
    for (const input of document.querySelectorAll("#filters input")) input.value = "";
    for (const select of document.querySelectorAll("#filters select")) select.selectedIndex = 0;
  };

  const openCollection = async (collection, row = null) => {
    state.collection = collection;
    flags = readFlags();
    showFlagCount();
    for (const tab of $("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.name === collection.name));
    const reasons = new Map();
    for (const one of collection.rows)
      for (const reason of [one.noPair, ...one.unscored]) if (reason) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    const dimensions = new Set(collection.rows.flatMap((one) => one.responses.flatMap((candidate) => Object.keys(candidate.scores))));
    const groups = [...new Set(collection.rows.map((one) => one.group))].filter(Boolean);
    const [left, right] = sideNames();
    const names = isPairs() ? ["file", "large", "small", "high", "low"] : ["large", "better", "worse", "file"];
    options($("sort"), names.map((name) => [name, SORTS[name][0].replace("right side", "DPO")]));
    options($("show"), [["", "all prompts"], ...(isPairs() ? [["pair", "with a pair"], ["no-pair", "without a pair"]] : []), ...(collection.rows.some((one) => one.disputed) ? [["disputed", "disputed by the judges"]] : []), ["unscored", "with unscored responses"], ["flagged", "flagged"], ["commented", "with a comment"]]);
    options($("reason"), [["", "any"], ...[...reasons].sort((a, b) => b[1] - a[1]).slice(0, 100).map(([reason, times]) => [reason, `${reason} (${times})`])]);
    options($("group"), [["", "all"], ...groups.map((group) => [group, group])]);
    for (const node of [$("group"), document.querySelector("[data-for=group]")]) node.hidden = groups.length < 2;
    options($("of"), [["any", "any response"], ["left", left.toLowerCase() === "sft" ? left : left.toLowerCase()], ["right", right.toLowerCase() === "dpo" ? right : right.toLowerCase()]]);
    options($("dimension"), [["value", isPairs() ? "reward" : "reward or score"], ...[...dimensions].slice(0, 50).map((name) => [name, name])]);
    resetFilters();
    state.row = row;
    await update({ keep: false });
    if (row && state.rows.includes(row)) await open(row);
  };

  const setTheme = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  const nextTheme = () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    setTheme(dark ? "light" : "dark");
    storage.set("longreward/theme", dark ? "light" : "dark");
  };

  const start = async () => {
    setTheme(storage.get("longreward/theme"));
    state.index = await decode("index");
    const { collections, title } = state.index;
    $("title").textContent = visible(title);
    $("tabs").replaceChildren(
      ...collections.map((collection) =>
        el("button", { type: "button", role: "tab", data: { name: collection.name }, on: { click: () => openCollection(collection) } }, `${collection.title} `, el("span", { class: "count" }, count(collection.rows.length))),
      ),
    );
    let pending = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(pending);
      pending = setTimeout(update, 150);
    });
    $("filters").addEventListener("input", () => update());
    $("reset").addEventListener("click", () => {
      resetFilters();
      update();
    });
    $("export").addEventListener("click", showExport);
    $("export-download").addEventListener("click", download);
    $("export-copy").addEventListener("click", copy);
    $("export-clear").addEventListener("click", clearFlags);
    $("export-close").addEventListener("click", () => $("export-dialog").close());
    $("help").addEventListener("click", () => $("help-dialog").showModal());
    $("help-close").addEventListener("click", () => $("help-dialog").close());
    $("theme").addEventListener("click", nextTheme);
    for (const name of ["document", "extracts"]) $(`tab-${name}`).addEventListener("click", () => showTab(name));
    document.addEventListener("keydown", onKey);
    const goToAddress = async () => {
      const target = rowAtAddress();
      if (!target || target.row === state.row) return;
      if (target.collection !== state.collection) await openCollection(target.collection, target.row);
      else {
        if (!state.rows.includes(target.row)) {
          $("search").value = "";
          resetFilters();
          await update();
        }
        await open(target.row);
      }
    };
    addEventListener("hashchange", goToAddress);
    $("list").addEventListener("click", (event) => {
      const item = event.target.closest?.("li");
      if (!item || event.ctrlKey || event.metaKey) return;
      event.preventDefault(); // a sandboxed frame cannot navigate
      open(state.rows.find((row) => row.key === item.dataset.key));
    });
    const target = rowAtAddress();
    if (collections.length) await openCollection(target?.collection ?? collections[0], target?.row ?? null);
    else $("main").replaceChildren(el("p", { class: "empty" }, "This page has no prompts."));
    document.documentElement.dataset.ready = "true";
  };
  start();
})();
