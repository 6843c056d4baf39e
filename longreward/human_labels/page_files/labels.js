"use strict";
// All texts are untrusted: they are inserted as text nodes only.

const byId = (id) => document.getElementById(id);
let items = [];
let documents = [];
let storageKey = "";
let answers = {}; // item id -> {value, comment}
let current = 0;

async function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function store() {
  try {
    localStorage.setItem(storageKey, JSON.stringify({ answers, reviewer: byId("reviewer").value }));
  } catch {
    byId("message").textContent = "This browser does not store labels: download them before you close the page.";
  }
}

function restore() {
  try {
    const stored = JSON.parse(localStorage.getItem(storageKey) || "{}");
    answers = stored.answers || {};
    byId("reviewer").value = stored.reviewer || "";
  } catch {
    answers = {};
  }
}

const isLabelled = (item) => answers[item.id]?.value !== undefined;

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function addText(parent, title, text, className) {
  const section = element("section");
  section.append(element("h2", title), element("div", text, className ? `text ${className}` : "text"));
  parent.append(section);
  return section.lastChild;
}

// The document with the evidence marked; passages are ordered and do not overlap.
function addDocument(parent, text, evidence) {
  const box = addText(parent, "Document", "");
  let end = 0;
  for (const [start, stop] of evidence) {
    if (start < end || text.slice(start, stop) === "") continue;
    box.append(text.slice(end, start), element("mark", text.slice(start, stop)));
    end = stop;
  }
  box.append(text.slice(end));
}

function showItem() {
  const item = items[current];
  const main = byId("item");
  main.replaceChildren(element("p", item.query, "query"));
  if (item.statement !== undefined) addText(main, "Statement", item.statement, "statement");
  for (const [number, passage] of (item.evidence || []).entries()) addText(main, `Evidence ${number + 1}`, passage);
  if (item.responses.length === 2) {
    const pair = element("div", undefined, "pair");
    addText(pair, "Response A", item.responses[0]);
    addText(pair, "Response B", item.responses[1]);
    main.append(pair);
  } else {
    addText(main, item.statement === undefined ? "Response" : "The whole response", item.responses[0]);
  }
  if (item.document !== undefined) addDocument(main, documents[item.document], item.spans || []);
  byId("question").textContent = item.question;
  byId("definition").textContent = item.definition;
  byId("values").replaceChildren(...item.values.map((value) => valueButton(item, value)));
  byId("comment").value = answers[item.id]?.comment || "";
  main.scrollTop = 0;
  updateState();
}

function valueButton(item, value) {
  const button = element("button");
  const key = keyOf(value);
  button.type = "button";
  button.setAttribute("role", "radio");
  button.dataset.value = value;
  // "10" has the key T, which is not in its text.
  if (value.toLowerCase().startsWith(key)) button.append(element("u", value[0]), value.slice(1));
  else button.append(value, " (", element("u", key.toUpperCase()), ")");
  button.addEventListener("click", () => label(item, value));
  return button;
}

const keyOf = (value) => (value === "10" ? "t" : value[0].toLowerCase());

function label(item, value) {
  answers[item.id] = { ...answers[item.id], value };
  store();
  updateState();
}

function updateState() {
  const item = items[current];
  for (const button of byId("values").children) {
    button.setAttribute("aria-checked", String(button.dataset.value === answers[item.id]?.value));
  }
  byId("progress").textContent = `item ${current + 1} of ${items.length}, ${items.filter(isLabelled).length} labelled`;
  byId("previous").disabled = current === 0;
  byId("next").disabled = current === items.length - 1;
  byId("unlabelled").disabled = items.every(isLabelled);
}

function move(index) {
  if (index < 0 || index >= items.length) return;
  current = index;
  showItem();
}

function nextUnlabelled() {
  const order = [...items.keys()].map((offset) => (current + 1 + offset) % items.length);
  const index = order.find((candidate) => !isLabelled(items[candidate]));
  if (index !== undefined) move(index);
}

function download() {
  const reviewer = byId("reviewer").value.trim();
  if (!reviewer) {
    byId("message").textContent = "Enter your name first: labels are stored by reviewer.";
    byId("reviewer").focus();
    return;
  }
  byId("message").textContent = "";
  const rows = items.filter(isLabelled).map((item) => {
    const { value, comment } = answers[item.id];
    return JSON.stringify({ item: item.id, reviewer, value, ...(comment ? { comment } : {}) });
  });
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([rows.map((row) => `${row}\n`).join("")], { type: "application/jsonl" }));
  link.download = `labels-${reviewer.replace(/[^\p{L}\p{N}]+/gu, "-")}.jsonl`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
  const item = items[current];
  const value = item.values.find((candidate) => keyOf(candidate) === event.key.toLowerCase());
  // With Shift: "n" alone is an answer, "none".
  if (event.shiftKey && event.key === "N") nextUnlabelled();
  else if (value !== undefined && !event.shiftKey) label(item, value);
  else if (event.key === "ArrowRight") move(current + 1);
  else if (event.key === "ArrowLeft") move(current - 1);
  else return;
  event.preventDefault();
}

async function start() {
  const data = await decode(byId("data").textContent);
  ({ items, documents, storageKey } = data);
  restore();
  byId("reviewer").addEventListener("input", store);
  byId("comment").addEventListener("input", () => {
    const item = items[current];
    answers[item.id] = { ...answers[item.id], comment: byId("comment").value };
    store();
  });
  byId("previous").addEventListener("click", () => move(current - 1));
  byId("next").addEventListener("click", () => move(current + 1));
  byId("unlabelled").addEventListener("click", nextUnlabelled);
  byId("download").addEventListener("click", download);
  document.addEventListener("keydown", onKey);
  move(Math.max(items.findIndex((item) => !isLabelled(item)), 0));
  document.documentElement.dataset.ready = "";
}

start();
