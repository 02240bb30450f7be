// The page's only script. Answers come as HTML from the server, in which nothing that a model or a user wrote does anything.
"use strict";

const element = (id) => document.getElementById(id);
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const conversation = element("conversation");
const models = JSON.parse(conversation.dataset.models);
// Of this tab: a reload keeps it, another tab has its own.
const session = sessionStorage.session ??= Array.from(crypto.getRandomValues(new Uint8Array(16)),
  (byte) => byte.toString(16).padStart(2, "0")).join("");

function tell(text, isError = false) {
  element("status").textContent = text;
  element("status").className = isError ? "error" : "";
}

function post(path, body) {
  return fetch(path, {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({session, ...body}),
  });
}

function addExchange(question, answers) {
  const exchange = make("article", {className: "exchange"});
  const row = make("div", {className: "answers"});
  exchange.append(make("p", {className: "question", textContent: question}), row);
  for (const name of models.slice(0, answers)) {
    const answer = make("section", {className: "answer"});
    answer.append(make("h3", {textContent: name}), make("div", {className: "body"}));
    row.append(answer);
  }
  conversation.prepend(exchange);  // the newest first, below the question field
  for (const examples of document.querySelectorAll(".examples")) { examples.open = false; }
  return exchange;
}

function showAnswer(exchange, index, html) {
  const answer = exchange.querySelectorAll(".answer")[index];
  answer.querySelector(".body").innerHTML = html;
  const tools = make("div", {className: "tools"});
  const copy = async (event) => {
    await navigator.clipboard.writeText(answer.querySelector(".text").textContent);
    event.target.textContent = "복사했습니다";
  };
  const askAgain = () => {
    element("question").value = exchange.querySelector(".question").textContent;
    element("question").focus();
  };
  tools.append(
    make("button", {type: "button", textContent: "복사", onclick: copy}),
    make("button", {type: "button", textContent: "다시 묻기", onclick: askAgain}),
  );
  answer.append(tools);
}

function showText(exchange, index, text) {
  const shown = make("div", {className: "text", textContent: text || "…"});
  exchange.querySelectorAll(".answer .body")[index].replaceChildren(shown);
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) { return; }
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) { yield JSON.parse(line); }
  }
}

async function ask() {
  const question = element("question").value;
  const compare = element("compare").checked;
  const body = {
    question, compare, turns: Boolean(element("turns")?.checked),
    category: document.querySelector("input[name=category]:checked").value,
  };
  element("send").disabled = true;
  element("stop").disabled = false;
  tell("답하고 있습니다…");
  const exchange = addExchange(question, compare ? 2 : 1);
  exchange.scrollIntoView({block: "nearest"});
  let finished = false;
  try {
    const response = await post("ask", body);
    if (!response.ok) { throw new Error(await response.text()); }
    for await (const event of events(response)) {
      if (event.error) { throw new Error(event.error); }
      if (event.finished) { finished = true; }
      if (event.status) { tell(event.status); }
      if ("text" in event) { showText(exchange, event.model, event.text); }
      if ("html" in event) { showAnswer(exchange, event.model, event.html); }
    }
    if (!finished) { throw new Error("연결이 끊어졌습니다. 다시 물어 주십시오."); }
    element("question").value = "";
    tell("");
  } catch (error) {
    exchange.remove();
    tell(`⚠️ ${error instanceof TypeError ? "서버에 닿지 않습니다. 다시 물어 주십시오." : error.message}`, true);
  } finally {
    element("send").disabled = false;
    element("stop").disabled = true;
    element("question").focus();
  }
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!element("send").disabled) { ask(); }
});
element("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("ask").requestSubmit();
  }
});
element("stop").addEventListener("click", () => post("stop", {}));
element("clear").addEventListener("click", async () => {
  await post("clear", {});
  conversation.replaceChildren();
  tell("");
});
element("save")?.addEventListener("click", async () => tell(await (await post("save", {})).text()));
for (const example of document.querySelectorAll(".example")) {
  example.addEventListener("click", () => {
    element("question").value = example.textContent;
    for (const choice of document.querySelectorAll("input[name=category]")) {
      choice.checked = choice.value === example.dataset.category;
    }
    element("question").focus();
  });
}

async function restore() {
  for (const {question, answers} of await (await post("conversation", {})).json()) {
    const exchange = addExchange(question, answers.length);
    answers.forEach((html, index) => showAnswer(exchange, index, html));
  }
}
restore();
