"""The page that `serve.py` shows: no framework, nothing from elsewhere.

Model outputs reach the page as text, never as markup. It speaks the browser's
language, Chinese or else English, until the button at its top says otherwise.
"""

import json

# What the page says. `{}` is replaced by a value.
TEXTS = {
    "en": {
        "loading": "Loading…",
        "tuned": "Fine-tuned on {}",
        "pretrained": "A pre-trained model",
        "legend": "What to do",
        "run": "Run",
        "other": "中文",
        "classify": "Classify",
        "score": "Score",
        "tag": "Find names",
        "answer": "Answer",
        "choose": "Choose",
        "fill_mask": "Fill [MASK]",
        "similarity": "Compare",
        "text": "Text",
        "second": "Second text",
        "question": "Question",
        "choices": "Choices, one on each line",
        "labels": "It knows: {}",
        "example": "The texts below are from its training set.",
        "masked": "Text with [MASK]",
        "cosine": "cosine",
        "points": "score",
        "no_answer": "(no answer in the text)",
        "nothing": "nothing found",
        "offline": "The service does not answer: is it still running?",
    },
    "zh": {
        "loading": "加载中…",
        "tuned": "微调模型，任务：{}",
        "pretrained": "预训练模型",
        "legend": "功能",
        "run": "运行",
        "other": "English",
        "classify": "分类",
        "score": "打分",
        "tag": "实体识别",
        "answer": "阅读理解",
        "choose": "多项选择",
        "fill_mask": "填空 [MASK]",
        "similarity": "句子相似度",
        "text": "文本",
        "second": "第二个文本",
        "question": "问题",
        "choices": "选项（每行一个）",
        "labels": "标签：{}",
        "example": "下面的文本取自它的训练集。",
        "masked": "带 [MASK] 的文本",
        "cosine": "余弦相似度",
        "points": "分数",
        "no_answer": "（文中没有答案）",
        "nothing": "没有结果",
        "offline": "服务没有响应，请确认它还在运行",
    },
}
# What the service refuses, by the beginning of its sentence; the numbers in
# it go into the Chinese one. Other sentences are shown as they are.
REFUSALS = [
    (
        r"^a text must have (\d+) to (\d+) characters",
        "文本长度须为 $1 到 $2 个字符",
    ),
    (r"^the text holds no \[MASK\]", "文本里没有 [MASK]"),
    (
        r"^the text is longer than (\d+) tokens, and a \[MASK\]",
        "文本超过 $1 个 token，截断处之后还有 [MASK]",
    ),
    (r"^the request is too large", "请求太大"),
    (r"^a request may hold (\d+) \[MASK\]", "每个请求最多 $1 个 [MASK]"),
    (
        r"^this model takes (\d+) to (\d+) choices",
        "该模型需要 $1 到 $2 个选项",
    ),
    (
        r"^`[^`]*choices` must be a list of (\d+) to (\d+) choices",
        "选项须为 $1 到 $2 个",
    ),
    (r"^too many requests are waiting", "排队的请求太多，请稍后再试"),
    (r"^there was no answer within (\d+) s", "$1 秒内没有得到结果"),
    (
        r"^filling masks needs a pre-trained model",
        "填空需要带 MLM 头的预训练模型",
    ),
]

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
<button type="button" id="language" lang="zh">中文</button>
<p id="model" aria-live="polite">Loading…</p>
<p id="labels"></p>
<form id="form">
<p id="example" hidden></p>
<fieldset id="modes"><legend id="legend">What to do</legend></fieldset>
<label for="a" id="label-a">Text</label>
<textarea id="a" rows="3" lang="zh" required></textarea>
<div id="second">
<label for="b" id="label-b">Second text</label>
<textarea id="b" rows="3" lang="zh"></textarea>
</div>
<div id="third">
<label for="c" id="label-c">Choices</label>
<textarea id="c" rows="4" lang="zh"></textarea>
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
#language { float: right; margin: 0; }
#error { color: #c22; min-height: 1.5em; }
table { width: 100%; border-collapse: collapse; }
td, th { text-align: left; padding: .3rem; border-bottom: 1px solid #8884; }
meter { width: 8rem; }
"""

SCRIPT = (
    f"""
"use strict";
const TEXTS = {json.dumps(TEXTS, ensure_ascii=False)};
const REFUSALS = {json.dumps(REFUSALS, ensure_ascii=False)};
"""
    + """
const MODES = {
  classify: { a: "text", b: null },
  score: { a: "text", b: null },
  tag: { a: "text", b: null },
  answer: { a: "question", b: "text" },
  choose: { a: "text", b: "question", c: "choices" },
  fill_mask: { a: "masked", b: null },
  similarity: { a: "text", b: "second" },
};
const EXAMPLES = {
  classify: ["花呗怎么还款", "如何用花呗还钱"],
  score: ["一架飞机正在起飞", "飞机要起飞了"],
  tag: ["浙商银行企业信贷部叶老桂博士", ""],
  answer: ["首都是哪里？", "北京是中国的首都。"],
  choose: ["今天下雨，我们没有去公园。", "他们为什么没去公园？",
    ["下雨了", "太远了"]],
  fill_mask: ["今天天[MASK]很好", ""],
  similarity: ["我喜欢妈妈做的汤", "妈妈做的汤我很喜欢喝"],
};
const MOST_LABELS = 20;
const get = (id) => document.getElementById(id);
let info = {};
let language = "en";

function say(key, value) {
  return TEXTS[language][key].replace("{}", value);
}

function explain(message) {
  if (language === "zh")
    for (const [pattern, chinese] of REFUSALS) {
      const found = new RegExp(pattern).exec(message);
      if (found) return chinese.replace(/\\$(\\d)/g, (_, i) => found[i]);
    }
  return message;
}

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen;
  get("language").textContent = say("other");
  get("language").lang = chosen === "en" ? "zh" : "en";
  get("legend").textContent = say("legend");
  get("go").textContent = say("run");
  get("model").textContent = !info.routes ? say("loading")
    : info.task ? say("tuned", info.task) : say("pretrained");
  get("labels").textContent = info.labels && info.labels.length
    ? say("labels", shortened(info.labels)) : "";
  get("example").textContent = say("example");
  get("error").textContent = "";
  get("result").replaceChildren();
  for (const name of info.routes || [])
    get(`name-${name}`).textContent = say(name);
  if (info.routes) showFields(false);
}

function shortened(labels) {
  const more = labels.length > MOST_LABELS ? ", …" : "";
  return labels.slice(0, MOST_LABELS).join(", ") + more;
}

function mode() {
  return new FormData(get("form")).get("mode");
}

function second() {
  const takesPairs = info.pairs && ["classify", "score"].includes(mode());
  return takesPairs ? "second" : MODES[mode()].b;
}

function showFields(fill) {
  get("label-a").textContent = say(MODES[mode()].a);
  get("second").hidden = second() === null;
  get("label-b").textContent =
    second() === null ? "" : say(second());
  get("third").hidden = !MODES[mode()].c;
  get("label-c").textContent = MODES[mode()].c ? say(MODES[mode()].c) : "";
  if (fill) {
    const own = isOwn();
    const [a, b, c] = own ? info.example : EXAMPLES[mode()];
    [get("a").value, get("b").value] = [a, b || ""];
    get("c").value = (c || []).join("\\n");
    get("example").hidden = !own;
  }
}

// Whether what is asked is what the model was trained for, and an example kept.
function isOwn() {
  const isTask = info.task && mode() === info.routes[0];
  return Boolean(isTask && info.example && info.example.length);
}

function request() {
  const a = get("a").value, b = get("b").value;
  if (MODES[mode()].c) {
    const choices = get("c").value.split("\\n").filter((line) => line.trim());
    return { questions: [{ text: a, question: b, choices }] };
  }
  return second() === null ? { texts: [a] } : { pairs: [[a, b]] };
}

function rows(name, found) {
  const first = found[0];
  if (name === "similarity") return [[say("cosine"), found[0]]];
  if (name === "classify") return Object.entries(first.probabilities);
  if (name === "score") return [[say("points"), first.score.toFixed(4)]];
  if (name === "tag")
    return first.entities.map((e) => [`${e.text} (${e.type})`, e.probability]);
  if (name === "choose") {
    const choices = get("c").value.split("\\n").filter((line) => line.trim());
    return choices.map((choice, i) => [choice, first.probabilities[i]]);
  }
  if (name === "answer")
    return first.n_best.slice(0, 5).map(
      (n) => [n.text || say("no_answer"), n.probability]);
  return first.flatMap((mask, i) =>
    mask.map((p) => [`${i + 1}: ${p.text}`, p.probability]));
}

function show(pairs) {
  const table = get("result");
  table.replaceChildren();
  if (!pairs.length) pairs = [[say("nothing"), ""]];
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
    }).catch(() => { throw new Error(say("offline")); });
    const found = await response.json();
    if (!response.ok) throw new Error(found.detail || response.statusText);
    show(rows(mode(), found));
  } catch (error) {
    get("error").textContent = explain(error.message);
    get("result").replaceChildren();
  }
  get("go").disabled = false;
}

async function start() {
  speak(navigator.language.startsWith("zh") ? "zh" : "en");
  get("language").addEventListener(
    "click", () => speak(language === "en" ? "zh" : "en"));
  info = await (await fetch("/info")).json();
  info.routes = info.routes.filter((name) => name in MODES);
  for (const [i, name] of info.routes.entries()) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = "radio";
    input.name = "mode";
    input.value = name;
    input.checked = i === 0;
    input.addEventListener("change", () => showFields(true));
    const text = document.createElement("span");
    text.id = `name-${name}`;
    label.append(input, " ", text);
    get("modes").append(label);
  }
  speak(language);
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
    get("c").value = link.get("c") || "";
    get("example").hidden = true;
    await run();
  }
}
start();
"""
)
