// The script of the page of reviews. What is typed is kept in this browser until the server has it on its disk.
"use strict";

const element = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const checked = (name) => document.querySelector(`input[name=${name}]:checked`)?.value ?? null;
const KEPT = "civilqa.review.";  // in localStorage: a request that the server has not confirmed
const LAST = "civilqa.reviewer";
const TYPING_MS = 600, AGAIN_MS = 3000;

let opened = null;  // who reviews, and how
let rows = [];
let at = 0;
let goldTouched = false;
let typing = null;  // timer: saved once nothing was typed for a while
let sending = Promise.resolve();

function tell(text, isError = false) {
  element("status").textContent = text;
  element("status").className = isError ? "error" : "";
}

const post = (path, text, more = {}) =>
  fetch(path, {method: "POST", headers: {"content-type": "application/json"}, body: text, ...more});

function readForm() {
  const marks = [0, 1].map((place) => {
    const verdict = checked(`verdict-${place}`);
    const faults = verdict === "wrong" ? all(`input[name=fault-${place}]:checked`).map((box) => box.value) : [];
    return {verdict, faults};
  });
  const gold = goldTouched ? Object.fromEntries(all("[data-gold]").map((field) => [field.dataset.gold, field.value])) : null;
  return {
    reviewer: opened.reviewer, blind: opened.blind, key: rows[at].key, marks, better: checked("better"),
    correction: element("correction").value, note: element("note").value, gold,
  };
}

function keep() {
  const state = readForm();
  Object.assign(rows[at], state, {gold: state.gold ?? rows[at].gold, gold_saved: goldTouched});
  const name = KEPT + state.reviewer + "." + state.key;
  localStorage.setItem(name, JSON.stringify(state));
  return name;
}

async function deliver(name, more) {
  const text = localStorage.getItem(name);
  if (text === null) { return; }
  const response = await post("save", text, more);
  if (!response.ok) { throw new Error(await response.text()); }
  const told = await response.json();
  if (localStorage.getItem(name) === text) { localStorage.removeItem(name); }
  const row = rows.find((each) => name.endsWith("." + each.key));
  if (row) {
    Object.assign(row, told);
    if (row === rows[at]) { showTold(row); }
    showProgress();
  }
}

function send(name, more) {
  clearTimeout(typing);
  typing = null;
  const done = sending.then(() => deliver(name, more)).then(() => tell("저장했습니다."), (error) => {
    const reason = error instanceof TypeError ? "서버에 닿지 않습니다. 적은 것은 이 브라우저에 있고, 다시 보냅니다." : error.message;
    tell(`⚠️ ${reason}`, true);
    setTimeout(() => { if (localStorage.getItem(name) !== null) { send(name); } }, AGAIN_MS);
  });
  sending = done;
  return done;
}

function showTold(row) {
  element("right").innerHTML = row.right_html;
  element("right").querySelector(".text")?.remove();  // it stands in the field above
  const words = row.problems === null ? [] : row.problems.length ? row.problems : ["채점 기준이 온전합니다."];
  element("problems").replaceChildren(...words.map((text) =>
    Object.assign(document.createElement("p"), {textContent: text, className: row.problems.length ? "todo" : "done"})));
}

function showProgress() {
  const done = rows.filter((row) => row.done).length;
  element("progress").textContent = `${rows.length}개 가운데 ${done}개를 마쳤습니다.`;
  rows.forEach((row, index) => {
    element("jump").options[index].textContent = `${index + 1}. ${row.done ? "✓ " : ""}${row.question.slice(0, 40)}`;
  });
}

function show(index, focus = true) {
  at = index;
  const row = rows[at];
  element("question").textContent = `${at + 1}. ${row.question}`;
  element("about").textContent = row.about;
  element("reference").innerHTML = row.reference_html;
  row.names.forEach((name, place) => {
    for (const shown of all(`.name-${place}`)) { shown.textContent = name; }
    element(`answer-${place}`).innerHTML = row.html[place];
    const {verdict, faults} = row.marks[place];
    for (const choice of all(`input[name=verdict-${place}]`)) { choice.checked = choice.value === verdict; }
    for (const box of all(`input[name=fault-${place}]`)) { box.checked = faults.includes(box.value); }
    element(`faults-${place}`).hidden = verdict !== "wrong";
  });
  for (const choice of all("input[name=better]")) { choice.checked = choice.value === row.better; }
  element("correction").value = row.correction;
  element("note").value = row.note;
  element("gold").hidden = row.gold === null;
  element("gold").open = row.gold_saved;
  goldTouched = row.gold_saved;
  for (const field of all("[data-gold]")) { field.value = row.gold?.[field.dataset.gold] ?? ""; }
  element("previous").disabled = at === 0;
  element("next").disabled = at === rows.length - 1;
  element("jump").selectedIndex = at;
  showTold(row);
  localStorage.setItem(LAST, JSON.stringify({...opened, key: row.key}));
  if (focus) { element("question").focus(); }
}

function move(index) {
  if (index < 0 || index >= rows.length) { return; }
  if (typing !== null) { send(keep()); }
  show(index);
}

async function open(key = null) {
  const left = Object.keys(localStorage).filter((name) => name.startsWith(KEPT + opened.reviewer + "."));
  const refused = [];
  for (const name of left) {
    try { await deliver(name); } catch (error) { refused.push(error.message); }
  }
  const response = await post("rows", JSON.stringify(opened));
  if (!response.ok) {
    const words = "이름을 글자, 숫자, 빈칸, -로 40자까지 적어 주십시오.";
    throw new Error(response.status === 400 ? words : await response.text());
  }
  rows = await response.json();
  element("jump").replaceChildren(...rows.map(() => document.createElement("option")));
  element("start").hidden = true;
  element("review").hidden = false;
  const wanted = rows.findIndex((row) => row.key === key);
  const first = rows.findIndex((row) => !row.done);
  show(wanted >= 0 ? wanted : Math.max(first, 0));
  showProgress();
  tell(refused.length ? `⚠️ 전에 적은 것 ${refused.length}건을 저장하지 못했습니다. ${refused[0]}` : "", refused.length > 0);
}

function begin(key) {
  return open(key).catch((error) =>
    tell(`⚠️ ${error instanceof TypeError ? "서버에 닿지 않습니다. 검토를 연 명령을 확인하십시오." : error.message}`, true));
}

element("start").addEventListener("submit", (event) => {
  event.preventDefault();
  opened = {
    reviewer: element("reviewer").value.normalize("NFC").trim(), blind: element("blind").checked,
    shuffled: element("shuffled").checked,
  };
  begin();
});
element("review").addEventListener("submit", (event) => event.preventDefault());
element("review").addEventListener("input", (event) => {
  if (event.target === element("jump")) { return; }
  if (event.target.dataset.gold) { goldTouched = true; }
  for (const place of [0, 1]) { element(`faults-${place}`).hidden = checked(`verdict-${place}`) !== "wrong"; }
  const name = keep();
  clearTimeout(typing);
  const isText = event.target.matches("textarea, input[type=text]");
  if (isText) { typing = setTimeout(() => send(name), TYPING_MS); } else { send(name); }
});
element("jump").addEventListener("change", () => move(element("jump").selectedIndex));
element("previous").addEventListener("click", () => move(at - 1));
element("next").addEventListener("click", () => move(at + 1));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.ctrlKey && opened && !element("review").hidden) { move(at + 1); }
});
for (const button of all(".take")) {
  button.addEventListener("click", () => {
    const {from} = button.dataset;
    const text = from === "reference" ? rows[at].reference : rows[at].texts[from];
    if (element("correction").value.trim() && !confirm("적어 둔 바른 답변을 지우고 가져올까요?")) { return; }
    element("correction").value = text;
    send(keep());
    element("correction").focus();
  });
}
element("leave").addEventListener("click", () => {
  if (typing !== null) { send(keep()); }
  localStorage.removeItem(LAST);
  element("review").hidden = true;
  element("start").hidden = false;
  element("reviewer").focus();
});
addEventListener("pagehide", () => { if (typing !== null) { send(keep(), {keepalive: true}); } });

const last = JSON.parse(localStorage.getItem(LAST) ?? "null");
if (last) {
  const {key, ...who} = last;
  opened = who;
  element("reviewer").value = who.reviewer;
  element("blind").checked = who.blind;
  element("shuffled").checked = who.shuffled;
  begin(key);
}
