"use strict";
// Sorts and filters the cards, and opens the one that the address names. Without it the page shows them worst first.
const list = document.getElementById("cards");
const cards = [...list.children];
const order = document.getElementById("order");
const category = document.getElementById("category");

function show() {
  const key = order.value;
  const rank = (card) => Number(card.dataset[key]);
  cards.sort((a, b) => rank(a) - rank(b) || Number(a.dataset.worst) - Number(b.dataset.worst));
  for (const card of cards) {
    card.hidden = category.value !== "" && card.dataset.category !== category.value;
    list.append(card);
  }
}
order.addEventListener("change", show);
category.addEventListener("change", show);
document.getElementById("controls").hidden = false;
