"""The page that `serve.py` shows: no framework, nothing from elsewhere.

Model outputs reach the page as text, never as markup.
"""

HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>albert_tf2</title>
<link rel="stylesheet" href="/page.css">
</head>
<body>
<main>
<h1>albert_tf2</h1>
<p id="model" aria-live="polite">Loading…</p>
<form id="form">
<fieldset id="modes"><legend>What to do</legend></fieldset>
<label for="a" id="label-a">Text</label>
<textarea id="a" rows="3" lang="zh" required></textarea>
<div id="second">
<label for="b" id="label-b">Second text</label>
<textarea id="b" rows="3" lang="zh"></textarea>
</div>
<button type="submit" id="go" disabled>Run</button>
</form>
<p id="error" role="alert"></p>
<table id="result" aria-live="polite"></table>
</main>
<script src="/page.js"></script>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }
label { display: block; margin: .8rem 0 .2rem; font-weight: 600; }
textarea { width: 100%; box-sizing: border-box; font: inherit; }
fieldset { border: 1px solid #8888; border-radius: .4rem; }
fieldset label { display: inline; margin-right: 1rem; font-weight: 400; }
button { margin: 1rem 0; padding: .4rem 1.5rem; font: inherit; }
#error { color: #c22; min-height: 1.5em; }
table { width: 100%; border-collapse: collapse; }
td, th { text-align: left; padding: .3rem; border-bottom: 1px solid #8884; }
meter { width: 8rem; }
"""

SCRIPT = """
"use strict";
const MODES = {
  classify: { name: "Classify", b: null, a: "Text" },
  score: { name: "Score", b: null, a: "Text" },
  tag: { name: "Find names", b: null, a: "Text" },
  answer: { name: "Answer", a: "Question", b: "Text" },
  fill_mask: { name: "Fill [MASK]", a: "Text with [MASK]", b: null },
  similarity: { name: "Compare", a: "Text", b: "Second text" },
};
const EXAMPLES = {
  classify: ["花呗怎么还款", "如何用花呗还钱"],
  score: ["一架飞机正在起飞", "飞机要起飞了"],
  tag: ["浙商银行企业信贷部叶老桂博士", ""],
  answer: ["首都是哪里？", "北京是中国的首都。"],
  fill_mask: ["今天天[MASK]很好", ""],
  similarity: ["我喜欢妈妈做的汤", "妈妈做的汤我很喜欢喝"],
};
const get = (id) => document.getElementById(id);
let info = {};

function mode() {
  return new FormData(get("form")).get("mode");
}

function second() {
  const takesPairs = info.pairs && ["classify", "score"].includes(mode());
  return takesPairs ? "Second text" : MODES[mode()].b;
}

function showFields(fill) {
  get("label-a").textContent = MODES[mode()].a;
  get("second").hidden = second() === null;
  get("label-b").textContent = second() || "";
  if (fill) [get("a").value, get("b").value] = EXAMPLES[mode()];
}

function request() {
  const a = get("a").value, b = get("b").value;
  return second() === null ? { texts: [a] } : { pairs: [[a, b]] };
}

function rows(name, found) {
  const first = found[0];
  if (name === "similarity") return [["cosine", found[0]]];
  if (name === "classify") return Object.entries(first.probabilities);
  if (name === "score") return [["score", first.score.toFixed(4)]];
  if (name === "tag")
    return first.entities.map((e) => [`${e.text} (${e.type})`, e.probability]);
  if (name === "answer")
    return first.n_best.slice(0, 5).map(
      (n) => [n.text || "(no answer in the text)", n.probability]);
  return first.flatMap((mask, i) =>
    mask.map((p) => [`${i + 1}: ${p.text}`, p.probability]));
}

function show(pairs) {
  const table = get("result");
  table.replaceChildren();
  if (!pairs.length) pairs = [["nothing found", ""]];
  for (const [name, value] of pairs) {
    const row = table.insertRow();
    row.insertCell().textContent = name;
    row.insertCell().textContent =
      typeof value === "number" ? value.toFixed(4) : value;
    if (typeof value === "number") {
      const meter = document.createElement("meter");
      meter.value = Math.max(0, Math.min(1, value));
      row.insertCell().append(meter);
    }
  }
}

async function run(event) {
  if (event) event.preventDefault();
  get("error").textContent = "";
  get("go").disabled = true;
  try {
    const response = await fetch(`/${mode()}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request()),
    });
    const found = await response.json();
    if (!response.ok) throw new Error(found.detail || response.statusText);
    show(rows(mode(), found));
  } catch (error) {
    get("error").textContent = error.message;
    get("result").replaceChildren();
  }
  get("go").disabled = false;
}

async function start() {
  info = await (await fetch("/info")).json();
  get("model").textContent = info.task
    ? `Fine-tuned on ${info.task}` : "A pre-trained model";
  for (const [i, name] of info.routes.entries()) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = "radio";
    input.name = "mode";
    input.value = name;
    input.checked = i === 0;
    input.addEventListener("change", () => showFields(true));
    label.append(input, ` ${MODES[name].name}`);
    get("modes").append(label);
  }
  showFields(true);
  get("form").addEventListener("submit", run);
  get("go").disabled = false;
  // A link may carry its texts: #mode=similarity&a=...&b=...
  const link = new URLSearchParams(location.hash.slice(1));
  if (link.has("a")) {
    for (const input of document.querySelectorAll("input[name=mode]"))
      if (input.value === link.get("mode")) input.checked = true;
    showFields(false);
    get("a").value = link.get("a");
    get("b").value = link.get("b") || "";
    await run();
  }
}
start();
"""
