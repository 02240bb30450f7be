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

function addExchange(question, answers, category = "") {
  const exchange = make("article", {className: "exchange"});
  const row = make("div", {className: "answers"});
  exchange.append(make("h2", {className: "question", textContent: question}),
    make("p", {className: "category", textContent: category}), row);
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
    const text = answer.querySelector(".text");
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text.textContent);
    } else {  // a page from another machine over plain HTTP has no clipboard of its own
      getSelection().selectAllChildren(text);
      if (!document.execCommand("copy")) { event.target.textContent = "Ctrl+C로 복사하십시오"; return; }
    }
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

// What is said of answers is kept in this tab until the server has it on its disk, and shown again after a reload.
const RATED = "rated.", TYPING_MS = 600, AGAIN_MS = 3000;
const RATER = "civilqa.rater";
const UNSENT = '"unsent":true';
let sending = Promise.resolve();
const senders = new Map();  // by exchange: what sends its form

function addRating(exchange, id) {
  if (!element("mark")) { return; }
  element("who").hidden = false;
  const answers = [...exchange.querySelectorAll(".answer")];
  answers.forEach((answer, index) => {
    answer.append(element("mark").content.cloneNode(true));
    for (const choice of answer.querySelectorAll(".verdict input")) { choice.name = `verdict-${id}-${index}`; }
    const mend = () => {
      exchange.querySelector(".mend").open = true;
      const field = exchange.querySelector(".correction");
      field.value ||= answer.querySelector(".text").textContent;
      field.focus();
      keep();
      send();
    };
    answer.querySelector(".tools").append(make("button", {type: "button", textContent: "고쳐 쓰기", onclick: mend}));
  });
  exchange.append(element("mend").content.cloneNode(true));
  const saved = exchange.querySelector(".saved");
  const [correction, note] = [".correction", ".note"].map((name) => exchange.querySelector(name));
  const name = RATED + id;
  let typing = null;

  const read = () => answers.map((answer) => {
    const verdict = answer.querySelector(".verdict input:checked")?.value ?? null;
    const faults = verdict === "wrong" ? [...answer.querySelectorAll(".faults input:checked")].map((box) => box.value) : [];
    answer.querySelector(".faults").hidden = verdict !== "wrong";
    return {verdict, faults};
  });

  // At every key: a tab that dies while somebody types has what was typed.
  function keep() {
    const marked = {marks: read(), correction: correction.value, note: note.value};
    sessionStorage[name] = JSON.stringify({exchange: id, reviewer: element("reviewer").value, ...marked, unsent: true});
  }

  function send() {
    clearTimeout(typing);
    typing = null;
    sending = sending.then(async () => {
      const {unsent, ...body} = JSON.parse(sessionStorage[name] ?? "{}");
      if (!unsent) { return; }
      const response = await post("rate", body);
      const told = await response.text();
      saved.textContent = response.ok ? told : `⚠️ ${response.status === 400 ? "평가하는 사람을 글자, 숫자, 빈칸으로 적어 주십시오." : told}`;
      // Refused, it is sent once more at the next key or reload, and by itself where the server had no room.
      if (!response.ok) {
        if (response.status >= 500 || response.status === 429) { setTimeout(send, AGAIN_MS); }
        return;
      }
      if (sessionStorage[name] === JSON.stringify({...body, unsent})) { sessionStorage[name] = JSON.stringify(body); }
    }).catch(() => {
      saved.textContent = "⚠️ 서버에 닿지 않습니다. 적은 것은 이 탭에 있고, 다시 보냅니다.";
      setTimeout(send, AGAIN_MS);
    });
  }

  senders.set(id, send);
  const kept = JSON.parse(sessionStorage[name] ?? "null");
  if (kept) {
    kept.marks.forEach(({verdict, faults}, index) => {
      for (const choice of answers[index].querySelectorAll(".verdict input")) { choice.checked = choice.value === verdict; }
      for (const box of answers[index].querySelectorAll(".faults input")) { box.checked = faults.includes(box.value); }
    });
    [correction.value, note.value] = [kept.correction, kept.note];
    exchange.querySelector(".mend").open = Boolean(kept.correction || kept.note);
    read();
    send();
  }
  exchange.addEventListener("input", (event) => {
    clearTimeout(typing);
    keep();
    if (event.target.matches("textarea")) { typing = setTimeout(send, TYPING_MS); } else { send(); }
  });
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
    category: element("category")?.value ?? "",
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
      if (event.finished) {
        finished = true;
        for (const answer of exchange.querySelectorAll(".answer:not(:has(.tools))")) { answer.remove(); }  // never given
        addRating(exchange, event.exchange);
      }
      if (event.category) { exchange.querySelector(".category").textContent = event.category; }
      if (event.status) { tell(event.status); }
      if ("text" in event) { showText(exchange, event.model, event.text); }
      if ("html" in event) { showAnswer(exchange, event.model, event.html); }
    }
    if (!finished) { throw new Error("연결이 끊어졌습니다. 다시 물어 주십시오."); }
    element("question").value = "";
    tell("");
  } catch (error) {
    if (!exchange.querySelector(".tools")) { exchange.remove(); }  // an answer that is there stays to be read
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
  const left = () => Object.keys(sessionStorage).filter((name) => name.startsWith(RATED) && sessionStorage[name].includes(UNSENT));
  for (const send of senders.values()) { send(); }
  await sending;
  if (left().length && !confirm(`저장하지 못한 평가 ${left().length}건이 있습니다. 버리고 새로 시작할까요?`)) { return; }
  senders.clear();
  await post("clear", {});
  conversation.replaceChildren();
  for (const name of Object.keys(sessionStorage)) { if (name.startsWith(RATED)) { sessionStorage.removeItem(name); } }
  tell("");
});
element("save")?.addEventListener("click", async () => tell(await (await post("save", {})).text()));
for (const example of document.querySelectorAll(".example")) {
  example.addEventListener("click", () => {
    element("question").value = example.textContent;
    if (element("category")) { element("category").value = example.dataset.category; }
    element("question").focus();
  });
}

async function restore() {
  const exchanges = await (await post("conversation", {})).json();
  for (const {exchange: id, question, category, answers} of exchanges) {
    const exchange = addExchange(question, answers.length, category);
    answers.forEach((html, index) => showAnswer(exchange, index, html));
    addRating(exchange, id);
  }
}
if (element("reviewer")) {
  element("reviewer").value = localStorage[RATER] ?? element("reviewer").value;
  element("reviewer").addEventListener("change", (event) => { localStorage[RATER] = event.target.value; });
}
restore();
