// The little of a browser that page.js needs, for a test without a browser.
// node fake_page.js PAGE.JS LANGUAGE ANSWERS: answers requests from a JSON file
// of {route: [status, body]}, clicks the language button, and prints what the
// page shows before and after as a JSON list.
const fs = require("fs");
const [file, language, answersFile] = process.argv.slice(2);
const answers = JSON.parse(fs.readFileSync(answersFile, "utf8"));

class Node {
  constructor() {
    this.children = [];
    this.listeners = {};
    this.textContent = "";
  }
  // Of the radio buttons one is chosen.
  set checked(value) { if (value) Node.chosen = this; }
  get checked() { return Node.chosen === this; }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren() { this.children = []; }
  addEventListener(event, act) { this.listeners[event] = act; }
  insertRow() { return this.add(); }
  insertCell() { return this.add(); }
  add() { const node = new Node(); this.children.push(node); return node; }
  all() { return [this, ...this.children.flatMap((c) => c.all ? c.all() : [])]; }
}

const ids = {};
const find = (id) => Object.values(ids).flatMap((n) => n.all())
  .find((n) => n.id === id) || (ids[id] ??= new Node());
const inputs = () => find("modes").all().filter((n) => n.name === "mode");
globalThis.document = {
  documentElement: {},
  getElementById: find,
  createElement: () => new Node(),
  querySelectorAll: inputs,
};
Object.defineProperty(globalThis, "navigator", { value: { language } });
globalThis.location = { hash: answers.hash };
globalThis.FormData = class {
  get() { return inputs().find((n) => n.checked).value; }
};
globalThis.fetch = async (path) => {
  if (!answers[path]) throw new TypeError("Failed to fetch");
  const [status, body] = answers[path];
  return { ok: status === 200, statusText: "", json: async () => body };
};

const shown = () => ({
  lang: document.documentElement.lang,
  error: find("error").textContent,
  labels: inputs().map((n) => find(`name-${n.value}`).textContent),
  result: find("result").all().map((n) => n.textContent).filter((t) => t),
  knows: find("labels").textContent,
  example: find("example").hidden ? "" : find("example").textContent,
  texts: ["a", "b", "c"].map((id) => find(id).value),
  hidden: ["second", "third"].filter((id) => find(id).hidden),
  ...Object.fromEntries(["language", "model", "legend", "go", "label-a"].map(
    (id) => [id, find(id).textContent])),
});
(0, eval)(fs.readFileSync(file, "utf8"));
setTimeout(() => {
  const before = shown();
  find("language").listeners.click();
  console.log(JSON.stringify([before, shown()]));
}, 50);
